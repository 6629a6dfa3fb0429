"""The test servers are real, private, restartable, and gone afterwards, however they end."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import PostgresServer, RedisServer, ServerFailed

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 10.0
URLS = ("DATABASE_URL", "REDIS_URL")
REPORT = "import os, time; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'], flush=True); "


class BrokenRedis(RedisServer):
    def command(self) -> list[str]:
        return [*super().command(), "--no-such-setting", "1"]


def wait_until(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true()


def answers(url: str) -> bool:
    """Whether a server of either kind answers there."""
    try:
        if url.startswith("postgres://"):
            psycopg.connect(url, connect_timeout=2).close()
        else:
            with redis.Redis.from_url(url, socket_timeout=2) as client:
                client.ping()
    except (psycopg.OperationalError, redis.RedisError):
        return False
    return True


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A temporary directory that every account may enter, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def start_program(command: str, directory: Path, **given: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m tests.servers` with a command that prints its URLs first."""
    # The suite itself may run under the program, which has set them then.
    environment = {name: value for name, value in os.environ.items() if name not in URLS}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "--", sys.executable, "-c", REPORT + command],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(directory), **given},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def test_postgres_is_real_and_its_user_owns_one_database(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        version = connection.execute("SELECT version()").fetchone()
        is_superuser = connection.execute("SELECT current_setting('is_superuser')").fetchone()
        encoding = connection.execute("SELECT current_setting('server_encoding')").fetchone()
        connection.execute("CREATE DATABASE another")
        connection.execute("DROP DATABASE another")
    assert version is not None
    assert version[0].startswith("PostgreSQL ")
    assert is_superuser == ("off",)
    assert encoding == ("UTF8",)


def test_postgres_listens_on_loopback_and_wants_its_password(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.superuser_url) as connection:
        addresses = connection.execute("SHOW listen_addresses").fetchone()
        sockets = connection.execute("SHOW unix_socket_directories").fetchone()
    assert addresses == ("127.0.0.1",)
    assert sockets == ("",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url, password="wrong")


def test_postgres_keeps_committed_rows_over_a_crash(postgres: PostgresServer) -> None:
    url = postgres.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE crash AS SELECT 42 AS answer")
    postgres.kill()
    assert not answers(url)
    postgres.start()
    assert postgres.url == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM crash").fetchone() == (42,)


def test_a_paused_postgres_hangs_until_it_is_resumed(postgres: PostgresServer) -> None:
    with contextlib.closing(psycopg.connect(postgres.url)) as connection:
        postgres.pause()
        connection.pgconn.send_query(b"SELECT 1")
        hung = not select.select([connection.fileno()], [], [], 0.2)[0]
        postgres.resume()
        answered = bool(select.select([connection.fileno()], [], [], TIMEOUT_S)[0])
    assert hung
    assert answered


def test_redis_is_real_and_gone_afterwards() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.admin_url) as client:
        assert client.ping() is True
        assert [client.incr("counter"), client.incr("counter")] == [1, 2]
        directory = Path(str(client.config_get("dir")["dir"]))
        assert directory.is_dir()
    assert not answers(server.url)
    assert not directory.exists()


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(ServerFailed, match=r"(?s)Redis did not start.*no-such-setting"),
        BrokenRedis(),
    ):
        pass


def test_a_program_below_a_private_directory_can_be_run(tmp_path: Path) -> None:
    programs = tmp_path / "private/bin"
    programs.mkdir(parents=True)
    program = programs / "tool"
    program.write_text('#!/bin/sh\n[ "$1" = --version ]\n')
    program.chmod(0o700)
    programs.parent.chmod(0o700)
    with RedisServer() as server:
        reachable = server.make_reachable(program, [programs], tmp_path)
        server.run_once([reachable, "--version"])
        with pytest.raises(ServerFailed, match="ended with 1"):
            server.run_once([reachable, "--other"])


def test_the_program_uses_a_given_url_and_returns_the_exit_code(open_directory: Path) -> None:
    given = "postgres://given/one"
    with start_program("raise SystemExit(7)", open_directory, DATABASE_URL=given) as program:
        output, _ = program.communicate(timeout=TIMEOUT_S)
    used, started = output.split()
    assert program.returncode == 7
    assert used == given
    assert started.startswith("redis://sovereigncore:")
    assert not answers(started)
    assert not list(open_directory.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_survives_the_program(
    number: signal.Signals, code: int, open_directory: Path
) -> None:
    with start_program("time.sleep(60)", open_directory) as program:
        assert program.stdout is not None
        urls = program.stdout.readline().split()
        assert [answers(url) for url in urls] == [True, True]
        assert len(list(open_directory.iterdir())) == len(urls)
        program.send_signal(number)
        program.communicate(timeout=TIMEOUT_S)  # the command holds the pipe: it has ended as well
    assert program.returncode == code
    assert wait_until(lambda: not list(open_directory.iterdir()))
    assert wait_until(lambda: not any(answers(url) for url in urls))
