"""The mails of a running platform that has no mail server: the files that its worker writes."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.platform import Platform


def deliver(platform: Platform) -> list[EmailMessage]:
    """Do the worker's work once: the mails that came of it, oldest first."""
    folder = Path(platform.environment["DATA_DIR"]) / "outbox"
    before = set(folder.glob("*.eml"))
    done = platform.manage("housekeeping", "--now")
    assert done.returncode == 0, done.stderr
    return [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in sorted(set(folder.glob("*.eml")) - before)
    ]


def recipient_of(message: EmailMessage) -> str:
    return str(message["To"])


def text_of(message: EmailMessage) -> str:
    """What its reader may be shown: both parts."""
    return "\n".join(part.get_content() for part in message.walk() if not part.is_multipart())


def token_in(message: EmailMessage) -> str:
    """Of the link in the plain part."""
    body = message.get_body(("plain",))
    assert isinstance(body, EmailMessage)
    (url,) = re.findall(r"\S+[?&]token=\S+", str(body.get_content()))
    (token,) = parse_qs(urlsplit(str(url)).query)["token"]
    return token
