"""Typed reading of the environment and of `.env`, with every mistake reported at once.

`settings.py` is the only caller. A value is looked up in the process environment first and in
`.env` second; in either place `NAME_FILE` may name a file that holds the value of `NAME`.
Nothing here decides what a setting means.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T", str, int, float)

_ASSIGNMENT = re.compile(r"\A(?:export )?([A-Za-z_][A-Za-z_0-9]*)=.*\Z")
_EXAMPLE_WORDS = ("change", "example", "insecure", "password", "placeholder", "your-", "xxxx")
GENERATE = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
_MIN_DISTINCT_CHARACTERS = 10


class Environment:
    """Reads settings by name and collects what is wrong with them.

    Readers never raise: a bad value is noted and the default stands in, so that one start shows
    every mistake. `finish()` raises `ImproperlyConfigured` with the whole list.
    """

    def __init__(self, process: Mapping[str, str], dotenv: Path) -> None:
        self.problems: list[str] = []
        self._known: set[str] = set()
        self._dotenv_path = dotenv
        self._process = process
        self._dotenv = self._read_dotenv(dotenv)

    def _read_dotenv(self, path: Path) -> dict[str, str]:
        if not path.is_file():
            return {}
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path}: cannot be read: {error}")
            return {}
        assignments: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _ASSIGNMENT.match(line)
            if match is None:
                self.problems.append(f"{path}, line {number}: expected NAME=value")
            elif match[1] in assignments:
                self.problems.append(f"{path}, line {number}: {match[1]} is set twice")
            else:
                assignments[match[1]] = line

        class DotEnv(environ.Env):  # type: ignore[misc]
            ENVIRON: dict[str, str] = {}

        # Only what is an assignment: django-environ logs every other line, secrets and all.
        DotEnv.read_env(io.StringIO("\n".join(assignments.values())))
        return DotEnv.ENVIRON

    def _raw(self, name: str) -> str | None:
        self._known |= {name, f"{name}_FILE"}
        for source in (self._process, self._dotenv):
            if source.get(f"{name}_FILE"):
                path = Path(source[f"{name}_FILE"])
                try:
                    return path.read_text(encoding="utf-8").strip()
                except (OSError, ValueError) as error:  # ValueError: no UTF-8, or NUL in the path
                    self.problems.append(f"{name}_FILE: cannot read {path}: {error}")
                    return None
            if name in source:
                return source[name].strip()
        return None

    def _parsed(
        self,
        name: str,
        default: T,
        parse: Callable[[str], T],
        expected: str,
        *,
        is_shown: bool = True,
    ) -> T:
        raw = self._raw(name)
        if raw is None or raw == "":
            return default
        try:
            return parse(raw)
        except ValueError:
            got = f", got {raw!r}" if is_shown else ""
            self.problems.append(f"{name}: expected {expected}{got}")
            return default

    def text(self, name: str, default: str = "") -> str:
        return self._parsed(name, default, str, "text")

    def integer(self, name: str, default: int, *, at_least: int, at_most: int) -> int:
        return self._parsed(
            name,
            default,
            lambda raw: _bounded(int(_plain(raw)), at_least, at_most),
            f"a whole number from {at_least} to {at_most}",
        )

    def number(self, name: str, default: float, *, at_least: float, at_most: float) -> float:
        return self._parsed(
            name,
            default,
            lambda raw: _bounded(float(_plain(raw)), at_least, at_most),
            f"a number from {at_least} to {at_most}",
        )

    def flag(self, name: str, *, default: bool) -> bool:
        words = {"true": 1, "1": 1, "yes": 1, "on": 1, "false": 0, "0": 0, "no": 0, "off": 0}

        def parse(raw: str) -> int:
            if raw.lower() not in words:
                raise ValueError
            return words[raw.lower()]

        return bool(self._parsed(name, int(default), parse, "true or false"))

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        def parse(raw: str) -> str:
            if raw not in choices:
                raise ValueError
            return raw

        return self._parsed(name, default, parse, "one of " + ", ".join(choices))

    def matching(self, name: str, default: str, pattern: str, expected: str) -> str:
        def parse(raw: str) -> str:
            if re.fullmatch(pattern, raw) is None:
                raise ValueError
            return raw

        return self._parsed(name, default, parse, expected)

    def url(self, name: str, default: str, pattern: str, expected: str) -> str:
        """A URL that matches `pattern`. A bad one is not repeated: it may hold a password."""

        def parse(raw: str) -> str:
            if re.fullmatch(pattern, raw) is None:
                raise ValueError
            _ = urlsplit(raw).port  # raises ValueError, for a bad IPv6 address too
            return raw

        return self._parsed(name, default, parse, expected, is_shown=False)

    def address(self, name: str, default: str) -> str:
        """An IP address, or `localhost`."""

        def parse(raw: str) -> str:
            return raw if raw == "localhost" else str(ip_address(raw))

        return self._parsed(name, default, parse, "an IP address")

    def words(self, name: str, default: tuple[str, ...] = ()) -> list[str]:
        """A comma-separated list, blanks dropped."""
        raw = self._raw(name)
        if not raw:
            return list(default)
        return [word.strip() for word in raw.split(",") if word.strip()]

    def secret(self, name: str, *, min_length: int, stand_in: str | None) -> str:
        """A secret of at least `min_length` characters that is not an example.

        `stand_in` is used when none is given; None makes the secret required. A `min_length` of 0
        leaves the judgement to the caller. The value itself never appears in a message.
        """
        raw = self._raw(name)
        if not raw:
            if stand_in is None:
                self.problems.append(f"{name}: required (or {name}_FILE); it has no default")
            return stand_in or ""
        weakness = weakness_of_secret(raw, min_length=min_length) if min_length else ""
        if weakness and raw != stand_in:
            self.problems.append(f"{name}: {weakness}")
        return raw

    def file_of(self, name: str) -> Path | None:
        """The file that a command may write to change `name`: the one that `NAME_FILE` names, or
        `.env` when the value stands there. None when it comes from the process environment."""
        for source in (self._process, self._dotenv):
            if source.get(f"{name}_FILE"):
                return Path(source[f"{name}_FILE"])
            if name in source:
                return self._dotenv_path if source is self._dotenv else None
        return None

    def finish(self) -> None:
        """Raise `ImproperlyConfigured` naming every problem met so far, if there was any."""
        for name in sorted(set(self._dotenv) - self._known):
            self.problems.append(f"{self._dotenv_path}: unknown setting {name}")
        if self.problems:
            raise ImproperlyConfigured("".join(f"\n  - {problem}" for problem in self.problems))


def weakness_of_secret(value: str, *, min_length: int) -> str:
    """Why `value` must not guard anything, or an empty string."""
    if len(value) < min_length:
        return f"too short: {min_length} characters at least"
    if len(set(value)) < _MIN_DISTINCT_CHARACTERS:
        return "too uniform: it looks typed, not generated"
    if any(word in value.lower() for word in _EXAMPLE_WORDS):
        return f"it looks like an example; make a real one: {GENERATE}"
    return ""


N = TypeVar("N", int, float)


def _plain(raw: str) -> str:
    # Python reads 1_000 and Arabic digits as numbers; whoever wrote one meant something else.
    if "_" in raw or not raw.isascii():
        raise ValueError
    return raw


def _bounded(value: N, at_least: N, at_most: N) -> N:
    # `not <=` rather than `<` so that nan is refused too.
    if not at_least <= value <= at_most:
        raise ValueError
    return value
