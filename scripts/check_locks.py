"""Checks that the pinned requirements are whole: each `.in` entry pinned, each pin hashed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PINNED = r"[a-z0-9.-]+(?:\[[a-z, -]+\])?=="  # the name, with its extras


def problems(source: Path) -> list[str]:
    locked = source.with_suffix(".txt").read_text()
    pinned = re.findall(rf"^{_PINNED}", locked, flags=re.MULTILINE)
    pins = {re.split(r"[\[=]", name)[0] for name in pinned}
    found = [
        f"{source.name}: {name} is not pinned; run make lock"
        for name in re.findall(r"^([a-z][a-z0-9-]*)", source.read_text(), flags=re.MULTILINE)
        if name not in pins
    ]
    blocks = re.split(rf"^(?={_PINNED})", locked, flags=re.MULTILINE)[1:]
    found += [
        f"{source.stem}.txt: {block.split()[0]} has no hash"
        for block in blocks
        if "--hash=sha256:" not in block
    ]
    if re.search(r"https?://|--index|--find-links", locked):
        found.append(f"{source.stem}.txt: names an index; pins must not")
    return found


def main() -> int:
    found = [text for source in sorted(ROOT.glob("requirements*.in")) for text in problems(source)]
    print("\n".join(found) or "pins are whole")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
