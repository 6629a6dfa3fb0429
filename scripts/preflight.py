"""What must hold before anything is started: a data directory of our own, and free ports."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path


class StartError(Exception):
    """Why the platform cannot start, as one sentence for its operator."""


def lock_data_dir(path: Path) -> int:
    """Make `path` and take it for this launcher; the file descriptor holds the lock.

    Two launchers on one directory would share a database file and fight over everything else.
    Raises StartError.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"DATA_DIR {path} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        raise StartError(
            f"another SovereignCore (process {holder or 'unknown'}) uses {path}. Stop it first, or"
            " give this one a DATA_DIR, PORT and ENGINE_PORT of its own."
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def check_ports(wanted: dict[str, tuple[str, int]]) -> None:
    """See that each address (by the name of its setting) can be listened on.

    Raises StartError naming the setting to change.
    """
    if len({port for _, port in wanted.values()}) < len(wanted):
        raise StartError(f"{' and '.join(wanted)} are the same port. Choose another for one.")
    with ExitStack() as held:
        for name, (host, port) in wanted.items():
            try:
                family, kind, _, _, address = socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )[0]
                probe = held.enter_context(socket.socket(family, kind))
                # As servers do: connections of an earlier run that still linger do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                raise StartError(_why(name, host, port, error)) from error


def _why(name: str, host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken by another program. Choose a free one with {name}, for example:"
            f" make run {name}={port + 1000 if port < 64000 else port - 1000}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for root. Set {name} to 1024 or more."
    return f"cannot listen on {host}, port {port} ({name}): {error.strerror}."
