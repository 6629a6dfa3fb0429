"""The launcher's hold on supervisord and, through it, on web, engine and worker.

Whatever ends the launcher, the programs end too: supervisord is told to stop when it can be told,
gets a signal from the kernel when the launcher was killed, and when supervisord itself was killed
its programs are killed by their process groups. It knows nothing about Django.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATION = Path(__file__).resolve().parent.parent / "deploy" / "supervisord.conf"
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_OPEN_FILES = 8192  # a stream takes two, an idle connection one
_TAIL_BYTES = 64 * 1024
_KEPT_ERRORS = 200  # lines
_KILL_WAIT_S = 3.0

# The lines of supervisord's log that tell what became of a program.
_EVENT = re.compile(
    r" (?:(?P<spawned>spawned): '(?P<spawned_name>\w+)' with pid (?P<pid>\d+)"
    r"|(?P<running>success): (?P<running_name>\w+) "
    r"|(?P<ended>exited|stopped): (?P<ended_name>\w+) \((?P<how>.+?)(?:; (?:not )?expected)?\)$)"
)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Event:
    """`kind` is spawned, running or ended; `how` tells of an end what ended it."""

    program: str
    kind: str
    how: str = ""


class Programs:
    """supervisord and what it runs. Starting it again needs a new object."""

    def __init__(self, *, log_dir: Path, with_engine: bool, keep_open: int) -> None:
        """Start everything. `keep_open` is a file that supervisord holds open while it lives."""
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._offsets = {path: path.stat().st_size for path in log_dir.glob("*.log")}
        self._groups: dict[str, int] = {}
        self._errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        _allow_many_files()
        self._supervisord = subprocess.Popen(
            [
                *(sys.executable, "-m", "supervisor.supervisord", "-c", str(_CONFIGURATION)),
                # Naming the user is how root says that it means to run as root.
                *(("--user", "0") if os.geteuid() == 0 else ()),
            ],
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "SOVEREIGNCORE_PYTHON": sys.executable,
                "SOVEREIGNCORE_LOG_DIR": str(log_dir),
                "SOVEREIGNCORE_RUN_ENGINE": str(with_engine).lower(),
            },
            stdin=subprocess.DEVNULL,
            # Not a file: what supervisord cannot write to its log it writes here, and on a full
            # disk a second failure would be its end.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(keep_open,),
            start_new_session=True,  # Ctrl-C is for the launcher, which stops things in order
            preexec_fn=_end_with_launcher(),  # noqa: PLW1509 - only calls prctl
        )
        threading.Thread(target=self._read_errors, name="supervisord", daemon=True).start()

    def _read_errors(self) -> None:
        assert self._supervisord.stdout is not None
        for line in self._supervisord.stdout:
            self._errors.append(line.decode(errors="replace").rstrip("\n"))

    @property
    def is_alive(self) -> bool:
        """Whether supervisord runs; programs may come and go meanwhile."""
        return self._supervisord.poll() is None

    def events(self) -> Iterator[Event]:
        """What happened since the last call."""
        for line in self._new_lines(self._log_dir / "supervisord.log"):
            found = _EVENT.search(line)
            if found is None:
                continue
            kind = next(kind for kind in ("spawned", "running", "ended") if found[kind])
            program = found[f"{kind}_name"]
            if kind == "spawned":
                self._groups[program] = int(found["pid"])  # supervisord makes it a group of its own
            elif kind == "ended":
                self._groups.pop(program, None)
            yield Event(program=program, kind=kind, how=found["how"] or "")

    def _new_lines(self, path: Path) -> list[str]:
        start = self._offsets.get(path, 0)
        try:
            with path.open("rb") as log:
                if start > log.seek(0, os.SEEK_END):
                    start = 0  # it was rotated
                log.seek(start)
                text = log.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[path] = start + len(whole)
        return whole.decode(errors="replace").splitlines()

    def tail(self, program: str, *, lines: int) -> str:
        """The last lines that a program (or `supervisord`) wrote since the start."""
        found = list(self._errors) if program == "supervisord" else []
        path = self.log_path(program)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(0, end - _TAIL_BYTES, min(self._offsets.get(path, 0), end)))
            found += log.read().decode(errors="replace").splitlines()
        return "\n".join(found[-lines:])

    def log_path(self, program: str) -> Path:
        return self._log_dir / f"{program}.log"

    def stop(self, *, within_s: float, hurry: Callable[[], bool]) -> None:
        """End everything in order; at once when `hurry()` says so or time is up."""
        if self.is_alive:
            self._supervisord.terminate()
        until = time.monotonic() + within_s
        while self.is_alive and time.monotonic() < until and not hurry():
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """End what still runs, now."""
        list(self.events())  # learn of what was started last
        if self.is_alive:
            self._supervisord.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisord.wait(_KILL_WAIT_S)
        elif self._supervisord.returncode == 0:
            return  # it stopped its programs itself
        for group in self._groups.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end_with_launcher() -> Callable[[], None] | None:
    """What supervisord runs before it becomes itself: SIGTERM when the launcher is killed."""
    libc = _libc
    if libc is None:
        return None
    launcher = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != launcher:  # it was killed before prctl, so no signal would ever come
            os._exit(1)

    return set_death_signal
