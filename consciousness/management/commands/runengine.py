"""`manage.py runengine`: one llama.cpp server on loopback, until it is told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from consciousness import bundled_model

_HOST = "127.0.0.1"
_TOKENS_PER_SLOT = 8192
_PROMPT_CACHE_MIB = 256  # llama.cpp's own default is 8 GiB
_SPARE_HTTP_THREADS = 8
_TEMPLATE = Path(__file__).resolve().parents[2] / "chat_template.jinja"
# The base model does not know when to stop: at the next question, and at a blank line.
_BASE_MODEL_STOPS = ["\n### ", "\n\n"]
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_WARNINGS_ONLY = 2  # llama.cpp's verbosity; above that it logs every request


class Command(BaseCommand):
    help = (
        "Serve the model on 127.0.0.1:ENGINE_PORT in the OpenAI protocol, guarded by "
        "ENGINE_API_KEY. MODEL_PATH names a GGUF file of your own; without it the bundled Gemma 3 "
        "270M is served. ENGINE_SLOTS requests run at once, each with a window of 8,192 tokens. "
        "SIGTERM or Ctrl-C ends it."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        # Before the model's threads exist, so that they inherit the mask and this thread gets it.
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if not settings.ENGINE_IS_LOCAL:
            raise CommandError(
                f"ENGINE_URL points to {settings.ENGINE_URL}; no engine is needed on this host"
            )
        if not settings.ENGINE_API_KEY:
            raise CommandError("ENGINE_API_KEY is not set")
        try:
            path = bundled_model.locate(settings.MODEL_PATH, data_dir=settings.DATA_DIR)
        except bundled_model.ModelError as error:
            raise CommandError(str(error)) from error
        _check_port(settings.ENGINE_PORT)
        _end_with_parent()
        server = _serve(path)
        with _pid_file():
            self.stdout.write(
                f"engine ready: {server.listening_address}, model {_alias(path)},"
                f" {settings.ENGINE_SLOTS} slots of {_TOKENS_PER_SLOT} tokens"
            )
            self.stdout.flush()
            signal.sigwait(signals)
        _leave()


def _serve(path: Path) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise CommandError(
            "xllamacpp is not installed: pip install -r requirements-engine.txt, or set ENGINE_URL"
        ) from error
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {_alias(path)}
    parameters.hostnames = [_HOST]
    parameters.port = settings.ENGINE_PORT
    parameters.api_keys = [settings.ENGINE_API_KEY]
    parameters.n_parallel = settings.ENGINE_SLOTS
    parameters.n_ctx = _TOKENS_PER_SLOT * settings.ENGINE_SLOTS
    parameters.kv_unified = False  # a slot's window is its own, whatever the others hold
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    # Streams hold a thread each; probes must get through beside them.
    parameters.n_threads_http = settings.ENGINE_SLOTS + _SPARE_HTTP_THREADS
    parameters.endpoint_metrics = True
    parameters.ui = False  # a page of its own, which nobody here asked for
    parameters.verbosity = _WARNINGS_ONLY
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = compute_threads()
    if settings.MODEL_PATH is None:
        # A base model; instruct models bring their own template and know when to stop.
        parameters.chat_template = _TEMPLATE.read_text(encoding="utf-8")
        parameters.antiprompt = _BASE_MODEL_STOPS
    try:
        server = xllamacpp.Server(parameters)
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


def _alias(path: Path) -> str:
    return bundled_model.BUNDLED_NAME if settings.MODEL_PATH is None else path.stem


def compute_threads() -> int:
    """One CPU is left to the web server and the database.

    llama.cpp's threads meet at a barrier after every layer, and one that is not scheduled holds
    all of them: with a thread for each of two busy CPUs a generation came to a stand, where one
    thread still made ten tokens a second.
    """
    return max(1, usable_cpus() - 1)


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: its affinity, and its cgroup's quota where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = allowed or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = cgroup.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, round(int(quota) / int(period))))
    return cpus


def _check_port(port: int) -> None:
    """llama.cpp's own complaint does not say what is wrong."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise CommandError(
                f"port {port} is taken ({error.strerror}); set ENGINE_PORT to another one"
            ) from error


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the supervisor is killed: an engine nobody knows of would keep
    the port and the memory. Only in the main thread of the parent, which supervisors have."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


@contextlib.contextmanager
def _pid_file() -> Iterator[None]:
    """Where monitoring/sensors.py finds the process whose CPU time is inference."""
    path = settings.DATA_DIR / "engine.pid"
    path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _leave() -> None:
    """End at once: the generations in hand are nobody's any more, and llama.cpp's own way out
    waits for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
