"""What a backup says of itself: at its start what it is, at its end what must come out of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from monitoring.backups.errors import DamagedBackup

PRODUCT = "sovereigncore"
ABOUT, MANIFEST = "about.json", "manifest.json"
FILES, KEYS = "files/", "keys/"

Migration = tuple[str, str]  # app and name


@dataclass(frozen=True, kw_only=True)
class Table:
    """The content of a table: `sha256` is over its rows in the order of their key."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class File:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AuditHead:
    """The newest row of the audit trail, and the newest seal: to compare with checkpoints that are
    kept elsewhere. Digests are in hexadecimal."""

    id: int
    digest: str
    seal: int | None
    chain: str | None


@dataclass(frozen=True, kw_only=True)
class About:
    """`layout` is what the kind of database needs to read its entries again. `key_prints` tells
    whether the secrets of the server are still those that the data was written with."""

    product: str
    version: str
    instance_id: str
    created_at: str  # ISO 8601, UTC
    vendor: str  # Django's word: sqlite or postgresql
    migrations: list[Migration]
    layout: dict[str, Any]
    key_prints: dict[str, str]
    has_keys: bool
    audit_head: AuditHead | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    tables: list[Table]
    files: list[File]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


def parse_about(told: Any) -> About:
    try:
        about = About(**told)
        head = AuditHead(**about.audit_head) if isinstance(about.audit_head, dict) else None
        pairs = [(str(app), str(name)) for app, name in about.migrations]
    except (TypeError, ValueError) as error:
        raise DamagedBackup("The backup does not describe itself as it should.") from error
    return dataclasses.replace(about, migrations=pairs, audit_head=head)


def parse_manifest(told: Any) -> Manifest:
    try:
        return Manifest(
            tables=[Table(**each) for each in told["tables"]],
            files=[File(**each) for each in told["files"]],
        )
    except (TypeError, KeyError) as error:
        raise DamagedBackup("The backup does not describe its content as it should.") from error


def differences(expected: list[Table], found: list[Table]) -> list[str]:
    """A sentence for each table that is not as it was; none when all are."""
    before = {table.name: table for table in expected}
    after = {table.name: table for table in found}
    told = [f"{name} is missing" for name in sorted(before.keys() - after.keys())]
    told += [f"{name} is there and should not be" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        if before[name].rows != after[name].rows:
            told.append(f"rows of {name}: {after[name].rows} instead of {before[name].rows}")
        elif before[name].sha256 != after[name].sha256:
            told.append(f"{name} has other content")
    return told
