"""Content-Type, which Django reads before any middleware: nothing in it ends in a bare 500."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from hypothesis import example, given
from hypothesis import strategies as st

from sovereigncore.content_type import CHARSET_REFUSED, PlainContentType
from sovereigncore.wsgi import application

pytestmark = pytest.mark.once


def environ_of(method: str, path: str, query: str, content_type: str) -> dict[str, Any]:
    """What gunicorn makes of a request without a body."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": "0",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
    }


def plain(content_type: str) -> tuple[str, bool]:
    """The Content-Type that the application sees, and whether its charset is refused."""
    seen: dict[str, Any] = {}

    def inner(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    PlainContentType(inner)(environ_of("GET", "/", "", content_type), None)
    return seen["CONTENT_TYPE"], seen.get(CHARSET_REFUSED, False)


def status_of(content_type: str, path: str = "/live", query: str = "a=1") -> str:
    answers: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        answers.append(status)

    response = application(environ_of("GET", path, query, content_type), start_response)
    b"".join(response)
    response.close()  # type: ignore[attr-defined]
    return answers[0]


@pytest.mark.parametrize(
    ("given_type", "seen"),
    [
        ("", ""),
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ('application/json ;charset="UTF-8"', "application/json"),
        ("application/json;charset=utf8;v=1", "application/json"),
        ("multipart/form-data; boundary=a-b_c", 'multipart/form-data; boundary="a-b_c"'),
        ('a/b; charset=utf-8; boundary="a b"', 'a/b; boundary="a b"'),
        ("application/json; charset=utf-8; charset=hex", "application/json"),
        ("application/json; a*=bogus''x", "application/json"),
    ],
)
def test_utf_8_is_taken_out(given_type: str, seen: str) -> None:
    assert plain(given_type) == (seen, False)


@pytest.mark.parametrize(
    "charset", ["hex", "utf-16", "latin1", '"', "", "utf-88", "xutf-8", "utf-8 utf-16"]
)
def test_another_charset_is_refused(charset: str) -> None:
    assert plain(f"application/json; charset={charset}") == ("application/json", True)


@pytest.mark.parametrize(
    "content_type",
    ["a/b; charset=hex", "a/b; charset=idna", "a/b; CHARSET=utf-16", "a/b; charset*=bogus''x"],
)
def test_a_refused_charset_is_a_415(db: None, content_type: str) -> None:
    assert status_of(content_type) == "415 Unsupported Media Type"


def test_a_charset_makes_django_read_no_query_string(db: None) -> None:
    many = "&".join(f"a{number}=1" for number in range(300))
    assert status_of("application/json; charset=utf-8", query=many) == "200 OK"


@given(st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0")))
@example("a/b; a*=bogus''x")
@example("a/b; a*0*=hex''%ff; a*1=b")
@example("a/b; charset=hex")
@example(";;;=;*=;boundary*=x''y;boundary=a*=b")
@example("multipart/form-data; boundary=\"; a*=bogus''x\"")
def test_django_can_read_whatever_is_left(content_type: str) -> None:
    seen, _ = plain(content_type)
    request = WSGIRequest(environ_of("GET", "/", "a=%ff", seen))
    assert request.encoding is None
    assert request.GET["a"] == "\ufffd"
