"""How gunicorn serves the platform; every value that an operator sets comes from the settings.

Run by gunicorn's master before it forks, and again on SIGHUP. It must not import the application:
each worker does, after the fork, so that no thread, connection or counter is ever shared.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SLEPT_AFTER_S = 10.0  # the master comes round every second
_IDLE_CONNECTIONS = 1000  # kept alive beside the WEB_THREADS that are being answered


def _read_settings() -> LazySettings:
    """The settings, read without a trace: a worker, also one after SIGHUP, reads them anew."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sovereigncore.settings")
    read = LazySettings()
    try:
        from sovereigncore import logs

        logs.configure(read.LOGGING)
    except ImproperlyConfigured as error:
        sys.exit(f"SovereignCore cannot start: {error}")
    mine = os.environ["DJANGO_SETTINGS_MODULE"]
    for name in [n for n in sys.modules if n == mine or n.partition(".")[0] == "sovereigncore"]:
        del sys.modules[name]
    return read


class JSONLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's events through our root logger, one line of JSON each, without callers' text."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ParseException):
            # gunicorn quotes the request line or header it refused; either may hold a secret.
            msg, args = "Invalid request: %s", (type(error).__name__,)
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # The arguments are the method and the URL, query string included.
        super().exception(msg.partition("%")[0].rstrip(), **kwargs)


_settings = _read_settings()


def _metrics_directory() -> Path:
    """A private directory in memory, or in DATA_DIR where there is none.

    Metrics are memory-mapped files, and writing to one on a full disk kills the process. Each port
    has its own: two web processes of one DATA_DIR come and go independently.
    """
    wanted = Path(_settings.DATA_DIR) / "prometheus" / str(_settings.PORT)
    if Path("/dev/shm").is_dir():  # noqa: S108 - private, as checked below
        name = hashlib.sha256(str(wanted).encode()).hexdigest()[:16]
        wanted = Path(f"/dev/shm/sovereigncore-{os.geteuid()}-{name}")  # noqa: S108
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = wanted.lstat()
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.geteuid():
        raise OSError(f"{wanted} is somebody else's")
    return wanted


try:
    _metrics_dir = _metrics_directory()
except OSError as _error:
    sys.exit(f"SovereignCore cannot start: metrics: {_error}")
# prometheus_client looks at this once, when a worker imports it.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)

_host = f"[{_settings.BIND}]" if ":" in _settings.BIND else _settings.BIND
bind = f"{_host}:{_settings.PORT}"
backlog = 1024

# A waiting or streaming caller holds a thread and hardly any CPU.
worker_class = "sovereigncore.web_worker.Worker"  # gthread, guarded against slow clients
workers = _settings.WEB_CONCURRENCY
threads = _settings.WEB_THREADS
worker_connections = threads + _IDLE_CONNECTIONS
preload_app = False
max_requests = 0  # recycling a worker would cut its streams
# The worker's main loop proves every second that it lives, however long its requests take.
timeout = 60
graceful_timeout = 30  # for open streams to end on SIGTERM and SIGHUP
keepalive = 5
if Path("/dev/shm").is_dir():  # noqa: S108 - gunicorn makes a private file there
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - a slow disk must not make a worker look dead

limit_request_line = 4096
limit_request_fields = 64
limit_request_field_size = 8190

# Only ForwardedHeadersMiddleware judges these, by TRUSTED_PROXIES.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
header_map = "drop"  # X_Forwarded_For must not pass for X-Forwarded-For

control_socket_disable = True

logger_class = JSONLogger
loglevel = _settings.LOG_LEVEL
errorlog = None  # no handler of its own beside the root logger's
accesslog = None  # RequestLogMiddleware writes that line


def on_starting(server: Any) -> None:
    """Drop the counts of an earlier run. Not run on SIGHUP, when the old workers still count."""
    _spare_who_slept(server)
    if server.master_pid:  # a successor started by SIGUSR2 beside its predecessor
        return
    for counts in _metrics_dir.glob("*.db"):
        counts.unlink(missing_ok=True)


def _spare_who_slept(server: Any) -> None:
    """Where all of this stood still, as in a frozen container, the master wakes to workers that
    have not said for long that they live, and would kill them with what they have in hand. They
    get a moment to say so first."""
    kill_the_silent = server.murder_workers
    looked_s, spared_until_s = time.monotonic(), 0.0

    def kill_the_silent_unless_all_slept() -> None:
        nonlocal looked_s, spared_until_s
        now = time.monotonic()
        if now - looked_s > _SLEPT_AFTER_S:
            spared_until_s = now + _SLEPT_AFTER_S
        looked_s = now
        if now >= spared_until_s:
            kill_the_silent()

    server.murder_workers = kill_the_silent_unless_all_slept


def on_exit(server: Any) -> None:
    """Leave nothing in memory behind. A killed master's files are dropped at the next start."""
    if not server.master_pid:
        shutil.rmtree(_metrics_dir, ignore_errors=True)


def post_fork(server: Any, worker: Any) -> None:
    """Tie the worker to its master.

    A worker whose master was killed would hold the port for `graceful_timeout` and be a second
    web process beside the next master's, where limits and slots are counted in process.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != server.pid:  # it was killed before prctl, so no signal would ever come
        os._exit(0)


def child_exit(server: Any, worker: Any) -> None:
    """Take a dead worker's requests in progress out of the gauges."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
