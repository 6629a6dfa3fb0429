"""`manage.py verify_audit`: every way of tampering is found, and the first bad row named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from monitoring.audit import (
    append_only,
    archiving,
    chaining,
    checkpoints,
    digests,
    signing,
    sources,
    tables,
)
from monitoring.audit.sealing import RowsDoNotHold, seal_audit
from monitoring.audit.tables import Row
from monitoring.audit.verification import Report, Verification
from monitoring.models import AuditEvent, AuditSeal
from monitoring.tests.trail import record, sealed

pytestmark = pytest.mark.django_db

EVENTS, SEALS = "monitoring_auditevent", "monitoring_auditseal"
OF_ROW = "at, action, actor_id, subject_id, detail, request_id, digest"
OF_SEAL = "first_id, last_id, count, ids, sealed_at, contents, chain, digest"
COPY = (
    f"INSERT INTO {EVENTS} (id, {OF_ROW}, seal_id)"
    f" SELECT {{new}}, {OF_ROW}, {{seal}} FROM {EVENTS} WHERE id = {{old}}"
)


@pytest.fixture
def ids() -> list[int]:
    """Twelve rows under three seals, and two that are not sealed."""
    found = sealed(4, 3, 5)
    return found + record(2)


def verify(*arguments: str) -> dict[str, Any]:
    """What it says as JSON, whether all is well or not."""
    out, failure = StringIO(), None
    try:
        call_command("verify_audit", "--json", *arguments, stdout=out)
    except CommandError as error:
        failure = error
    said: dict[str, Any] = json.loads(out.getvalue())
    assert said["sound"] is (failure is None) is (said["problem_count"] == 0)
    if failure is not None:
        assert failure.returncode == 1
        assert str(failure).endswith(said["problems"][0]["why"])
    return said


def verified(*arguments: str) -> dict[str, Any]:
    said = verify(*arguments)
    assert said["problems"] == []
    return said


def tamper(*statements: str) -> None:
    append_only.permit_changes(connection)
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement.replace("%", "%%"))


def first(said: dict[str, Any]) -> tuple[str, int]:
    problem = said["problems"][0]
    return problem["kind"], problem["id"]


# --- What is sound -----------------------------------------------------------------------------


def test_an_untouched_trail_is_sound(ids: list[int]) -> None:
    said = verified()
    assert (said["seals"], said["sealed"], said["unsealed"]) == (3, 12, 2)
    assert (said["last_seal"], said["last_id"]) == (3, ids[11])
    assert said["newest_checkpoint"]["seal"] == 3


def test_so_is_an_empty_one() -> None:
    assert verified()["sealed"] == 0


def test_so_is_one_that_is_not_sealed_at_all() -> None:
    record(3)
    assert verified()["unsealed"] == 3


def test_so_is_one_with_rows_that_were_rolled_back(ids: list[int]) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT nextval('monitoring_auditevent_id_seq')")
        else:
            cursor.execute("UPDATE sqlite_sequence SET seq = seq + 1")
    sealed_now = record(2)
    seal_audit()
    assert len(AuditSeal.objects.get(id=4).ids) == 2
    assert verified()["last_id"] == sealed_now[-1]


def test_it_tells_a_person_what_was_verified_and_what_it_cannot_tell(ids: list[int]) -> None:
    out = StringIO()
    call_command("verify_audit", stdout=out)
    text = out.getvalue()
    for part in (
        *("12 sealed rows under 3 seals", "2 rows have no seal yet", "verified by its own digest"),
        *("of seal 3", "What this cannot tell", "The audit trail is sound."),
    ):
        assert part in text


# --- Tampering ---------------------------------------------------------------------------------

# By name: statements, and the first bad one. `{n}` is the id of row n of fourteen; 0 to 3 are under
# the first seal, 4 to 6 under the second, 7 to 11 under the third, 12 and 13 under none.
TAMPERING: dict[str, tuple[list[str], tuple[str, int | str]]] = {
    **{
        f"changed {column}": (
            [f"UPDATE monitoring_auditevent SET {column} = {value} WHERE id = {{5}}"],
            ("row", 5),
        )
        for column, value in {
            "action": "'key.revoked'",
            "at": "'2020-01-01 00:00:00'",
            "actor_id": "NULL",
            "subject_id": "'somebody'",
            "detail": "'{{}}'",
            "request_id": "'another'",
        }.items()
    },
    "changed digest": (
        [
            (
                f"UPDATE {EVENTS} SET digest = (SELECT digest FROM {EVENTS} WHERE id = {{6}})"
                " WHERE id = {5}"
            )
        ],
        ("row", 5),
    ),
    "changed, two of them": (
        ["UPDATE monitoring_auditevent SET action = 'key.revoked' WHERE id IN ({9}, {3})"],
        ("row", 3),
    ),
    "changed, not sealed yet": (
        ["UPDATE monitoring_auditevent SET action = 'key.revoked' WHERE id = {13}"],
        ("row", 13),
    ),
    "deleted, the first": (["DELETE FROM monitoring_auditevent WHERE id = {0}"], ("row", 0)),
    "deleted, in the middle": (["DELETE FROM monitoring_auditevent WHERE id = {5}"], ("row", 5)),
    "deleted, the last of a seal": (
        ["DELETE FROM monitoring_auditevent WHERE id = {6}"],
        ("row", 6),
    ),
    "deleted, all of a seal": (
        ["DELETE FROM monitoring_auditevent WHERE seal_id = 2"],
        ("row", 4),
    ),
    "deleted with the next one changed": (
        [
            "DELETE FROM monitoring_auditevent WHERE id = {4}",
            "UPDATE monitoring_auditevent SET action = 'key.revoked' WHERE id = {5}",
        ],
        ("row", 4),
    ),
    "deleted with its seal": (
        [
            "DELETE FROM monitoring_auditevent WHERE seal_id = 2",
            "DELETE FROM monitoring_auditseal WHERE id = 2",
        ],
        ("seal", "2"),
    ),
    "deleted from the beginning, with the seal": (
        [
            "DELETE FROM monitoring_auditevent WHERE seal_id = 1",
            "DELETE FROM monitoring_auditseal WHERE id = 1",
        ],
        ("seal", "1"),
    ),
    "cut off at the end": (
        [
            "DELETE FROM monitoring_auditevent WHERE seal_id = 3 OR seal_id IS NULL",
            "DELETE FROM monitoring_auditseal WHERE id = 3",
        ],
        ("trail", "0"),
    ),
    "all deleted": (
        ["DELETE FROM monitoring_auditevent", "DELETE FROM monitoring_auditseal"],
        ("trail", "0"),
    ),
    "inserted, a copy under a seal": (
        [COPY.format(new="900", old="{5}", seal="2")],
        ("row", "900"),
    ),
    "inserted, a copy without a seal": (
        [COPY.format(new="900", old="{5}", seal="NULL")],
        ("row", "900"),
    ),
    "inserted in a gap": (
        [
            "DELETE FROM monitoring_auditevent WHERE id = {5}",
            COPY.format(new="{5}", old="{4}", seal="2"),
        ],
        ("row", 5),
    ),
    "reordered": (
        [
            "UPDATE monitoring_auditevent SET id = 900 WHERE id = {4}",
            "UPDATE monitoring_auditevent SET id = {4} WHERE id = {5}",
            "UPDATE monitoring_auditevent SET id = {5} WHERE id = 900",
        ],
        ("row", 4),
    ),
    "moved to another seal": (
        ["UPDATE monitoring_auditevent SET seal_id = 3 WHERE id = {5}"],
        ("row", 5),
    ),
    "moved out of its seal": (
        ["UPDATE monitoring_auditevent SET seal_id = NULL WHERE id = {5}"],
        ("row", 5),
    ),
    "seal changed": (
        ["UPDATE monitoring_auditseal SET sealed_at = '2020-01-01 00:00:00' WHERE id = 2"],
        ("seal", "2"),
    ),
    "seal's list changed": (
        ["UPDATE monitoring_auditseal SET ids = '[[1, 1]]' WHERE id = 2"],
        ("seal", "2"),
    ),
    "seal's list spoiled": (
        ["UPDATE monitoring_auditseal SET ids = '[1, {{}}]' WHERE id = 2"],
        ("seal", "2"),
    ),
    "seal's count changed": (
        ["UPDATE monitoring_auditseal SET count = 2 WHERE id = 2"],
        ("seal", "2"),
    ),
    "seals reordered": (
        [
            f"INSERT INTO {SEALS} (id, {OF_SEAL}) SELECT 900, {OF_SEAL} FROM {SEALS} WHERE id = 1",
            "UPDATE monitoring_auditevent SET seal_id = 900 WHERE seal_id = 1",
            "DELETE FROM monitoring_auditseal WHERE id = 1",
        ],
        ("seal", "1"),
    ),
}


@pytest.mark.parametrize("how", list(TAMPERING))
def test_tampering_is_found_and_the_first_bad_one_named(ids: list[int], how: str) -> None:
    statements, (kind, which) = TAMPERING[how]
    tamper(*(statement.format(*ids) for statement in statements))
    named = int(which) if isinstance(which, str) else ids[which]
    assert first(verify()) == (kind, named)


def test_a_row_that_cannot_be_read_is_named_and_nothing_breaks(ids: list[int]) -> None:
    """What stops the models stops neither sealing nor verifying."""
    tamper(
        f"UPDATE monitoring_auditevent SET at = 'infinity' WHERE id IN ({ids[5]}, {ids[12]})",
        "UPDATE monitoring_auditseal SET sealed_at = 'infinity' WHERE id = 3",
    )
    with pytest.raises(RowsDoNotHold, match=f"2 rows, the first is {ids[5]}"):
        seal_audit()
    said = verify()
    assert [(each["kind"], each["id"]) for each in said["problems"]] == [
        ("row", ids[5]),
        ("seal", 3),
        ("row", ids[12]),
    ]


def test_hashes_that_were_computed_anew_without_the_key_are_found(
    ids: list[int], settings: Settings
) -> None:
    """Somebody who knows this code, and has the database alone, writes the trail from a row on."""
    key = settings.AUDIT_KEY
    settings.AUDIT_KEY = "a-guess-0123456789-0123456789-0123456789"
    append_only.permit_changes(connection)
    AuditEvent.objects.filter(id=ids[5]).update(action="key.revoked")
    for event in AuditEvent.objects.filter(id__gte=ids[5]):
        AuditEvent.objects.filter(id=event.id).update(digest=digests.digest(event))
    AuditEvent.objects.filter(seal_id__gte=2).update(seal=None)
    AuditSeal.objects.filter(id__gte=2).delete()
    with pytest.raises(checkpoints.CheckpointConflict):
        seal_audit()
    settings.AUDIT_KEY = key
    assert first(verify()) == ("row", ids[5])
    assert first(verify("--without-checkpoints")) == ("row", ids[5])


def test_so_are_plain_hashes_that_were_computed_anew(ids: list[int]) -> None:
    """They need no key; what is keyed stays as it was."""
    append_only.permit_changes(connection)
    AuditEvent.objects.filter(id=ids[5]).delete()
    previous = bytes(AuditSeal.objects.get(id=1).chain)
    for seal in AuditSeal.objects.filter(id__gte=2).order_by("id"):
        rows = list(tables.sealed(first=seal.id, last=seal.id))
        contents = chaining.Contents()
        for row in rows:
            contents.add(row.text, row.digest)
        ranges = chaining.ranges_of(row.id for row in rows)
        previous = chaining.chain_of(
            previous,
            seal=seal.id,
            ids=ranges,
            sealed_at=digests.moment(seal.sealed_at),
            contents=contents.digest(),
        )
        AuditSeal.objects.filter(id=seal.id).update(
            ids=ranges, count=len(rows), contents=contents.digest(), chain=previous
        )
    assert first(verify("--without-checkpoints")) == ("seal", 2)


def test_a_trail_written_anew_by_who_has_the_key_fails_by_its_checkpoints(ids: list[int]) -> None:
    append_only.permit_changes(connection)
    AuditEvent.objects.filter(id=ids[5]).delete()
    AuditEvent.objects.filter(seal_id__gte=2).update(seal=None)
    AuditSeal.objects.filter(id__gte=2).delete()
    with pytest.raises(checkpoints.CheckpointConflict, match=r"Seal 2|ends at seal 2"):
        seal_audit()
    assert verified("--without-checkpoints")["sealed"] == 13
    assert first(verify())[0] in {"seal", "trail"}


def test_the_wrong_key_is_not_taken_for_tampering_with_one_row(
    ids: list[int], settings: Settings
) -> None:
    settings.AUDIT_KEY = "another-key-0123456789-0123456789-0123"
    said = verify()
    assert any("is AUDIT_KEY the one" in note for note in said["notes"])


def test_a_key_that_was_changed_is_told_with_the_row(ids: list[int], settings: Settings) -> None:
    seal_audit()
    settings.AUDIT_KEY = "another-key-0123456789-0123456789-0123"
    record(2)
    with pytest.raises(RowsDoNotHold):
        seal_audit()
    (note,) = [note for note in verify()["notes"] if "AUDIT_KEY" in note]
    assert note.startswith(f"No digest up to row {ids[13]} holds, and later ones do")


def test_a_first_row_that_was_changed_is_not_taken_for_another_key(ids: list[int]) -> None:
    tamper(f"UPDATE {EVENTS} SET action = 'key.revoked' WHERE id = {ids[0]}")
    assert not any("AUDIT_KEY" in note for note in verify()["notes"])


def test_no_more_problems_are_told_than_anybody_reads(ids: list[int]) -> None:
    seal_audit()
    more = sealed(150)
    tamper(f"UPDATE monitoring_auditevent SET action = 'x' WHERE id >= {more[0]}")
    said = verify()
    assert (said["problem_count"], len(said["problems"])) == (150, 100)


# --- Checkpoints -------------------------------------------------------------------------------


def test_without_checkpoints_a_trail_is_not_called_sound(ids: list[int]) -> None:
    checkpoints.path().unlink()
    assert first(verify()) == ("checkpoint", 0)
    assert verified("--without-checkpoints")["newest_checkpoint"] is None


@pytest.mark.parametrize("kept", [0, 50], ids=["empty", "a torn line"])
@pytest.mark.parametrize("is_named", [False, True], ids=["its own place", "named"])
def test_a_file_without_a_checkpoint_is_as_good_as_none(
    ids: list[int], kept: int, is_named: bool
) -> None:
    file = checkpoints.path()
    file.write_bytes(file.read_bytes()[:kept])
    said = verify(*(["--checkpoints", str(file)] if is_named else []))
    assert first(said) == ("checkpoint", 0)
    assert said["problems"][0]["why"].startswith("There are no checkpoints at ")
    assert verified("--without-checkpoints")["sealed"] == 12


def test_a_checkpoint_that_was_changed_is_found(ids: list[int]) -> None:
    file = checkpoints.path()
    file.write_text(re.sub(r'"seal":2', '"seal":1', file.read_text()))
    said = verify()
    assert first(said) == ("checkpoint", 0)
    assert "signature does not hold" in said["problems"][0]["why"]


def test_checkpoints_of_an_unknown_key_are_not_believed(ids: list[int], tmp_path: Path) -> None:
    own = signing.public_key()
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(checkpoints.path().read_bytes())
    (checkpoints.path().parent / "signing.key").unlink()
    other = signing.public_key()
    assert other != own
    said = verify("--checkpoints", str(copy))
    assert first(said) == ("checkpoint", 0)
    assert own in said["problems"][0]["why"]
    assert verified("--checkpoints", str(copy), "--public-key", own)["checkpoints"] == 3
    both = ["--public-key", own, "--public-key", other]
    assert verified("--checkpoints", str(copy), *both)["checkpoints"] == 3


def test_a_copy_kept_elsewhere_finds_what_the_local_file_hides(
    ids: list[int], tmp_path: Path
) -> None:
    file = checkpoints.path()
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(file.read_bytes())
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    tamper(*(statement.format(*ids) for statement in TAMPERING["cut off at the end"][0]))
    assert verified()["sealed"] == 7
    said = verify("--checkpoints", str(copy))
    assert first(said) == ("trail", 0)
    assert f"after row {ids[6]}" in said["problems"][0]["why"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--checkpoints", "/nonexistent/file"],
        ["--checkpoints", __file__, "--without-checkpoints"],
        ["--public-key", "abc"],
        ["--public-key", "g" * 64],
    ],
)
def test_a_mistaken_call_is_one_line(ids: list[int], arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("verify_audit", *arguments, stdout=StringIO())


def test_triggers_that_are_not_there_are_noted(ids: list[int]) -> None:
    assert verified()["notes"] == []
    append_only.permit_changes(connection)
    (note,) = verified()["notes"]
    assert note.startswith("WARNING: triggers")
    assert all(name in note for name in ("audit_no_update", "auditseal_no_delete"))


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as raised:
        call_command("verify_audit", *arguments, stdout=StringIO())
    assert raised.value.returncode == 1
    return str(raised.value)


def test_checkpoints_that_cannot_be_read_are_one_line(ids: list[int], tmp_path: Path) -> None:
    why = refusal("--checkpoints", str(tmp_path))
    assert why == f"{tmp_path} cannot be read: Is a directory."
    checkpoints.path().unlink()
    checkpoints.path().mkdir()
    assert refusal() == f"{checkpoints.path()} cannot be read: Is a directory."


def test_so_is_a_signing_key_that_is_none(ids: list[int], audit_dir: Path) -> None:
    (audit_dir / "signing.key").write_text("none")
    assert "holds no key" in refusal()
    assert "holds no key" in refusal("--print-public-key")


@pytest.mark.parametrize("table", [EVENTS, SEALS, append_only.ARCHIVES])
def test_so_is_a_table_that_is_not_there(ids: list[int], table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    why = refusal()
    assert why.startswith("The trail cannot be read from the database: ")
    assert table in why
    assert "\n" not in why


def test_the_public_key_can_be_printed(audit_dir: Path) -> None:
    out = StringIO()
    call_command("verify_audit", "--print-public-key", stdout=out)
    assert out.getvalue().strip() == signing.public_key()
    assert (audit_dir / "signing.key").stat().st_mode & 0o777 == 0o600


def test_verifying_changes_nothing(ids: list[int], audit_dir: Path) -> None:
    def everything() -> list[Any]:
        files = {path: path.read_bytes() for path in audit_dir.iterdir()}
        return [
            files,
            *(list(model.objects.order_by("pk").values()) for model in (AuditEvent, AuditSeal)),
        ]

    before = everything()
    verified()
    assert everything() == before


# --- While it goes on ----------------------------------------------------------------------------


def test_rows_that_are_written_and_sealed_meanwhile_are_no_problem(ids: list[int]) -> None:
    report = _verified_while(lambda: (record(2), seal_audit()))
    assert report.problems == []
    assert (report.sealed, report.unsealed) == (12, 4)
    assert verified()["sealed"] == 16


def test_when_batches_are_archived_meanwhile_it_begins_anew(
    ids: list[int], settings: Settings
) -> None:
    settings.AUDIT_RETENTION_DAYS = 1

    def archive() -> None:
        with time_machine.travel(timezone.now() + timedelta(days=2), tick=True):
            assert archiving.archive_audit() == 7

    report = _verified_while(archive)
    assert report.problems == []
    assert (report.seals, report.sealed, report.unsealed) == (3, 12, 2)


def _verified_while(happens: Callable[[], object]) -> Report:
    """What is found while `happens` does so between two seals."""
    is_due = True

    def counted(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal is_due
        yield from rows
        if is_due:
            is_due = False
            happens()

    def begin() -> Verification:
        return Verification(with_key=True, checkpoints={})

    return sources.verify_database(begin, counted=counted)
