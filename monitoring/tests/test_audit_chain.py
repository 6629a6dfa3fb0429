"""The chain as arithmetic: whatever trail, and whatever is done to it, it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
from hypothesis import strategies

from monitoring.audit import chaining, digests, tables
from monitoring.audit.checkpoints import Checkpoint
from monitoring.audit.tables import Row, Seal
from monitoring.audit.verification import Report, Verification

AT = "2026-01-31T12:00:00.000000+00:00"
Trail = list[tuple[Seal, list[Row]]]


def row(number: int, seal: int) -> Row:
    text = digests.text_of(number, AT, "key.created", "", "", {}, "")
    return Row(number, text, digests.keyed(text), seal)


def trail_of(batches: list[list[int]]) -> Trail:
    trail, chain = [], chaining.GENESIS
    for number, ids in enumerate(batches, start=1):
        rows = [row(each, number) for each in sorted(ids)]
        contents = chaining.Contents()
        for each in rows:
            contents.add(each.text, each.digest)
        ranges = chaining.ranges_of(each.id for each in rows)
        said = {"ids": ranges, "sealed_at": AT, "contents": contents.digest()}
        chain = chaining.chain_of(chain, seal=number, **said)  # type: ignore[arg-type]
        seal = Seal(
            id=number,
            first_id=rows[0].id,
            last_id=rows[-1].id,
            count=len(rows),
            chain=chain,
            digest=chaining.digest_of(chain),
            **said,  # type: ignore[arg-type]
        )
        trail.append((seal, rows))
    return trail


def verified(trail: Trail, *, with_key: bool = True) -> Report:
    """By a checkpoint of its newest seal, without which nothing is proved without the key."""
    newest = max((seal for seal, _ in trail), key=lambda seal: seal.id)
    checkpoint = Checkpoint(
        seal=newest.id,
        last_id=newest.last_id,
        chain=newest.chain.hex(),
        at=AT,
        key="",
        signature="",
    )
    verification = Verification(with_key=with_key, checkpoints={newest.id: checkpoint})
    for seal, rows in trail:
        verification.verify_batch(seal, rows)
    return verification.finish()


@strategies.composite
def batches(draw: Callable[[strategies.SearchStrategy[int]], int]) -> list[list[int]]:
    """Ids with gaps, each under one of several seals, in any order."""
    ids = draw(strategies.sets(strategies.integers(1, 60), min_size=4, max_size=25))  # type: ignore[arg-type]
    count = draw(strategies.integers(2, 4))
    dealt: list[list[int]] = [[] for _ in range(count)]
    for index, number in enumerate(sorted(ids)):  # type: ignore[call-overload]
        where = index if index < count else draw(strategies.integers(0, count - 1))
        dealt[where].append(number)
    return dealt


@hypothesis.given(batches())
def test_any_trail_verifies_with_the_key_and_without(dealt: list[list[int]]) -> None:
    for with_key in (True, False):
        report = verified(trail_of(dealt), with_key=with_key)
        assert report.problems == []
        assert report.sealed == sum(map(len, dealt))


@hypothesis.given(batches(), strategies.data())
def test_whatever_is_done_to_a_row_shows_and_names_it(
    dealt: list[list[int]], data: strategies.DataObject
) -> None:
    trail = trail_of(dealt)
    seal, rows = data.draw(strategies.sampled_from(trail))
    index = data.draw(strategies.integers(0, len(rows) - 1))
    bad = rows[index]
    how = data.draw(strategies.sampled_from(["change", "sign", "delete", "insert", "repeat"]))
    if how == "change":
        rows[index] = replace(bad, text=bad.text.replace(b"created", b"revoked"))
    elif how == "sign":
        rows[index] = replace(bad, digest=bytes(32))
    elif how == "delete":
        del rows[index]
    elif how == "insert":
        bad = row(1000 + bad.id, seal.id)
        rows.append(bad)
    else:
        rows.insert(index, bad)
    report = verified(trail)
    assert (report.problems[0].kind, report.problems[0].id) == ("row", bad.id)
    assert report.problem_count == 1
    assert not verified(trail, with_key=False).is_sound


@hypothesis.given(batches(), strategies.data())
def test_whatever_is_done_to_a_seal_shows(
    dealt: list[list[int]], data: strategies.DataObject
) -> None:
    trail = trail_of(dealt)
    index = data.draw(strategies.integers(0, len(trail) - 1))
    seal, rows = trail[index]
    how = data.draw(strategies.sampled_from(["count", "ids", "sealed_at", "contents", "swap"]))
    if how == "swap":
        other = (index + 1) % len(trail)
        trail[index], trail[other] = trail[other], trail[index]
    else:
        changes: dict[str, Any] = {
            "count": seal.count + 1,
            "ids": [[seal.first_id, seal.last_id + 1]],
            "sealed_at": "2020-01-31T12:00:00.000000+00:00",
            "contents": bytes(32),
        }
        trail[index] = (replace(seal, **{how: changes[how]}), rows)
    assert not verified(trail).is_sound
    assert not verified(trail, with_key=False).is_sound


@hypothesis.given(strategies.sets(strategies.integers(1, 50)))
def test_ranges_say_which_ids(ids: set[int]) -> None:
    ranges = chaining.ranges_of(sorted(ids))
    assert {n for first, last in ranges for n in range(first, last + 1)} == ids
    assert tables.ranges_from(ranges) == ranges
