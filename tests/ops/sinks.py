"""Where alerts arrive in a test: an HTTP server for Slack and the webhook, and the SMTP sink."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.smtp_sink import SMTPSink

WEBHOOK_TOKEN = "of-the-webhook"
_BODY_LIMIT_BYTES = 1024 * 1024
_TITLE = re.compile(r"\[(FIRING|RESOLVED)(?: \d+)?\] (\w+)")


@dataclass(frozen=True, kw_only=True)
class Told:
    """One alert's state, as one receiver was told: `way` is `webhook`, `slack` or `email`."""

    way: str
    alert: str
    state: str


class HTTPSink:
    """Keeps what is posted to `/webhook` with its token, and to `/slack`."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = min(int(self.headers["Content-Length"]), _BODY_LIMIT_BYTES)
                way, body = self.path.strip("/"), json.loads(self.rfile.read(size))
                known = way == "slack" or (
                    way == "webhook" and self.headers["Authorization"] == f"Bearer {WEBHOOK_TOKEN}"
                )
                if known:
                    sink.keep(way, body)
                self.send_response(200 if known else 401)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_arguments: Any) -> None:
                """Nothing: pytest's output is for failures."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def keep(self, way: str, body: Any) -> None:
        with self._lock:
            self.posted.append((way, body))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Receivers:
    """All ways together, in the words of the shipped templates."""

    def __init__(self, http: HTTPSink, mail: SMTPSink) -> None:
        self.http, self.mail = http, mail
        self._seen_posts = self._seen_mails = 0

    def forget(self) -> None:
        """What came before is no answer to what is about to happen."""
        self._seen_posts, self._seen_mails = len(self.http.posted), len(self.mail.received)

    def told(self) -> set[Told]:
        """Since `forget`."""
        found = set()
        for way, body in self.http.posted[self._seen_posts :]:
            if way == "webhook":
                found |= {
                    Told(way=way, alert=alert["labels"]["alertname"], state=alert["status"])
                    for alert in body["alerts"]
                }
            else:
                found |= {_in_title(way, attachment["title"]) for attachment in body["attachments"]}
        for delivery in self.mail.received[self._seen_mails :]:
            found.add(_in_title("email", str(delivery.message["Subject"])))
        return found


def _in_title(way: str, title: str) -> Told:
    found = _TITLE.match(title)
    assert found, title
    return Told(way=way, alert=found[2], state=found[1].lower())
