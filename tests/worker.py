"""The worker under test: a process that does the periodic jobs of a platform."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.migrated import ROOT
from tests.server_process import die_with_parent

_STOP_TIMEOUT_S = 20.0


class Worker:
    """`manage.py worker` of a platform; a test may stop it and start it again."""

    def __init__(self, environment: dict[str, str], log_path: Path) -> None:
        self._environment, self._log_path = environment, log_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "worker"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - sets a flag, no more
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM: it ends the jobs in hand, so that no lease stays behind."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None
