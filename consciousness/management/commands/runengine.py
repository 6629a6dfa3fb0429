"""`manage.py runengine`: one llama.cpp server on ENGINE_BIND, until it is told to stop."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from consciousness import bundled_model

_TOKENS_PER_SLOT = 8192
# How much of a prompt is read at once. Between two batches a leaver's slot is freed and the other
# slots get their next token; larger ones read a prompt no faster on a CPU.
_BATCH_TOKENS = 256
# llama.cpp's own default, 32 copies of a slot's state, is for machines that do nothing else.
_CHECKPOINTS_PER_SLOT = 4
_SPARE_HTTP_THREADS = 32
_TEMPLATE = Path(__file__).resolve().parents[2] / "chat_template.jinja"
# llama.cpp's verbosity. Above that it warns of refused requests, in words that quote them.
_ERRORS_ONLY = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PARENT_CHECK_S = 1.0


class Command(BaseCommand):
    help = (
        "Serve the model on ENGINE_BIND:ENGINE_PORT in the OpenAI protocol, guarded by "
        "ENGINE_API_KEY. MODEL_PATH names a GGUF file of your own; without it the bundled Gemma 3 "
        "270M is served. ENGINE_SLOTS requests run at once, each with a window of 8,192 tokens. "
        "SIGTERM or Ctrl-C ends it, and so does the end of the process that started it, unless "
        "that was nohup. Nothing is served when ENGINE_URL points elsewhere."
    )
    # The web server's business: an engine is not to stay away for a missing mail setting.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        parent = os.getppid()
        # xllamacpp holds the interpreter while it loads, so no handler of ours could run: until
        # then the signals end the process by themselves.
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if not settings.ENGINE_IS_LOCAL:
            # Success: a supervisor that starts again what failed has nothing to do here.
            self.stderr.write(
                f"ENGINE_URL points to {settings.ENGINE_URL}; no engine is needed on this host"
            )
            return
        if not settings.ENGINE_API_KEY:
            raise CommandError("ENGINE_API_KEY is not set")
        try:
            path = bundled_model.locate(settings.MODEL_PATH, data_dir=settings.DATA_DIR)
        except bundled_model.ModelError as error:
            raise CommandError(str(error)) from error
        _check_port(settings.ENGINE_BIND, settings.ENGINE_PORT)
        self.stdout.write(f"loading {path}")
        self.stdout.flush()
        with _pid_file():
            server = _serve(path)
            self.stdout.write(
                f"engine ready: {server.listening_address}, model {_alias(path)},"
                f" {settings.ENGINE_SLOTS} slots of {_TOKENS_PER_SLOT} tokens"
            )
            self.stdout.flush()
            _wait_for_end(parent)
        _leave()


def _serve(path: Path) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise CommandError(
            f"xllamacpp cannot be used ({error}): pip install -r requirements-engine.txt,"
            " or set ENGINE_URL"
        ) from error
    try:
        server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), path))
    except RuntimeError as error:  # it tells no more than that
        raise CommandError(
            f"llama.cpp could not load {path}: damaged, of an unknown architecture, or too large"
            " for this machine's memory"
        ) from error
    # Touches the weights and the worked examples once, or the first caller would wait for it.
    server.handle_chat_completions(
        {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    )
    return server


def _parameters(parameters: Any, path: Path) -> Any:
    parameters.model.path = str(path)
    parameters.model_alias = {_alias(path)}
    parameters.hostnames = [settings.ENGINE_BIND]
    parameters.port = settings.ENGINE_PORT
    parameters.api_keys = [settings.ENGINE_API_KEY]
    parameters.n_parallel = settings.ENGINE_SLOTS
    parameters.n_ctx = _TOKENS_PER_SLOT * settings.ENGINE_SLOTS
    parameters.kv_unified = False  # a slot's window is its own, whatever the others hold
    parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
    # Old prompts of all slots in one store would help whoever returns to a conversation, but one
    # was seen to answer somebody else's question from it (ggml-org/llama.cpp#27148).
    parameters.cache_ram_mib, parameters.cache_idle_slots = 0, False
    parameters.n_ctx_checkpoints = _CHECKPOINTS_PER_SLOT
    # Streams hold a thread each; probes must get through beside them.
    parameters.n_threads_http = settings.ENGINE_SLOTS + _SPARE_HTTP_THREADS
    parameters.endpoint_metrics = True
    parameters.ui = False  # a page of its own, which nobody here asked for
    parameters.verbosity = _ERRORS_ONLY
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = compute_threads()
    if settings.MODEL_PATH is None:
        # A base model; instruct models bring their own template and know when to stop.
        parameters.chat_template = _TEMPLATE.read_text(encoding="utf-8")
        parameters.antiprompt = list(bundled_model.STOPS)
    return parameters


def _alias(path: Path) -> str:
    return bundled_model.BUNDLED_NAME if settings.MODEL_PATH is None else path.stem


def compute_threads() -> int:
    """One CPU is left to the web server and the database.

    llama.cpp's threads meet at a barrier after every layer, and one that is not scheduled holds
    all of them: with a thread for each of two busy CPUs a generation came to a stand, where one
    thread still made ten tokens a second.
    """
    return max(1, usable_cpus() - 1)


def usable_cpus(
    cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """CPUs that this process may use: its affinity, and the tightest quota of its cgroup (v2) and
    those above it, where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = allowed or 1
    for folder in _own_cgroups(cgroups, membership):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                cpus = min(cpus, max(1, round(int(quota) / int(period))))
    return cpus


def _own_cgroups(cgroups: Path, membership: Path) -> list[Path]:
    """A service's quota stands in its own folder, a container's where the tree begins for it."""
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            if line.startswith("0::"):
                inner = Path(line.removeprefix("0::").lstrip("/"))
                return [cgroups / inner, *(cgroups / above for above in inner.parents)]
    return [cgroups]


def _check_port(host: str, port: int) -> None:
    """llama.cpp's own complaint does not say what is wrong."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise CommandError(
                f"port {port} is not for this user ({error.strerror}); set ENGINE_PORT above 1023"
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise CommandError(f"ENGINE_BIND: {host} is no address of this host") from error
            raise CommandError(
                f"port {port} is taken ({error.strerror}); set ENGINE_PORT to another one"
            ) from error


@contextlib.contextmanager
def _pid_file() -> Iterator[None]:
    """Where monitoring/sensors.py finds the process whose CPU time is inference."""
    path = settings.DATA_DIR / "engine.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _wait_for_end(parent: int) -> None:
    """Return on SIGTERM and SIGINT, and when the process that started this one is gone: an engine
    that no supervisor knows of would keep the port and the memory.

    Asking for the parent is chosen over PR_SET_PDEATHSIG, which also strikes when only the thread
    that started us ends, and not when the parent ended before we asked for it.
    """
    outlives_parent = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup leaves it
    sleeper, waker = socket.socketpair()
    with sleeper, waker:
        waker.setblocking(False)
        # Any of llama.cpp's threads may be the one that gets the signal, so it cannot be relied on
        # to interrupt this one's waiting; a byte on a socket can.
        signal.set_wakeup_fd(waker.fileno())
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda _number, _frame: None)
        while not select.select([sleeper], [], [], _PARENT_CHECK_S)[0]:
            if os.getppid() != parent and not outlives_parent:
                break
        signal.set_wakeup_fd(-1)


def _leave() -> None:
    """End at once: the generations in hand are nobody's any more, and llama.cpp's own way out
    waits for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
