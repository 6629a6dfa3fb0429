"""A whole installation on loopback, from the files that are shipped: nginx with TLS, two web
processes that share Redis and PostgreSQL, the worker and an engine."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.chaos.grown import EngineServer, make_keys
from tests.environment import test_environment
from tests.migrated import ROOT, manage
from tests.platform import EngineAddress, Platform, free_port, web_process
from tests.rehearsal.nginx import Nginx
from tests.roled_postgres import APP, OWNER, RoledPostgres
from tests.servers import RedisServer
from tests.worker import Worker

USERS = ("alice", "bob", "carol")
# Of answers of the stub engine: streams take as long as a restart, or nearly.
TOKEN_DELAY_S = 0.01


@dataclass(kw_only=True)
class Topology:
    """`environment` is that of the worker and of commands, who own the database; `keys` are API
    keys by user."""

    nginx: Nginx
    webs: tuple[Platform, Platform]
    worker: Worker
    database: RoledPostgres
    redis: RedisServer
    engine: EngineAddress
    environment: dict[str, str]
    keys: dict[str, str]

    def client(self, user: str = "") -> httpx2.Client:
        """Through nginx."""
        return self.nginx.client(self.keys[user] if user else "")

    def manage(self, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command of the operator's. Fails with what it said when it fails."""
        done = manage(self.environment, *arguments, root=root)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@contextlib.contextmanager
def topology(
    engine: AbstractContextManager[EngineAddress] | None = None, **overrides: str
) -> Iterator[Topology]:
    """On servers that nobody else uses; with the stub engine where none is given."""
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sovereigncore-rehearsal-"))
        )
        database = stack.enter_context(RoledPostgres())
        database.make_roles()
        redis = stack.enter_context(RedisServer())
        address = stack.enter_context(engine or EngineServer(token_delay_s=TOKEN_DELAY_S))
        ports = (free_port(), free_port())
        nginx = stack.enter_context(Nginx(ports))
        environment = {
            **os.environ,
            **test_environment(str(folder)),
            "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
            "PUBLIC_BASE_URL": nginx.url,
            "TRUSTED_PROXIES": "127.0.0.1",
            "DATABASE_URL": database.url_of(OWNER),
            "REDIS_URL": redis.url,
            "ENGINE_URL": address.url,
            "ENGINE_API_KEY": address.api_key,
            "METRICS_TOKEN": secrets.token_hex(32),
            "BACKUP_DIR": "backups",
            "BACKUP_KEY": secrets.token_hex(32),
            "RATE_LIMIT_DEFAULT": "1000000/m",
            "DAILY_TOKEN_QUOTA": "0",
            **overrides,
        }
        migrated = manage(environment, "migrate", "--verbosity=0")
        assert migrated.returncode == 0, migrated.stderr
        first, second = (
            stack.enter_context(
                web_process(
                    {**environment, "DATABASE_URL": database.url_of(APP), "PORT": str(port)},
                    folder / f"web-{port}.log",
                )
            )
            for port in ports
        )
        worker = Worker(environment, folder / "worker.log")
        stack.callback(worker.stop)
        worker.start()
        yield Topology(
            nginx=nginx,
            webs=(first, second),
            worker=worker,
            database=database,
            redis=redis,
            engine=address,
            environment=environment,
            keys=make_keys(first, USERS),
        )
