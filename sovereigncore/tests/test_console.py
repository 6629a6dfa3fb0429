"""The console's files: where they are, how long they are kept, and what they never do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from sovereigncore import console

BROWSER = {"Accept": "text/html"}
SCRIPTS = sorted(console.FILES.glob("*.js"))
# What makes code or markup out of text, or gives what anybody wrote to a browser as an address.
FORBIDDEN = (
    *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc"),
    *(
        "createContextualFragment",
        "setHTML",
        "eval(",
        "new Function",
        "javascript:",
        "postMessage(",
    ),
    *("http:", "https:", "//cdn", "importScripts", "document.cookie"),
)


def addresses_in(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(/static/[^"]+)"', page)


@pytest.fixture
def changed_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be the console's, and nothing known of the one before."""
    monkeypatch.setattr(console, "FILES", tmp_path)
    console.address.cache_clear()
    console.modules.cache_clear()
    yield tmp_path
    console.address.cache_clear()
    console.modules.cache_clear()


def test_the_page_names_files_that_may_be_kept_for_good() -> None:
    client = Client(headers=BROWSER)
    page = client.get("/")
    assert page["Cache-Control"] == "no-cache"
    addresses = addresses_in(page.content.decode())
    assert len(addresses) == len(SCRIPTS) + 3  # and main.js to run, a style sheet and an icon
    for address in set(addresses):
        file = client.get(address)
        assert file.status_code == 200, address
        assert file["Cache-Control"] == "max-age=315360000, public, immutable"
        b"".join(file)


def test_other_files_are_kept_for_an_hour() -> None:
    file = Client().get("/static/sovereigncore/site.css")
    assert file["Cache-Control"] == "max-age=3600, public"
    b"".join(file)


def test_a_changed_file_is_another_address(changed_release: Path) -> None:
    (changed_release / "main.js").write_text("one")
    first = console.address()
    (changed_release / "main.js").write_text("two")
    assert console.address() == first  # a release is a restart
    console.address.cache_clear()
    second = console.address()
    (changed_release / "main.js").rename(changed_release / "other.js")
    console.address.cache_clear()
    assert len({first, second, console.address()}) == 3
    assert re.fullmatch(r"/static/console/[0-9a-f]{12}/", second)


def test_an_address_of_another_release_is_not_served() -> None:
    assert Client().get("/static/console/0123456789ab/main.js").status_code == 404


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_nothing_but_text_of_what_others_wrote(path: Path) -> None:
    code = re.sub(r"(^|\s)//.*$", "", path.read_text(), flags=re.MULTILINE)  # comments name links
    allowed = {"postMessage("} if path.name == "tabs.js" else set()
    assert [word for word in FORBIDDEN if word in code and word not in allowed] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_files_that_exist(path: Path) -> None:
    imported = re.findall(r'from "([^"]+)"', path.read_text())
    assert [name for name in imported if not (path.parent / name).is_file()] == []


def test_the_style_sheet_asks_for_nothing_else() -> None:
    style = (console.FILES / "console.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_templates_that_scripts_copy_are_on_the_page() -> None:
    page = Client(headers=BROWSER).get("/").content.decode()
    wanted = {
        name for path in SCRIPTS for name in re.findall(r'\bclone\("([^"]+)"\)', path.read_text())
    }
    assert wanted == set(re.findall(r'<template id="([^"]+)"', page))


def test_without_scripts_there_are_ways_on() -> None:
    page = Client(headers=BROWSER).get("/").content.decode()
    without = page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "The console needs JavaScript" in without
    for address in ("/register", "/password-reset", "/admin/"):
        assert f'href="{address}"' in without
