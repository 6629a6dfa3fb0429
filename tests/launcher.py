"""One run of the launcher behind `make run`, with its own `.env`, data directory and terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.curl import with_curl
from tests.platform import free_port
from tests.test_env_example import documented

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0


@dataclass
class Launcher:
    """One run of the launcher in `folder`, which holds its `.env`, its data and its terminal."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        with (self.folder / "terminal").open("wb") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.run"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PORT']}"

    @property
    def terminal(self) -> str:
        return (self.folder / "terminal").read_text(encoding="utf-8")

    def printed(self, name: str) -> str | None:
        found = re.search(rf"^  {re.escape(name)} +(\S+)$", self.terminal, flags=re.MULTILINE)
        return found[1] if found else None

    def wait_until_told(self, text: str, timeout_s: float) -> None:
        wait_until(
            lambda: text in self.terminal or self.process.poll() is not None, timeout_s, self
        )
        assert text in self.terminal, self.terminal

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def program(self, word: str) -> psutil.Process:
        """The process that supervisord started for the program with `word` in its command."""
        (supervisord,) = psutil.Process(self.process.pid).children()
        (found,) = [child for child in supervisord.children() if word in child.cmdline()]
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def clean_up(self) -> None:
        """Whatever the test did, nothing of it goes on."""
        if self.process.poll() is not None:
            return
        started = self.descendants()
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def wait_until(holds: Callable[[], bool], timeout_s: float, what: object) -> None:
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, what
        time.sleep(0.05)


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def clean_environment(folder: Path, **own: str) -> dict[str, str]:
    """The machine's, without the settings of this test suite."""
    ours = {name for name, _ in documented()} | {"DJANGO_SETTINGS_MODULE"}
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "ENV_FILE": str(folder / ".env"),
        "DATA_DIR": str(folder / "data"),
        "PORT": str(free_port()),
        # The machine that runs the tests may be full.
        "GOVERNOR_MEMORY_SURVIVE_PERCENT": "100",
        "GOVERNOR_DISK_SURVIVE_PERCENT": "100",
        **own,
    }


@contextlib.contextmanager
def launched(folder: Path, **own: str) -> Iterator[Launcher]:
    launcher = Launcher(folder, clean_environment(folder, **own))
    try:
        yield launcher
    finally:
        launcher.clean_up()


def paste(commands: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what the terminal showed in a shell that knows nothing else."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/sh"],
        input="\n".join(commands),
        env={"PATH": with_curl(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
