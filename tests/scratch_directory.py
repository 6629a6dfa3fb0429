"""A temporary directory that goes away with the process that made it, even one that is killed."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

REMOVE_TIMEOUT_S = 10.0
# A separate process does the removing, when its standard input ends: because we closed it or
# because we are gone. Each line read there is the id of the server that uses the directory, empty
# when none does: one stopped by SIGSTOP gets its death signal only when it is continued.
JANITOR = """
while read -r line; do running=$line; done
if [ -n "$running" ]; then
  children=$(cat "/proc/$running/task/$running/children" 2>/dev/null)
  kill -CONT "$running" $children 2>/dev/null
fi
tries=0
until rm -rf -- "$0" 2>/dev/null || [ $tries -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"""


class ScratchDirectory:
    """Fresh, below `base`, for `account` (uid, gid) alone or, with None, for ourselves."""

    def __init__(self, base: str, account: tuple[int, int] | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="sovereigncore-test-", dir=base))
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", JANITOR, str(self.path)],
            stdin=subprocess.PIPE,
            env={"PATH": os.defpath},
            cwd="/",
            start_new_session=True,  # Ctrl-C must not end it before its work
        )
        if account is not None:
            os.chown(self.path, *account)

    def note_user(self, pid: int | None) -> None:
        """Which process runs in the directory now."""
        if self._janitor.stdin is not None and not self._janitor.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._janitor.stdin.write(b"%d\n" % pid if pid else b"\n")
                self._janitor.stdin.flush()

    def remove(self) -> None:
        self._janitor.communicate(timeout=REMOVE_TIMEOUT_S)
