"""The platform grown, with its worker, and everything that watches it: real exporters, Prometheus
and Alertmanager, with the shipped configuration."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.grown import Grown, grown
from tests.ops import deployed
from tests.ops.daemons import (
    Alertmanager,
    BlackboxExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from tests.ops.front_door import FrontDoor
from tests.ops.sinks import WEBHOOK_TOKEN, HTTPSink, Receivers
from tests.smtp_sink import SMTPSink
from tests.worker import Worker

CROWD = [f"u{number}" for number in range(10)]


@dataclass(kw_only=True)
class Watched:
    """`app_mail` is where the platform's mails go, `receivers` where alerts do."""

    parts: Grown
    worker: Worker
    app_mail: SMTPSink
    front_door: FrontDoor
    redis_exporter: RedisExporter
    prometheus: Prometheus
    alertmanager: Alertmanager
    receivers: Receivers
    token: str


@contextlib.contextmanager
def watched(hurry: deployed.Hurry | None = None, **overrides: str) -> Iterator[Watched]:
    hurry = hurry or deployed.Hurry()
    token = secrets.token_hex(32)
    with contextlib.ExitStack() as stack:
        app_mail = stack.enter_context(SMTPSink())
        door = stack.enter_context(FrontDoor())
        sink = stack.enter_context(HTTPSink())
        mail = stack.enter_context(SMTPSink())
        parts = stack.enter_context(
            grown(
                ["alice", *CROWD],
                token_delay_s=0.01,
                METRICS_TOKEN=token,
                EMAIL_URL=f"smtp://platform:of-the-mailbox@127.0.0.1:{app_mail.port}",
                **overrides,
            )
        )
        environment = parts.platform.environment
        worker = Worker(environment, Path(environment["DATA_DIR"]) / "worker.log")
        stack.callback(worker.stop)
        worker.start()
        redis_exporter = stack.enter_context(RedisExporter(parts.redis))
        postgres_exporter = stack.enter_context(PostgresExporter(parts.database.superuser_url))
        blackbox = stack.enter_context(BlackboxExporter())
        alertmanager = stack.enter_context(Alertmanager(write_for(sink, mail, hurry)))
        places = deployed.Places(
            platforms=(f"127.0.0.1:{parts.platform.port}",),
            redis=redis_exporter.address,
            postgres=postgres_exporter.address,
            blackbox=blackbox.address,
            alertmanager=alertmanager.address,
            front_door=door.url,
        )
        prometheus = stack.enter_context(Prometheus(places, token=token, hurry=hurry))
        yield Watched(
            parts=parts,
            worker=worker,
            app_mail=app_mail,
            front_door=door,
            redis_exporter=redis_exporter,
            prometheus=prometheus,
            alertmanager=alertmanager,
            receivers=Receivers(sink, mail),
            token=token,
        )


def write_for(sink: HTTPSink, mail: SMTPSink, hurry: deployed.Hurry) -> Callable[[Path], Path]:
    """What writes Alertmanager's configuration for these receivers."""

    def write(folder: Path) -> Path:
        return deployed.write_alertmanager(
            folder,
            smtp=f"127.0.0.1:{mail.port}",
            slack_url=f"{sink.url}/slack",
            webhook_url=f"{sink.url}/webhook",
            secrets={"smtp_password": "of-the-mailbox", "webhook_token": WEBHOOK_TOKEN},
            hurry=hurry,
        )

    return write
