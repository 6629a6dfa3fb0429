"""Asking this installation by HTTP as its callers do, and for nothing but itself."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx2

TIMEOUT_S = 5.0  # to connect, and between two pieces of an answer

Response = httpx2.Response
Unreached = httpx2.TransportError


def context_for(authority: str) -> ssl.SSLContext:
    """Trusts the system's authorities, or only the one in this PEM text. Raises ssl.SSLError."""
    return ssl.create_default_context(cadata=authority or None)


def get(url: str, *, trusting: ssl.SSLContext, headers: dict[str, str]) -> httpx2.Response:
    """Redirects are not followed, and proxies in the environment not asked. Raises Unreached."""
    with httpx2.Client(
        verify=trusting, trust_env=False, follow_redirects=False, timeout=TIMEOUT_S
    ) as client:
        return client.get(url, headers=headers)


def certificate_ends_at(url: str, *, trusting: ssl.SSLContext) -> datetime:
    """Of the certificate that is presented there. Raises ssl.SSLCertVerificationError when it is
    not to be trusted; OSError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with (
        socket.create_connection((host, parts.port or 443), timeout=TIMEOUT_S) as plain,
        trusting.wrap_socket(plain, server_hostname=host) as secured,
    ):
        presented = secured.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(presented["notAfter"])), UTC)
