"""What the pages and the printed commands need of curl, for machines that have none.

`with_curl` gives a search path on which there is one; `main` is the program.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import httpx2

_PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.curl import main
main(sys.argv[1:])
"""
_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 60


def with_curl(folder: Path) -> str:
    """A PATH; in `folder` is a curl of ours if the machine has none."""
    if shutil.which("curl") is None:
        write_curl(folder)
    return f"{folder}:{os.environ['PATH']}"


def write_curl(folder: Path) -> None:
    program = folder / "curl"
    program.write_text(_PROGRAM.format(python=sys.executable, root=str(_ROOT)), encoding="utf-8")
    program.chmod(0o755)


def main(words: list[str]) -> None:
    given = _parsed(words)
    headers = dict(header.split(": ", 1) for header in given.headers)
    body = "&".join([*given.data, *(_encoded(pair) for pair in given.pairs)])
    if body:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    method = given.method or ("POST" if body else "GET")
    client = httpx2.Client(trust_env=False, timeout=_TIMEOUT_S)
    with client, client.stream(method, given.url, headers=headers, content=body or None) as reply:
        if given.include:
            print(f"{reply.http_version} {reply.status_code} {reply.reason_phrase}\r")
            print("".join(f"{name}: {value}\r\n" for name, value in reply.headers.items()))
        for piece in reply.iter_text():
            print(piece, end="", flush=True)
        print(given.write_out.replace("\\n", "\n"), end="")


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("url")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", action="append", default=[])
    parser.add_argument("--data-urlencode", dest="pairs", action="append", default=[])
    parser.add_argument("-X", dest="method")
    parser.add_argument("-w", dest="write_out", default="")
    parser.add_argument("-i", dest="include", action="store_true")
    for ignored in ("-s", "-N"):
        parser.add_argument(ignored, action="store_true")
    parser.add_argument("--noproxy")
    return parser.parse_args(words)


def _encoded(pair: str) -> str:
    name, _, value = pair.partition("=")
    return f"{name}={quote(value, safe='')}"
