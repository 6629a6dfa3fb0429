"""One server program started for tests: its account, its directory, its start and its end.

Nothing here knows a protocol; `tests.servers` adds PostgreSQL and Redis. It must never use,
signal or clean up anything that it did not start itself.
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from tests.scratch_directory import ScratchDirectory

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
PROBE_PAUSE_S = 0.02
# A free port is found by binding it and letting go, so another program can take it first.
PORT_ATTEMPTS = 3
LOG_TAIL_BYTES = 4000
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Nothing of the caller's environment: PGOPTIONS, PGSERVICE or LC_ALL would change the server.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the tail of its log."""


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before exec, to get `death_signal` when its parent thread ends.

    subprocess calls it after the change of user, which would clear the setting.
    """
    libc = _libc
    if libc is None:
        return None
    parent = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended before prctl, so no signal would ever come
            os._exit(1)

    return set_death_signal


def find_account() -> tuple[int, int] | None:
    """The (uid, gid) to run servers as, or None for our own: only root steps down.

    PostgreSQL refuses root. initdb wants an id that has a name, which `nobody` has.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return entry.pw_uid, entry.pw_gid


def find_free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess(ABC):
    """A context manager around one server; it ends with the process and the directory gone.

    Enter it from a thread that lives as long as the server: Linux sends the death signal when
    the starting *thread* ends. Between enter and exit a test may `kill()` it and `start()` it
    again (same port, same data), or `pause()` and `resume()` it.
    """

    name: str
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL

    def __init__(self) -> None:
        self.port = 0
        self._account = find_account()
        self._scratch: ScratchDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the clients under test connect."""

    @abstractmethod
    def prepare(self) -> None:
        """Make ready, once, what the server needs in `self.scratch`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server's command line, on `self.port`."""

    @abstractmethod
    def probe(self) -> None:
        """Ask the server one real question; raises while it cannot answer."""

    @property
    def scratch(self) -> ScratchDirectory:
        """The server's own directory."""
        if self._scratch is None:
            raise ServerFailed(f"{self.name} was never started")
        return self._scratch

    @property
    def pid(self) -> int:
        """The process id of the server (for PostgreSQL, of the postmaster)."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was never started")
        return self._process.pid

    def __enter__(self) -> Self:
        self._make_directory()
        try:
            self.prepare()
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def start(self) -> None:
        """Start, or start again on the same port. Raises ServerFailed within a bounded time."""
        if self._process is not None and self._process.poll() is None:
            return
        deadline = time.monotonic() + START_TIMEOUT_S
        port, attempt = self.port, 0
        while True:
            attempt += 1
            self.port = port or find_free_port()
            problem = self._try_start(deadline)
            if not problem:
                return
            self.stop()
            # On a fixed port wait for the killed predecessor's children, which may hold it.
            if time.monotonic() > deadline or (not port and attempt == PORT_ATTEMPTS):
                self.port = port
                raise ServerFailed(f"{self.name} did not start: {problem}\n{self._log_tail()}")
            time.sleep(PROBE_PAUSE_S * attempt)

    def stop(self) -> None:
        """Stop the process, politely and then not, in a bounded time; its data stays."""
        process = self._process
        if process is not None and process.poll() is None:
            self.resume()
            process.send_signal(self.stop_signal)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.scratch.note_user(None)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash does, and see that it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Stop the server and its children with SIGSTOP: it hangs, its port still connects."""
        self._signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause()`."""
        self._signal_tree(signal.SIGCONT)

    def _signal_tree(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # PostgreSQL's children lead sessions of their own, so no process group reaches them.
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        for pid in [self.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def run_once(self, command: Sequence[str | Path]) -> None:
        """Run a short program as the server's account. Raises ServerFailed with its output."""
        with self._open_log() as log:
            process = self._spawn([str(part) for part in command], log)
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        finally:
            # Interrupted, let it finish first: initdb cut short leaves shared memory behind.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            process.wait(STOP_TIMEOUT_S)
        if process.returncode != 0:
            raise ServerFailed(f"{command[0]} ended with {process.returncode}\n{self._log_tail()}")

    def make_reachable(self, program: Path, parts: Sequence[Path], root: Path) -> Path:
        """`program`, or its copy if the account may not run it where it is installed.

        A virtualenv below a private home cannot be entered by an unprivileged id. `parts` are
        the directories below `root` to copy; they keep their places, for programs find their
        libraries relative to themselves.
        """
        if self._account is None:
            return program
        with contextlib.suppress(ServerFailed):
            self.run_once([program, "--version"])
            return program
        copy = self.scratch.path / "programs"
        for part in parts:
            shutil.copytree(part, copy / part.relative_to(root), dirs_exist_ok=True)
        for path in [copy, *copy.rglob("*")]:
            os.chown(path, *self._account)
        return copy / program.relative_to(root)

    def _make_directory(self) -> None:
        """The first usual place that the account can enter: TMPDIR may be below a private home."""
        for base in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):  # noqa: S108
            scratch = self._scratch = ScratchDirectory(base, self._account)
            with contextlib.suppress(ServerFailed):
                self.run_once(["/bin/sh", "-c", 'cd "$0"', scratch.path])
                return
            scratch.remove()
        raise ServerFailed(
            f"{self.name}: uid, gid {self._account} can enter no temporary directory"
        )

    def _open_log(self) -> BinaryIO:
        return (self.scratch.path / "log").open("ab")

    def _log_tail(self) -> str:
        return (self.scratch.path / "log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def _spawn(self, command: list[str], log: BinaryIO) -> subprocess.Popen[bytes]:
        uid, gid = self._account or (None, None)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.scratch.path,
                env=SERVER_ENVIRONMENT,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                start_new_session=True,
                preexec_fn=die_with_parent(self.death_signal),  # noqa: PLW1509 - only calls prctl
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerFailed(f"{self.name}: cannot run {command[0]}: {error}") from error

    def _try_start(self, deadline: float) -> str:
        """Launch and wait; returns what went wrong, or nothing when the server answers."""
        with self._open_log() as log:
            process = self._process = self._spawn(self.command(), log)
        self.scratch.note_user(process.pid)
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                self.probe()
            except Exception as error:  # each client library raises its own kinds
                reason = str(error)
            else:
                return ""
            if process.poll() is not None:
                return f"it ended with {process.returncode}"
            time.sleep(PROBE_PAUSE_S)
        return f"not ready after {START_TIMEOUT_S:.0f} s: {reason}"

    def _close(self) -> None:
        try:
            self.stop()
        finally:
            self.scratch.remove()
