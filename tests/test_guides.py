"""The commands of the guides, as they stand there, against a running platform.

Of a page everything in blocks marked `sh` is run by one shell from top to bottom, and what is
marked `python` where it stands, as a program of its own. A block marked `text` is what the block
before it has to print, `…` standing for anything. Blocks marked `console` are not run here: they
install something, or start the platform.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.curl import with_curl, write_curl
from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine

pytestmark = [pytest.mark.xdist_group(__name__), pytest.mark.once]

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_ADDRESS = "http://127.0.0.1:8528"
_MARK = "=== end of block"
_KINDS = {"sh", "python", "text", "console"}
_PAGES = ("tutorial.md", "how-to/use-the-api.md")


@dataclass(frozen=True, kw_only=True)
class Block:
    kind: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    text = (_DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [
        Block(kind=match[1], text=match[2], line=text.count("\n", 0, match.start()) + 1)
        for match in found
    ]


def as_command(block: Block) -> str:
    if block.kind == "sh":
        return block.text
    return f'"{sys.executable}" - <<"END OF BLOCK"\n{block.text}END OF BLOCK\n'


def run(blocks: list[Block], platform: Platform, folder: Path, **own: str) -> list[str]:
    """What each of them prints."""
    script = "".join(f"{as_command(block)}\necho '{_MARK}'\n" for block in blocks)
    page = folder / "page.sh"
    page.write_text(script.replace(_ADDRESS, platform.url), encoding="utf-8")
    done = subprocess.run(
        ["/bin/sh", "-eu", str(page)],
        cwd=folder,
        env={"PATH": with_curl(folder), "NO_PROXY": "127.0.0.1", **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    *printed, rest = done.stdout.split(f"{_MARK}\n")
    assert rest == ""
    return printed


def fits(shown: str, printed: str) -> bool:
    pattern = ".*".join(map(re.escape, shown.strip().split("…")))
    return re.fullmatch(pattern, printed.replace("\r", "").strip(), flags=re.DOTALL) is not None


@pytest.fixture
def fresh_platform(tmp_path: Path) -> Iterator[Platform]:
    """Nobody is registered there, as after the first `make run`."""
    with StubEngine() as stub, running_platform(stub) as running:
        yield running


@pytest.mark.parametrize("is_without_curl", [False, True])
@pytest.mark.parametrize("page", _PAGES)
def test_every_command_does_what_the_page_shows(
    page: str, is_without_curl: bool, fresh_platform: Platform, tmp_path: Path
) -> None:
    if is_without_curl:
        write_curl(tmp_path)
    blocks = blocks_of(page)
    assert {block.kind for block in blocks} <= _KINDS
    run_here = [block for block in blocks if block.kind in ("sh", "python")]
    lines = (block.line for block in run_here)
    printed = dict(zip(lines, run(run_here, fresh_platform, tmp_path), strict=True))
    shown = [
        (before.line, block.text)
        for before, block in itertools.pairwise(blocks)
        if block.kind == "text" and before.line in printed
    ]
    assert len(shown) == sum(block.kind == "text" for block in blocks) > 0
    for line, text in shown:
        assert fits(text, printed[line]), f"{page}, line {line} prints:\n{printed[line]}"


def test_a_program_that_is_told_to_wait_gets_its_answers(tmp_path: Path) -> None:
    """The way of the page to come again after `Retry-After`: here is one request in two seconds."""
    (patient,) = [
        block
        for block in blocks_of("how-to/use-the-api.md")
        if block.kind == "python" and "Retry-After" in block.text
    ]
    with StubEngine() as stub, running_platform(stub, RATE_LIMIT_DEFAULT="1/2s") as platform:
        made = platform.manage("bootstrap").stdout
        form = {"username": "admin", "password": made.split()[-1]}
        with platform.client() as http:
            token = http.post("/api/v1/auth/token", data=form).json()["access_token"]
            (printed,) = run([patient], platform, tmp_path, API_KEY=token)
            metrics = http.get("/metrics").text
    assert printed.split() == ["Paris."] * 3
    assert len(stub.ledger) == 3
    refused = r'^sovereigncore_rate_limited_total\{limit="default"\} [1-9]'
    assert re.search(refused, metrics, flags=re.MULTILINE)
