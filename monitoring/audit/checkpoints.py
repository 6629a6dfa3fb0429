"""Signed checkpoints of the audit trail, in a file outside the database.

A chain that is cut off at its end is a shorter chain that holds; only what was written down
elsewhere tells. Each line of DATA_DIR/audit/checkpoints.jsonl names a seal and its chain, which
stands for all rows until then, and is signed by Ed25519. Copy it to where whoever can write to the
database cannot. One older file is kept beside it, so that both are bounded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.utils import timezone

from monitoring.audit import chaining, signing
from monitoring.audit.digests import moment
from monitoring.models import AuditSeal

_MAX_BYTES = 4 * 2**20  # about 10,000 checkpoints; the newest stands for all before it
_TAIL_BYTES = 4096  # holds several lines
_PURPOSE = b"sovereigncore audit checkpoint 1\n"


class CheckpointConflict(Exception):
    """The database holds another trail than the newest checkpoint, or a shorter one."""


class BadCheckpoint(ValueError):
    """A line is no checkpoint, or not signed by its key."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    seal: int
    last_id: int
    chain: str
    at: str
    key: str
    signature: str

    def is_signed(self) -> bool:
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            key.verify(bytes.fromhex(self.signature), _told(self))
        except (InvalidSignature, ValueError):
            return False
        return True


def _told(checkpoint: Checkpoint) -> bytes:
    said = {name: value for name, value in asdict(checkpoint).items() if name != "signature"}
    return _PURPOSE + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def path() -> Path:
    return Path(settings.AUDIT_DIR) / "checkpoints.jsonl"


def older_path(newer: Path) -> Path:
    return newer.with_name(f"{newer.stem}.1{newer.suffix}")


def parse(line: bytes) -> Checkpoint:
    """Raises BadCheckpoint. That it is signed says nothing yet about by whom."""
    try:
        checkpoint = Checkpoint(**orjson.loads(line))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise BadCheckpoint("it is no checkpoint") from error
    wanted: dict[str, Any] = Checkpoint.__annotations__
    for name, value in asdict(checkpoint).items():
        if not isinstance(value, int if wanted[name] == "int" else str):
            raise BadCheckpoint("it is no checkpoint")
    if not checkpoint.is_signed():
        raise BadCheckpoint("its signature does not hold")
    return checkpoint


def lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file of checkpoints and of the older one beside it, oldest first. What
    a crash left unfinished at the end is no line."""
    for each in (older_path(file), file):
        if each.exists():
            with each.open("rb") as content:
                yield from (line for line in content if line.endswith(b"\n"))


def newest() -> Checkpoint | None:
    """The last one written here. Raises BadCheckpoint."""
    for each in (path(), older_path(path())):
        if not each.exists():
            continue
        with each.open("rb") as content:
            content.seek(max(0, each.stat().st_size - _TAIL_BYTES))
            whole = content.read().rpartition(b"\n")[0]
        if whole:
            return parse(whole.rpartition(b"\n")[2])
    return None


def trusted(file: Path, keys: Collection[str]) -> tuple[dict[int, Checkpoint], list[str]]:
    """All of a file's checkpoints that one of `keys` signed, by seal; and what is wrong with the
    other lines."""
    found: dict[int, Checkpoint] = {}
    wrong = []
    for number, line in enumerate(lines(file), start=1):
        try:
            checkpoint = parse(line)
        except BadCheckpoint as error:
            wrong.append(f"Checkpoint {number} of {file.name}: {error}.")
            continue
        if checkpoint.key not in keys:
            wrong.append(
                f"Checkpoint {number} of {file.name}, of seal {checkpoint.seal}, is signed by"
                f" {checkpoint.key}, which is no key that is trusted here."
            )
        elif found.setdefault(checkpoint.seal, checkpoint).chain != checkpoint.chain:
            wrong.append(
                f"Checkpoint {number} of {file.name} contradicts an earlier one of seal"
                f" {checkpoint.seal}."
            )
    return found, wrong


def is_behind() -> bool:
    """Whether the newest seal has no checkpoint here yet, or what is here cannot be read."""
    head = chaining.head()
    if head is None:
        return False
    try:
        found = newest()
    except BadCheckpoint:
        return True
    return found is None or (found.seal, found.chain) != (head.seal, head.chain.hex())


def write() -> Checkpoint | None:
    """Write the newest seal down unless it is; None then, and while there is no seal.

    Raises CheckpointConflict rather than write what would hide that the trail was cut or replaced;
    BadCheckpoint; OSError.
    """
    head = chaining.head()
    if head is None:
        return None
    before = newest()
    if before is not None:
        check_agreement(before, head)
        if before.seal == head.seal:
            return None
    key = signing.signing_key()
    unsigned = Checkpoint(
        seal=head.seal,
        last_id=head.last_id,
        chain=head.chain.hex(),
        at=moment(timezone.now()),
        key=signing.public_text(key),
        signature="",
    )
    checkpoint = replace(unsigned, signature=key.sign(_told(unsigned)).hex())
    _append(path(), orjson.dumps(asdict(checkpoint)) + b"\n")
    return checkpoint


def check_agreement(checkpoint: Checkpoint, head: chaining.Head) -> None:
    """Raises CheckpointConflict."""
    if checkpoint.seal > head.seal:
        raise CheckpointConflict(
            f"The trail ends at seal {head.seal}; seal {checkpoint.seal} was written down at"
            f" {checkpoint.at}. It was cut, or an older database was restored. See"
            " docs/explanation/audit.md."
        )
    stored = AuditSeal.objects.filter(id=checkpoint.seal).values_list("chain", flat=True).first()
    if stored is not None and bytes(stored).hex() != checkpoint.chain:
        raise CheckpointConflict(
            f"Seal {checkpoint.seal} is not the one that was written down at {checkpoint.at}. See"
            " docs/explanation/audit.md."
        )


def _append(file: Path, line: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > _MAX_BYTES:
        file.replace(older_path(file))
    is_new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = _end_of_lines(descriptor)
        os.truncate(descriptor, end)  # what a crash left unfinished
        if os.pwrite(descriptor, line, end) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        signing.sync_directory(file.parent)


def _end_of_lines(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, _TAIL_BYTES, start)
    return start + tail.rfind(b"\n") + 1
