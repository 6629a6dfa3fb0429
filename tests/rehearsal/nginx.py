"""nginx with `deploy/nginx`, on loopback. Changed are paths, ports and addresses and nothing else;
what listened on IPv6 listens on 127.0.0.2."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from tests.migrated import ROOT
from tests.ops.deployed import DEPLOY, replaced
from tests.rehearsal.programs import find_program
from tests.server_process import ServerProcess, find_free_port

SHIPPED = DEPLOY / "nginx"
_HOST = "127.0.0.1"
_OTHER_HOST = "127.0.0.2"
_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 5.0


class Nginx(ServerProcess):
    """In front of web processes on these ports, with certificates of `generate_certs.sh`."""

    name = "nginx"
    death_signal = signal.SIGTERM  # killed, it would leave its workers behind

    def __init__(self, upstream_ports: Sequence[int]) -> None:
        super().__init__()
        self._upstream_ports = upstream_ports
        self.http_port = 0

    @property
    def url(self) -> str:
        return f"https://{_HOST}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{_HOST}:{self.http_port}"

    @property
    def authority(self) -> Path:
        return self.scratch.path / "tls/ca.pem"

    def prepare(self) -> None:
        subprocess.run(
            [
                *(ROOT / "scripts/generate_certs.sh", "--output", self.scratch.path / "tls"),
                *("--name", _HOST, "--name", _OTHER_HOST, "--name", "localhost"),
            ],
            check=True,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
        # Clients trust the authority, which nobody else may look for there.
        self.context = ssl.create_default_context(cafile=self.authority)
        self.http_port = find_free_port()
        for folder in ("temp", "www", "sovereigncore"):
            (self.scratch.path / folder).mkdir()

    def command(self) -> list[str]:
        folder = self.scratch.path
        for source in SHIPPED.glob("*.conf"):
            place = folder if source.name == "nginx.conf" else folder / "sovereigncore"
            text = replaced(source.read_text(encoding="utf-8"), self._moved(source.name))
            (place / source.name).write_text(text, encoding="utf-8")
        if self._account is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, *self._account)
        config = ["-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        return [find_program("nginx"), "-p", str(folder), *config, "-g", "daemon off;"]

    def _moved(self, name: str) -> dict[str, str]:
        folder = self.scratch.path
        if name == "nginx.conf":
            return {
                "pid /run/nginx.pid": f"pid {folder}/nginx.pid",
                "/var/log/nginx": str(folder),
                "/var/lib/nginx": f"{folder}/temp",
            }
        if name == "upstream.conf":
            shipped = ("127.0.0.1:8528", "127.0.0.1:8530")
            ours = (f"{_HOST}:{port}" for port in self._upstream_ports)
            return dict(zip(shipped, ours, strict=True))
        if name == "site.conf":
            return {
                "listen 80 ": f"listen {_HOST}:{self.http_port} ",
                "listen [::]:80 ": f"listen {_OTHER_HOST}:{self.http_port} ",
                "listen 443 ": f"listen {_HOST}:{self.port} ",
                "listen [::]:443 ": f"listen {_OTHER_HOST}:{self.port} ",
                "/etc/sovereigncore/tls": f"{folder}/tls",
                "/var/www/sovereigncore": f"{folder}/www",
            }
        return {}

    def probe(self) -> None:
        with self.client(timeout_s=_PROBE_TIMEOUT_S) as http:
            http.get("/live")  # whatever stands behind it

    def reload(self) -> None:
        """As `systemctl reload` does."""
        os.kill(self.pid, signal.SIGHUP)

    def client(self, key: str = "", *, timeout_s: float = _TIMEOUT_S) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
            verify=self.context,
        )

    def connect(self, *, source: str = _HOST) -> ssl.SSLSocket:
        """A bare connection from an address of this host's own."""
        raw = socket.create_connection(
            (_HOST, self.port), timeout=_TIMEOUT_S, source_address=(source, 0)
        )
        return self.context.wrap_socket(raw, server_hostname=_HOST)

    def log(self) -> list[dict[str, Any]]:
        """What was asked, one entry a request."""
        lines = (self.scratch.path / "access.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def serve_for_certbot(self, name: str, text: str) -> None:
        place = self.scratch.path / "www/.well-known/acme-challenge"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
        for path in (place.parent, place, place / name):
            shutil.chown(path, *(self._account or (os.getuid(), os.getgid())))
