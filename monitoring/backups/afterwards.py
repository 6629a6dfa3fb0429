"""What must happen in a restored database before anybody uses it: a registry that apps fill in
`AppConfig.ready()`.

A backup brings back what was revoked since it was made. What can be undone by itself is registered
with `register`; deeds that somebody must look at are named with `mind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_steps: dict[str, Callable[[], int]] = {}
_deeds: dict[str, str] = {}


def register(what: str, run: Callable[[], int]) -> None:
    """`run` is called with the restored database as the default one; it returns how many things it
    dealt with, and `what` says which, in the plural."""
    _steps[what] = run


def steps() -> dict[str, Callable[[], int]]:
    return dict(_steps)


def mind(deeds: Mapping[str, str]) -> None:
    """Actions of the audit trail, and what to do about each that a restore undid."""
    _deeds.update(deeds)


def to_mind() -> dict[str, str]:
    return dict(_deeds)
