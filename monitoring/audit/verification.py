"""Whether an audit trail is what was written: each row, each batch, their order and their end.

Reads batches wherever they come from and holds one row at a time. Knows nothing of the database or
of files; `sources` does.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from monitoring.audit import chaining
from monitoring.audit.checkpoints import Checkpoint
from monitoring.audit.digests import keyed
from monitoring.audit.tables import Row, Seal

_PROBLEMS_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`id` is a row's when `kind` is `row`, a seal's when it is `seal`, else 0."""

    kind: str
    id: int
    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(kw_only=True)
class Report:
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    unverified: int = 0  # of them all: nothing told whether they are what was written
    last_seal: int = 0
    last_id: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checkpoint: Checkpoint | None = None  # the newest that agrees

    @property
    def is_sound(self) -> bool:
        return self.problem_count == 0

    def add(self, kind: str, number: int, why: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(Problem(kind=kind, id=number, why=why))


class Verification:
    """Give it all batches in their order, then what is unsealed, then `finish()`.

    `with_key`: also what only AUDIT_KEY can tell. `checkpoints` by seal, of keys that are trusted.
    """

    def __init__(self, *, with_key: bool, checkpoints: Mapping[int, Checkpoint]) -> None:
        self.report = Report()
        self._with_key = with_key
        self._checkpoints = checkpoints
        self._chain: bytes | None = chaining.GENESIS  # None: unknown after a gap
        self._next_seal = 1
        self._digests_held = self._digests_failed = 0
        self._failed_until = 0  # the newest row while no digest has held
        self._sealed_since = 0  # rows under seals after the newest checkpoint that agrees

    @property
    def next_seal(self) -> int:
        return self._next_seal

    @property
    def chain(self) -> bytes | None:
        return self._chain

    def go_on_from(self, *, seal: int, chain: bytes, last_id: int = 0) -> None:
        """What is before this seal is taken as it is, or was looked at."""
        self._next_seal, self._chain = seal, chain
        self.report.last_seal = seal - 1
        self.report.last_id = max(self.report.last_id, last_id)

    def verify_batch(self, seal: Seal, rows: Iterable[Row]) -> None:
        if seal.id > self._next_seal:
            self._miss_seals(self._next_seal, seal.id - 1)
            self._chain = None
        kept_before = len(self.report.problems)
        is_genuine = self._verify_seal(seal)
        contents = chaining.Contents()
        bad_before = self.report.problem_count
        checked = self._own_digests(rows, contents)
        if is_genuine:
            self._compare(seal, checked)
            if contents.digest() != seal.contents and self.report.problem_count == bad_before:
                who = "by somebody who has AUDIT_KEY" if self._with_key else "or its digest was"
                self.report.add(
                    "row",
                    seal.first_id,
                    f"A row of seal {seal.id} was changed, {who}: one of {_listed(seal)}.",
                )
        else:
            for _ in checked:
                pass
        # Rows first, by id: they say most, and they were met while looking for others.
        found = self.report.problems[kept_before:]
        self.report.problems[kept_before:] = sorted(found, key=lambda each: (each.kind, each.id))
        self._chain, self._next_seal = seal.chain, seal.id + 1
        self.report.seals += 1
        self.report.sealed += seal.count
        speaks = self.report.checkpoint is not None and self.report.checkpoint.seal == seal.id
        self._sealed_since = 0 if speaks else self._sealed_since + seal.count
        self.report.last_seal = seal.id
        self.report.last_id = max(self.report.last_id, seal.last_id)

    def verify_unsealed(self, rows: Iterable[Row]) -> None:
        for _ in self._own_digests(rows, chaining.Contents()):
            self.report.unsealed += 1

    def finish(self, *, is_part: bool = False) -> Report:
        """What is missing at the end, and what can be said about all of it.

        `is_part`: a file of some time, which says nothing of later ones.
        """
        newest = max(self._checkpoints.values(), key=lambda each: each.seal, default=None)
        is_behind = newest is not None and newest.seal > self.report.last_seal
        if newest is not None and is_behind and is_part:
            self.report.notes.append(
                f"What came after seal {self.report.last_seal} is not in this file: seal"
                f" {newest.seal} with row {newest.last_id} was written down at {newest.at}."
            )
        elif newest is not None and is_behind:
            self.report.add(
                "trail",
                0,
                f"The trail was cut off after row {self.report.last_id}: it ends with seal"
                f" {self.report.last_seal}, and seal {newest.seal} with row {newest.last_id} was"
                f" written down at {newest.at}. Or an older database was restored.",
            )
        if not self._with_key:
            self._tell_unverified()
        if self._digests_failed and not self._digests_held:
            self.report.notes.append(
                "No digest holds at all: is AUDIT_KEY the one that this trail was made with?"
            )
        elif self._failed_until:
            self.report.notes.append(
                f"No digest up to row {self._failed_until} holds, and later ones do: was AUDIT_KEY"
                " another one until then?"
            )
        return self.report

    def _tell_unverified(self) -> None:
        """Without AUDIT_KEY checkpoints alone tell, and only of what is sealed: anybody can make a
        chain that agrees with itself."""
        if self._sealed_since:
            newest = self.report.checkpoint
            after = f" after seal {newest.seal}" if newest else ""
            self.report.add(
                "trail",
                0,
                f"{self._sealed_since:,} sealed rows{after} were not verified: no checkpoint speaks"
                " for them, and AUDIT_KEY was not used.",
            )
        if self.report.unsealed:
            self.report.add(
                "trail",
                0,
                f"{self.report.unsealed:,} rows without a seal were not verified: that needs"
                " AUDIT_KEY.",
            )
        self.report.unverified = self._sealed_since + self.report.unsealed

    def _verify_seal(self, seal: Seal) -> bool:
        """Whether it says what it was made with; so, that its list of rows can be relied on."""
        is_whole = bool(seal.ids) and (seal.first_id, seal.last_id, seal.count) == (
            seal.ids[0][0],
            seal.ids[-1][1],
            sum(last - first + 1 for first, last in seal.ids),
        )
        expected = seal.chain
        if self._chain is not None:
            expected = chaining.chain_of(
                self._chain,
                seal=seal.id,
                ids=seal.ids,
                sealed_at=seal.sealed_at,
                contents=seal.contents,
            )
        if self._with_key:
            is_keyed = hmac.compare_digest(chaining.digest_of(seal.chain), seal.digest)
            self._count_digest(holds=is_keyed)
        else:
            is_keyed = True
        is_genuine = is_whole and is_keyed and expected == seal.chain
        if not is_genuine:
            self.report.add("seal", seal.id, f"Seal {seal.id} was changed, or one before it.")
        checkpoint = self._checkpoints.get(seal.id)
        if checkpoint is not None and checkpoint.chain == seal.chain.hex():
            self.report.checkpoint = checkpoint
        elif checkpoint is not None:
            is_genuine = False
            self.report.add(
                "seal",
                seal.id,
                f"Seal {seal.id} is not the one that was written down at {checkpoint.at}: the trail"
                " was written anew up to here.",
            )
        return is_genuine

    def _miss_seals(self, first: int, last: int) -> None:
        which = f"Seal {first} is" if first == last else f"Seals {first} to {last} are"
        after = self.report.last_id
        self.report.add("seal", first, f"{which} missing, with what came after row {after}.")

    def _own_digests(self, rows: Iterable[Row], contents: chaining.Contents) -> Iterator[int]:
        """The ids of the rows, each looked at by itself as it passes."""
        for row in rows:
            contents.add(row.text, row.digest)
            if not row.text:
                self.report.add("row", row.id, f"Row {row.id} was changed: it cannot be read.")
            elif self._with_key:
                holds = hmac.compare_digest(keyed(row.text), row.digest)
                self._count_digest(holds=holds)
                if not self._digests_held:
                    self._failed_until = row.id
                if not holds:
                    self.report.add(
                        "row", row.id, f"Row {row.id} was changed, or not written by the platform."
                    )
            yield row.id

    def _compare(self, seal: Seal, found: Iterator[int]) -> None:
        """Name each row that is in the list and not there, or there and not in the list."""
        wanted = (number for first, last in seal.ids for number in range(first, last + 1))
        want, have = next(wanted, None), next(found, None)
        while want is not None or have is not None:
            if want == have:
                want, have = next(wanted, None), next(found, None)
            elif have is None or (want is not None and want < have):
                self.report.add(
                    "row", want or 0, f"Row {want} is missing: seal {seal.id} lists it."
                )
                want = next(wanted, None)
            else:
                self.report.add(
                    "row", have, f"Row {have} was put into seal {seal.id}, which lists no such row."
                )
                have = next(found, None)

    def _count_digest(self, *, holds: bool) -> None:
        if holds:
            self._digests_held += 1
        else:
            self._digests_failed += 1


def _listed(seal: Seal) -> str:
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in seal.ids[:5])
