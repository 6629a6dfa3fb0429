"""`.env.example` documents exactly the settings that `settings.py` reads, with their defaults."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

from sovereigncore.environment import Environment

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
_ASSIGNMENT = re.compile(r"^#([A-Z][A-Z0-9_]*)=(.*)$", flags=re.MULTILINE)


def _settings_read() -> dict[str, ast.expr | None]:
    """Each NAME of `env.reader("NAME", default, …)` with its default's expression."""
    tree = ast.parse((ROOT / "sovereigncore" / "settings.py").read_text(encoding="utf-8"))
    found: dict[str, ast.expr | None] = {}
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
            and node.func.attr in vars(Environment)
            and node.args
        ):
            continue
        name = ast.literal_eval(node.args[0])  # a computed name would escape every check
        named = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
        default = next(iter([*node.args[1:2], *named]), None)
        found[name] = found.get(name) or default
    return found


def documented() -> list[tuple[str, str]]:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return _ASSIGNMENT.findall(text)


def test_every_setting_read_isdocumented_once_and_nothing_else_is() -> None:
    assert sorted(name for name, _ in documented()) == sorted(_settings_read())


def _literal_defaults() -> dict[str, str]:
    """What a default is where it is not computed; where it is, the text says how."""
    return {
        name: str(default.value).lower() if isinstance(default.value, bool) else str(default.value)
        for name, default in _settings_read().items()
        if isinstance(default, ast.Constant)
    }


@pytest.mark.parametrize(("name", "default"), sorted(_literal_defaults().items()))
def test_shown_default_is_the_real_one(name: str, default: str) -> None:
    assert dict(documented())[name] == default


def test_every_setting_has_a_line_that_says_what_it_means() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    undocumented = [
        line
        for before, line in itertools.pairwise(lines)
        if _ASSIGNMENT.match(line) and not before.startswith("# ")
    ]
    assert undocumented == []


def test_the_example_itself_sets_nothing() -> None:
    active = [
        line
        for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert active == []
