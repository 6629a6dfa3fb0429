"""A tiny SMTP server on loopback: keeps what it is given, and misbehaves when a test says so."""

from __future__ import annotations

import base64
import email
import email.policy
import socketserver
import threading
from dataclasses import dataclass, field
from email.message import EmailMessage
from enum import Enum, auto
from types import TracebackType
from typing import Self, cast

_LINE_LIMIT = 4096
_MESSAGE_LIMIT_BYTES = 1024 * 1024
_DELIVERIES_LIMIT = 1000
_PATIENCE_S = 20.0  # with a client that says nothing, and of a hang that nobody ends


class Behaviour(Enum):
    ACCEPT = auto()
    HANG_AT_GREETING = auto()
    HANG_AFTER_DATA = auto()
    DROP_AFTER_DATA = auto()  # the mail is taken, and nobody ever hears of it
    REFUSE_LOGIN = auto()


@dataclass(frozen=True, kw_only=True)
class Delivery:
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage


@dataclass
class _Envelope:
    sender: str = ""
    recipients: list[str] = field(default_factory=list)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, sink: SMTPSink) -> None:
        self.sink = sink
        super().__init__(("127.0.0.1", 0), _Session)


class _Session(socketserver.StreamRequestHandler):
    """One client's connection."""

    timeout = _PATIENCE_S

    def handle(self) -> None:
        sink = cast("_Server", self.server).sink
        sink.connections += 1
        try:
            self._talk(sink)
        except OSError:  # the client went away, as those do whose patience is tested
            return

    def _talk(self, sink: SMTPSink) -> None:
        if sink.behaviour is Behaviour.HANG_AT_GREETING:
            sink.hang()
            return
        self._say("220 sink ESMTP")
        envelope = _Envelope()
        while line := self.rfile.readline(_LINE_LIMIT):
            verb, _, argument = line.decode("ascii", "replace").strip().partition(" ")
            if verb.upper() == "DATA":
                self._say("354 go on")
                sink.keep(envelope, self._read_message())
                if sink.behaviour is Behaviour.HANG_AFTER_DATA:
                    sink.hang()
                if sink.behaviour is not Behaviour.ACCEPT:
                    return
                envelope = _Envelope()
            if verb.upper() == "AUTH" and sink.behaviour is Behaviour.REFUSE_LOGIN:
                self._say(f"535 no: {_password(argument)}")  # servers have been seen to say it
                continue
            self._say(_reply(sink, envelope, verb, _address(argument)))
            if verb.upper() == "QUIT":
                return

    def _read_message(self) -> bytes:
        lines: list[bytes] = []
        size = 0
        while (line := self.rfile.readline(_LINE_LIMIT)) not in (b".\r\n", b""):
            size += len(line)
            if size > _MESSAGE_LIMIT_BYTES:
                raise ConnectionAbortedError("more than the sink holds")
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


def _reply(sink: SMTPSink, envelope: _Envelope, verb: str, address: str) -> str:
    match verb.upper():
        case "EHLO":
            return "250-sink\r\n250 AUTH PLAIN"
        case "AUTH":
            return "235 welcome"
        case "MAIL":
            envelope.sender, envelope.recipients = address, []
            return "250 ok"
        case "RCPT" if address in sink.refused_recipients:
            return "550 nobody here is called so"
        case "RCPT":
            envelope.recipients.append(address)
            return "250 ok"
        case "QUIT":
            return "221 bye"
        case _:  # the end of DATA, RSET, NOOP
            return "250 ok"


def _password(argument: str) -> str:
    """What stands last in `PLAIN <base64>`."""
    return base64.b64decode(argument.partition(" ")[2]).rpartition(b"\0")[2].decode()


def _address(argument: str) -> str:
    """What stands in `FROM:<…>` or `TO:<…>`."""
    return argument.partition("<")[2].partition(">")[0]


class SMTPSink:
    """Use as a context manager; `received` holds what was handed over, in order."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.ACCEPT
        self.refused_recipients: set[str] = set()
        self.received: list[Delivery] = []
        self.connections = 0
        self._stopped = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def keep(self, envelope: _Envelope, raw: bytes) -> None:
        if len(self.received) >= _DELIVERIES_LIMIT:
            raise ConnectionAbortedError("more than the sink holds")
        message = email.message_from_bytes(raw, policy=email.policy.default)
        self.received.append(
            Delivery(
                sender=envelope.sender,
                recipients=tuple(envelope.recipients),
                message=message,
            )
        )

    def hang(self) -> None:
        self._stopped.wait(_PATIENCE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
