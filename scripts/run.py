"""`make run`: everything from a fresh clone to a running platform, and a clean end on Ctrl-C.

It prepares, starts supervisord, waits until the platform answers, says how to use it, and then
only watches. What the programs do is theirs; nothing here serves a request.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from scripts import banner, prepare, readiness
from scripts.preflight import StartError, check_ports, lock_data_dir
from scripts.supervision import Programs
from scripts.watch import Watch, say
from scripts.write_env import env_path, write_env

_STOP_TIMEOUT_S = 14.0  # the sum of stopwaitsecs in deploy/supervisord.conf, and a little
_DOUBLE_S = 0.5  # `make` passes on what the whole process group got: one wish, not two
_POLL_S = 0.25


class StopRequested(BaseException):
    """A signal came while nothing was running yet."""


class Signals:
    """Signals and a closed terminal ask for a clean end; asking once more hurries it."""

    def __init__(self) -> None:
        self.may_raise = True  # right until there is something to stop
        self.wants_end_now = False
        self._first_s: float | None = None
        self._terminal: select.poll | None = None

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup means it
            return
        signal.signal(signal.SIGHUP, self._note)
        if sys.stdout.isatty():
            self._terminal = select.poll()
            self._terminal.register(sys.stdout, 0)

    @property
    def wants_end(self) -> bool:
        # Of a closed terminal the kernel tells only the session's first process. Under
        # `ssh -t host make run` that is make, which keeps it to itself.
        return self._first_s is not None or bool(self._terminal and self._terminal.poll(0))

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._first_s is None:
            self._first_s = time.monotonic()
        elif time.monotonic() - self._first_s > _DOUBLE_S:
            self.wants_end_now = True
        if self.may_raise:
            raise StopRequested


def main() -> int:
    os.umask(0o077)  # logs, database and exports are nobody else's
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks
    signals = Signals()
    signals.install()
    try:
        return _run(signals)
    except StartError as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"SovereignCore cannot start: {error}\n")
        return 1
    except StopRequested:
        say("\nStopped.")
        return 0


def _run(signals: Signals) -> int:
    env_file = env_path()
    try:
        if write_env(env_file):
            say(f"Wrote {env_file} with fresh secrets.")
    except OSError as error:
        raise StartError(f"{env_file} cannot be written: {error.strerror}.") from error
    plan = prepare.read_plan()
    lock = lock_data_dir(plan.data_dir)
    addresses = {"PORT": (plan.bind, plan.port)}
    if plan.runs_engine:
        addresses["ENGINE_PORT"] = ("127.0.0.1", plan.engine_port)
    check_ports(addresses)
    prepare.migrate(say)

    signals.may_raise = False
    programs = Programs(
        log_dir=plan.data_dir / "logs", with_engine=plan.runs_engine, keep_open=lock
    )
    try:
        return _serve(plan, programs, signals, env_file)
    finally:
        say("\nStopping …")
        programs.stop(within_s=_STOP_TIMEOUT_S, hurry=lambda: signals.wants_end_now)
        say("Stopped.")


def _serve(plan: prepare.Plan, programs: Programs, signals: Signals, env_file: Path) -> int:
    """Until a signal comes. Returns the exit code; raises StartError."""
    watch = Watch(programs)
    readiness.wait(plan, watch, is_cancelled=lambda: signals.wants_end)
    if not signals.wants_end:
        admin = prepare.find_administrator()
        say(banner.compose(plan, admin, env_file=env_file, python=_python()))
    while not signals.wants_end:
        watch.look()
        if not programs.is_alive:
            say(f"supervisord was ended from outside.\n{programs.tail('supervisord', lines=5)}")
            return 1
        time.sleep(_POLL_S)
    return 0


def _python() -> str:
    """The interpreter as one would type it in the project's directory."""
    with contextlib.suppress(ValueError):
        return str(Path(sys.executable).relative_to(Path.cwd()))
    return sys.executable


if __name__ == "__main__":
    sys.exit(main())
