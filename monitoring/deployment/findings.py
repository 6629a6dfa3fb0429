"""What one check found: a verdict, and one line that says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """`failed`: something does not work or is open that should not be, and the command ends with 1.
    `warning`: it works, and an operator should know all the same."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`why` is for people and never holds a secret: what servers say in their errors is left out,
    for some repeat passwords."""

    verdict: Verdict
    why: str


def ok(why: str) -> Finding:
    return Finding(verdict=Verdict.OK, why=why)


def warning(why: str) -> Finding:
    return Finding(verdict=Verdict.WARNING, why=why)


def failed(why: str) -> Finding:
    return Finding(verdict=Verdict.FAILED, why=why)


def not_checked(why: str) -> Finding:
    return Finding(verdict=Verdict.NOT_CHECKED, why=why)
