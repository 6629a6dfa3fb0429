"""`manage.py export_audit`: a file of the trail that can be verified anywhere, without a secret."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from pytest_django import Settings

from monitoring.audit import checkpoints, signing
from monitoring.audit.archiving import archive_audit
from monitoring.tests.test_audit_verification import first, verified, verify
from monitoring.tests.trail import record, sealed

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def ids() -> list[int]:
    """Three seals, an hour apart, and two rows another hour later that have none."""
    found = []
    for hours, count in enumerate((4, 3, 5)):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            found += sealed(count)
    with time_machine.travel(NOON + timedelta(hours=3), tick=False):
        return found + record(2)


def export(path: Path, *arguments: str) -> str:
    out = StringIO()
    call_command("export_audit", "--output", str(path), *arguments, stdout=out)
    return out.getvalue()


def exported(path: Path, *arguments: str) -> list[int]:
    """The ids in the file."""
    export(path, *arguments)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["id"] for line in lines if line["kind"] == "event"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], range(14)),
        (["--since", "2026-01-31T13:00:00Z"], range(4, 14)),
        (["--since", "2026-01-31T13:00:01Z"], range(7, 14)),
        (["--since", "2026-01-31T16:00:00+02:00"], range(7, 14)),
        (["--since", "2026-01-31T15:00:00"], range(12, 14)),
        (["--until", "2026-01-31T14:00:00Z"], range(7)),
        (["--since", "2026-01-31T13:00:00Z", "--until", "2026-01-31T13:00:01Z"], range(4, 7)),
        (["--since", "2026-01-31", "--until", "2026-02-01"], range(14)),
    ],
)
def test_what_is_in_it(ids: list[int], tmp_path: Path, arguments: list[str], found: range) -> None:
    assert exported(tmp_path / "trail.jsonl", *arguments) == [ids[index] for index in found]


@pytest.mark.parametrize("name", ["trail.jsonl", "trail.jsonl.gz"])
@pytest.mark.parametrize("since", ["2026-01-31", "2026-01-31T13:00:00Z"])
def test_it_verifies_elsewhere_without_a_secret(
    ids: list[int], tmp_path: Path, settings: Settings, name: str, since: str
) -> None:
    path, key = tmp_path / name, signing.public_key()
    export(path, "--since", since)
    assert verified("--file", str(path))["unsealed"] == 2
    settings.AUDIT_KEY = "elsewhere-0123456789-0123456789-01234567"
    copy = tmp_path / "checkpoints.jsonl"
    copy.write_bytes(checkpoints.path().read_bytes())
    known = ["--file", str(path), "--checkpoints", str(copy), "--public-key", key]
    said = verify("--without-key", *known)
    assert said["newest_checkpoint"]["seal"] == 3
    assert [each["why"] for each in said["problems"]] == [
        "2 rows without a seal were not verified: that needs AUDIT_KEY."
    ]
    assert not verify(*known)["sound"]


def test_sealed_rows_alone_verify_without_a_secret(ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    export(path, "--until", "2026-01-31T14:30:00Z")
    said = verified("--file", str(path), "--without-key")
    assert (said["sealed"], said["unsealed"], said["unverified"]) == (12, 0, 0)


def test_what_came_after_it_is_told_and_no_fault(ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    export(path, "--since", "2026-01-31T13:00:00Z", "--until", "2026-01-31T13:30:00Z")
    line = json.loads(list(checkpoints.lines(checkpoints.path()))[-1])
    newest = f"seal 3 with row {ids[11]} was written down at {line['at']}"
    for arguments in ([], ["--without-key"]):
        said = verified("--file", str(path), *arguments)
        assert (said["seals"], said["unverified"]) == (1, 0)
        assert said["notes"] == [
            "What was before seal 2 is not in this file.",
            f"What came after seal 2 is not in this file: {newest}.",
        ]


def test_a_file_that_is_not_there_is_no_fault_of_the_trail(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^There is no file .*trail\.jsonl\.$"):
        call_command("verify_audit", "--file", str(tmp_path / "trail.jsonl"))


def test_rows_that_no_checkpoint_speaks_for_are_not_verified_without_a_secret(
    ids: list[int], tmp_path: Path
) -> None:
    path, copy = tmp_path / "trail.jsonl", tmp_path / "copy.jsonl"
    export(path, "--until", "2026-01-31T14:30:00Z")
    copy.write_bytes(b"".join(list(checkpoints.lines(checkpoints.path()))[:2]))
    known = ["--file", str(path), "--checkpoints", str(copy)]
    assert verified(*known)["unverified"] == 0
    said = verify("--without-key", *known)
    assert (said["unverified"], said["problem_count"]) == (5, 1)
    assert said["problems"][0]["why"].startswith("5 sealed rows after seal 2 were not verified")
    said = verify("--file", str(path), "--without-key", "--without-checkpoints")
    assert (said["unverified"], said["problem_count"]) == (12, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"detail":{"n":1}', '"detail":{"n":2}'),
        ('"action":"key.created"', '"action":"key.revoked"'),
        ('"seal":2', '"seal":4'),
    ],
)
def test_a_change_shows_without_a_secret(
    ids: list[int], tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "trail.jsonl"
    export(path)
    path.write_text(path.read_text().replace(old, new, 1))
    known = ["--checkpoints", str(checkpoints.path())]
    assert not verify("--file", str(path), "--without-key", *known)["sound"]


def test_a_file_that_was_made_up_anew_contradicts_the_checkpoints(
    ids: list[int], tmp_path: Path
) -> None:
    """Whoever changes rows can compute all that needs no secret."""
    path = tmp_path / "trail.jsonl"
    export(path, "--until", "2026-01-31T13:30:00Z")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "seal":
            line["chain"] = "00" * 32
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    said = verify("--file", str(path), "--without-key")
    assert first(said) == ("seal", 1)
    assert any("written down" in problem["why"] for problem in said["problems"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"detail":{"n":1}', '"detail":{"n":2,"n":1}'),
        ('"action":"key.created"', '"action":"key.revoked","action":"key.created"'),
        ('"action":"key.created"', '"note":"false","action":"key.created"'),
        ('"format":1', '"format":1,"of":"another platform"'),
        ('"sealed_at"', '"count":99,"sealed_at"'),
        ('"seals":3', '"seals":9,"seals":3'),
    ],
)
def test_what_another_reader_could_see_otherwise_is_no_line(
    ids: list[int], tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "trail.jsonl"
    export(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    said = verify("--file", str(path))
    assert first(said) == ("archive", 0)
    assert said["problems"][0]["why"].endswith(" is not as the platform writes it.")


@pytest.mark.parametrize("name", ["trail.jsonl", "trail.jsonl.gz"])
@pytest.mark.parametrize("more", ["its last row", "its end", "junk", "an empty line"])
def test_nothing_comes_after_the_end(ids: list[int], tmp_path: Path, name: str, more: str) -> None:
    path = tmp_path / name
    export(path)
    read, write = (gzip.decompress, gzip.compress) if path.suffix == ".gz" else (bytes, bytes)
    whole = read(path.read_bytes())
    lines = whole.splitlines(keepends=True)
    added = {"its last row": lines[-2], "its end": lines[-1], "junk": b"junk"}.get(more, b"\n")
    path.write_bytes(write(whole + added))
    assert first(verify("--file", str(path))) == ("archive", 0)


def test_a_file_that_is_there_is_left_alone(ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    path.write_text("somebody's")
    with pytest.raises(CommandError, match="there already"):
        export(path)
    assert path.read_text() == "somebody's"


def test_after_archiving_it_goes_on_where_the_archive_ends(
    ids: list[int], tmp_path: Path, settings: Settings
) -> None:
    settings.AUDIT_RETENTION_DAYS = 30
    with time_machine.travel(NOON + timedelta(days=30, hours=1, minutes=30), tick=True):
        assert archive_audit() == 7
    path = tmp_path / "trail.jsonl"
    assert exported(path) == ids[7:]
    assert verified("--file", str(path))["sealed"] == 5
    all_of_it = export(tmp_path / "all.jsonl")
    assert all_of_it.endswith(" 1 files in DATA_DIR/audit/archive hold older ones.\n")
    recent = export(tmp_path / "recent.jsonl", "--since", "2026-01-31T15:00:00Z")
    assert "archive" not in recent


def test_nothing_of_that_time_is_an_error_that_says_where_to_look(
    ids: list[int], tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(CommandError, match=r"no row of that time\.$"):
        export(tmp_path / "x", "--until", "2020-01-01")
    settings.AUDIT_RETENTION_DAYS = 30
    with time_machine.travel(NOON + timedelta(days=30, hours=1, minutes=30), tick=True):
        archive_audit()
    with pytest.raises(CommandError, match=r"1 files in DATA_DIR/audit/archive"):
        export(tmp_path / "x", "--until", "2026-01-31T13:30:00Z")
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match="write a day"):
        export(tmp_path / "x", "--since", text)


def test_a_place_that_cannot_be_written_is_one_line(ids: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"Not a directory|File exists"):
        export(tmp_path / "file" / "trail.jsonl")


def test_it_is_for_its_owner_only(ids: list[int], tmp_path: Path) -> None:
    said: Any = export(tmp_path / "trail.jsonl")
    assert (tmp_path / "trail.jsonl").stat().st_mode & 0o777 == 0o600
    assert said.startswith("14 rows under 3 seals in ")
