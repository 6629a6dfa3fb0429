"""The users of `deploy/redis/users.acl`: what each may not do. What the platform's own may do is
shown by every test that uses Redis, for none has another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from tests.servers import RedisServer

pytestmark = pytest.mark.once

OURS, FOREIGN = "sovereigncore:ratelimit:1:x", "somebody:else"
_READS_FOREIGN = f"return redis.call('GET', '{FOREIGN}')"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        with redis.Redis.from_url(running.admin_url) as admin:
            admin.set(OURS, "ours")
            admin.set(FOREIGN, "theirs")
        yield running


def ask(server: RedisServer, user: str, *command: str) -> object:
    with redis.Redis.from_url(server.url_for(user), driver_info=None) as client:
        return client.execute_command(*command)


def test_nobody_is_answered_without_a_name(server: RedisServer) -> None:
    for client in (
        redis.Redis(port=server.port, driver_info=None),
        redis.Redis(port=server.port, username="default", password="", driver_info=None),
        redis.Redis(port=server.port, password="x" * 64, driver_info=None),
        redis.Redis(port=server.port, username="sovereigncore", password="x", driver_info=None),
    ):
        with client, pytest.raises(AuthenticationError):
            client.ping()


def test_the_platform_reads_its_own_keys(server: RedisServer) -> None:
    assert ask(server, "sovereigncore", "GET", OURS) == b"ours"


@pytest.mark.parametrize(
    "command",
    [
        "GET {foreign}",
        "SET {foreign} 1",
        "DEL {foreign}",
        "HGETALL {foreign}",
        "EVAL return 1 {foreign}",
        "KEYS *",
        "SCAN 0",
        "DBSIZE",
        "RANDOMKEY",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "ACL SETUSER sovereigncore allkeys",
        "INFO",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "FUNCTION LIST",
        "MODULE LIST",
        "SLOWLOG GET",
        "MONITOR",
        "SHUTDOWN",
        "SAVE",
        "REPLICAOF 127.0.0.1 1",
        "SUBSCRIBE x",
        "PUBLISH x y",
        "RENAME {ours} {ours}:2",
        "DUMP {ours}",
    ],
)
def test_the_platform_can_do_no_more_than_it_needs(server: RedisServer, command: str) -> None:
    words = command.format(foreign=FOREIGN, ours=OURS).split()
    if words[0] == "EVAL":
        words = ["EVAL", "return 1", "1", FOREIGN]
    with pytest.raises(NoPermissionError):
        ask(server, "sovereigncore", *words)


@pytest.mark.parametrize(
    "script", [_READS_FOREIGN, "return redis.call('FLUSHALL')", "return redis.call('KEYS', '*')"]
)
def test_a_script_can_do_no_more_than_who_sent_it(server: RedisServer, script: str) -> None:
    with pytest.raises(redis.ResponseError, match="ACL failure"):
        ask(server, "sovereigncore", "EVAL", script, "0")
    assert ask(server, "admin", "GET", FOREIGN) == b"theirs"


def test_the_exporter_reads_statistics(server: RedisServer) -> None:
    said = ask(server, "exporter", "INFO", "ALL")
    assert "used_memory" in str(said)
    assert isinstance(ask(server, "exporter", "SLOWLOG", "LEN"), int)
    assert ask(server, "exporter", "LATENCY", "LATEST") == []


@pytest.mark.parametrize(
    "command",
    [
        "GET {ours}",
        "TYPE {ours}",
        "STRLEN {ours}",
        "KEYS *",
        "SCAN 0",
        "SLOWLOG GET",
        "CONFIG GET *",
        "CLIENT LIST",
        "ACL LIST",
        "MONITOR",
        "EVAL return 1 0",
        "SET {ours} 1",
        "FLUSHALL",
        "SLOWLOG RESET",
        "LATENCY RESET",
    ],
)
def test_the_exporter_sees_no_value_and_changes_nothing(server: RedisServer, command: str) -> None:
    with pytest.raises(NoPermissionError):
        ask(server, "exporter", *command.format(ours=OURS).split())


def test_a_full_redis_throws_nothing_out(server: RedisServer) -> None:
    with redis.Redis.from_url(server.admin_url) as admin:
        settings = admin.config_get("maxmemory*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert int(settings["maxmemory"]) == 256 * 1024**2
        saved = admin.config_get("save", "appendonly")
        assert saved == {"save": "", "appendonly": "no"}
