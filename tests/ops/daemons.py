"""Prometheus, Alertmanager and the exporters as processes of a test, on free loopback ports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.ops import deployed
from tests.ops.programs import find_program
from tests.server_process import ServerFailed, ServerProcess
from tests.servers import RedisServer

_PROBE_TIMEOUT_S = 5.0


class Daemon(ServerProcess):
    """One that speaks HTTP and says on `ready_path` that it is ready."""

    program: str
    ready_path = "/-/ready"

    def prepare(self) -> None:
        find_program(self.program)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON of an answer."""
        reply = httpx2.get(
            self.url + path, params=parameters, timeout=_PROBE_TIMEOUT_S, trust_env=False
        )
        return reply.json()

    def probe(self) -> None:
        reply = httpx2.get(self.url + self.ready_path, timeout=_PROBE_TIMEOUT_S, trust_env=False)
        if reply.status_code != httpx2.codes.OK:
            raise ServerFailed(f"{self.name} says {reply.status_code}")


class Prometheus(Daemon):
    """With `deploy/prometheus`, as `deployed` makes it fit."""

    name = program = "prometheus"

    def __init__(
        self, places: deployed.Places, *, token: str, hurry: deployed.Hurry | None = None
    ) -> None:
        super().__init__()
        self._places, self._token = places, token
        self._hurry = hurry or deployed.Hurry()

    def set_token(self, token: str) -> None:
        """What it presents from its next scrape on: it reads the file each time."""
        (self.scratch.path / "metrics_token").write_text(token)

    def command(self) -> list[str]:
        folder = self.scratch.path
        config = deployed.write_prometheus(
            folder, self._places, own=self.address, token=self._token, hurry=self._hurry
        )
        return [
            find_program(self.program),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address={self.address}",
            "--storage.tsdb.retention.time=35d",
        ]

    def query(self, expression: str) -> list[Any]:
        return self._result("/api/v1/query", query=expression)

    def query_range(self, expression: str, *, start_s: float, end_s: float) -> list[Any]:
        step = str(deployed.EVERY_S)
        return self._result(
            "/api/v1/query_range", query=expression, start=str(start_s), end=str(end_s), step=step
        )

    def _result(self, path: str, **parameters: str) -> list[Any]:
        answer = self.get(path, **parameters)
        assert answer["status"] == "success", f"{parameters['query']}\n{answer}"
        data = answer["data"]
        # A scalar is a value as well, not a list of series.
        found: list[Any] = [data["result"]] if data["resultType"] == "scalar" else data["result"]
        return found

    def firing(self) -> set[str]:
        return {
            alert["labels"]["alertname"]
            for alert in self.get("/api/v1/alerts")["data"]["alerts"]
            if alert["state"] == "firing"
        }


class Alertmanager(Daemon):
    """With `deploy/alertmanager`; `write` puts its configuration into a folder."""

    name = "alertmanager"
    program = "prometheus-alertmanager"

    def __init__(self, write: Callable[[Path], Path]) -> None:
        super().__init__()
        self._write = write

    def command(self) -> list[str]:
        folder = self.scratch.path
        return [
            find_program(self.program),
            f"--config.file={self._write(folder)}",
            f"--storage.path={folder / 'state'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",  # alone
        ]


class RedisExporter(Daemon):
    name = program = "prometheus-redis-exporter"
    ready_path = "/health"

    def __init__(self, redis: RedisServer) -> None:
        super().__init__()
        self._redis = redis

    def command(self) -> list[str]:
        who = ["-redis.addr", self._redis.url_for("exporter"), "-config-command=-"]
        return [find_program(self.program), *who, "-web.listen-address", self.address]


class PostgresExporter(Daemon):
    name = program = "prometheus-postgres-exporter"
    ready_path = "/"

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self._database_url = database_url

    def command(self) -> list[str]:
        source = f"DATA_SOURCE_NAME={self._database_url}?sslmode=disable"
        program = find_program(self.program)
        return ["/usr/bin/env", source, program, f"--web.listen-address={self.address}"]


class BlackboxExporter(Daemon):
    name = program = "prometheus-blackbox-exporter"
    ready_path = "/-/healthy"

    def command(self) -> list[str]:
        config = self.scratch.path / "blackbox.yml"
        config.write_bytes((deployed.DEPLOY / "prometheus/blackbox.yml").read_bytes())
        return [
            find_program(self.program),
            f"--config.file={config}",
            f"--web.listen-address={self.address}",
        ]
