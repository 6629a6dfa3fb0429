"""Web processes replaced one after the other, as an operator or systemd does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.chaos.grown import within
from tests.platform import Platform
from tests.rehearsal.topology import Topology

_WORKERS_WITHIN_S = 60.0  # a stream may take its time


def restart_each(parts: Topology, *, root: Path | None = None) -> None:
    """SIGTERM, wait for the end, start; with the code in `root` where one is given."""
    for web in parts.webs:
        assert web.stop() == 0
        if root is not None:
            web.root = root
        web.start_again()


def reload_each(parts: Topology) -> None:
    """SIGHUP, and wait until the workers are others."""
    for web in parts.webs:
        before = _workers(web)
        os.kill(web.pid, signal.SIGHUP)
        within(
            _WORKERS_WITHIN_S,
            lambda web=web, before=before: _are_others(web, before),  # type: ignore[misc]
            "other workers",
        )


def _workers(web: Platform) -> set[int]:
    return {child.pid for child in psutil.Process(web.pid).children()}


def _are_others(web: Platform, before: set[int]) -> bool:
    now = _workers(web)
    return bool(now) and now.isdisjoint(before)
