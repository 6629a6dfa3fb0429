"""How batches of the audit trail are tied together: arithmetic, and where the chain ends now.

A batch's *contents* is SHA-256 over its rows, by id; its *chain* is SHA-256 over the chain before
it, what the seal says and the contents; its *digest* is HMAC by AUDIT_KEY over the chain. The chain
needs no secret, so whoever has the rows and a signed checkpoint can compute it; the digest cannot
be made without one, so whoever can only write to the database cannot make a chain that holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from monitoring.audit.digests import keyed
from monitoring.models import AuditArchive, AuditSeal

GENESIS = bytes(32)
Ranges = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest seal. `last_id`: of the newest event in it; `chain` stands for all until then."""

    seal: int
    last_id: int
    chain: bytes


def head() -> Head | None:
    """Where the sealed trail ends, None before the first seal. Backups write it down, so that what
    is restored can be told from what was."""
    # The newest seal is never archived; but an empty table of seals must not look like a new trail.
    for found in (
        AuditSeal.objects.order_by("-id").values_list("id", "last_id", "chain").first(),
        AuditArchive.objects.order_by("-last_seal")
        .values_list("last_seal", "last_id", "chain")
        .first(),
    ):
        if found is not None:
            return Head(seal=found[0], last_id=found[1], chain=bytes(found[2]))
    return None


class Contents:
    """SHA-256 over rows as they come, in the order of their ids."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def add(self, text: bytes, digest: bytes) -> None:
        self._sum.update(hashlib.sha256(text).digest() + digest)

    def digest(self) -> bytes:
        return self._sum.digest()


def ranges_of(ids: Iterable[int]) -> Ranges:
    """`[[1, 3], [7, 7]]` of 1, 2, 3, 7."""
    ranges: Ranges = []
    for number in ids:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def chain_of(previous: bytes, *, seal: int, ids: Ranges, sealed_at: str, contents: bytes) -> bytes:
    said = orjson.dumps([seal, ids, sealed_at])
    return hashlib.sha256(previous + contents + said).digest()


def digest_of(chain: bytes) -> bytes:
    # No row's text begins so.
    return keyed(b"seal:" + chain)
