"""The collector's configuration, as far as it can be checked without the collector."""

from __future__ import annotations

import ast
import re
from datetime import datetime
from pathlib import Path

import pytest
import structlog

from tests.log_capture import LogCapture

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = (ROOT / "deploy/loki/config.alloy").read_text()
CODE = re.sub(r"^\s*//.*$", "", CONFIGURATION, flags=re.MULTILINE)


def blocks(name: str) -> list[str]:
    """The bodies of blocks that hold no other block."""
    return re.findall(rf"{re.escape(name)} \{{\n(.*?)\n  \}}", CODE, flags=re.DOTALL)


def mapped(body: str, name: str) -> dict[str, str]:
    (inside,) = re.findall(rf"{name}\s*= \{{(.*?)\}}", body, flags=re.DOTALL)
    return dict(re.findall(r'(\w+)\s*= "([^"]*)"', inside))


def test_its_blocks_close_and_what_is_forwarded_to_exists() -> None:
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', CODE)
    for opening, closing in ("{}", "[]", "()"):
        assert bare.count(opening) == bare.count(closing)
    made = {".".join(block) for block in re.findall(r'^([\w.]+) "(\w+)" \{', CODE, re.MULTILINE)}
    used = set(re.findall(r"((?:loki|local)\.[\w.]+)\.(?:receiver|targets)", CODE))
    assert used
    assert used <= made
    assert {each for each in made if not each.startswith("loki.source.")} == used


def test_labels_are_the_bounded_fields_and_nothing_else() -> None:
    (labels,) = blocks("stage.labels")
    assert mapped(labels, "values") == {"level": "", "logger": "", "event": "name"}
    (static,) = blocks("stage.static_labels")
    assert mapped(static, "values").keys() == {"level", "logger"}
    (metadata,) = blocks("stage.structured_metadata")
    assert mapped(metadata, "values") == {"request_id": ""}
    assert [re.findall(r'"(\w+)"', body) for body in blocks("stage.label_drop")] == [
        ["filename"],
        ["filename"],
    ]


def test_what_it_takes_out_is_in_our_lines(logs: LogCapture) -> None:
    (fields,) = blocks("stage.json")
    with structlog.contextvars.bound_contextvars(request_id="r"):
        structlog.get_logger("tests").info("tested")
    (event,) = logs.events()
    assert mapped(fields, "expressions").keys() <= event.keys()
    (moment,) = blocks("stage.timestamp")
    assert dict(re.findall(r'(\w+)\s*= "([^"]*)"', moment)) == {
        "source": "timestamp",
        "format": "RFC3339Nano",
    }
    rfc3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"
    assert re.fullmatch(rfc3339, event["timestamp"])
    assert datetime.fromisoformat(event["timestamp"])


def names_logged() -> set[str]:
    """What our own code calls the events that it logs."""
    found = set()
    for package in ("accounts", "consciousness", "monitoring", "sovereigncore"):
        for path in (ROOT / package).rglob("*.py"):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log" | "access_log")),
                        args=[ast.Constant(value=str(name)), *_],
                    ):
                        found.add(name)
    return found


def test_our_events_have_names_that_become_labels_and_sentences_do_not() -> None:
    (body,) = blocks("stage.regex")
    (expression,) = re.findall(r'expression = "(.*)"', body)
    names = names_logged()
    assert {"request", "mail_failed", "job_finished", "unhandled_error"} <= names
    assert [name for name in names if not re.search(expression, name)] == []
    for sentence in ("Booting worker with pid: 7", "Invalid request: ParseException", "", "x\ny"):
        assert not re.search(expression, sentence)
