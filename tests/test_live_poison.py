"""What breaks parsers, sent to everything that reads: refused as a caller's mistake, and forgotten.

Every route of the permission table gets all of it, over HTTP; afterwards lists still read and the
log tells of no bug.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import statistics
import time
import uuid
from collections.abc import Iterator

import httpx2
import pytest

from sovereigncore.tests.permission_table import ADMIN_PAGES, ROUTES
from sovereigncore.tests.test_mass_assignment import BODIES
from tests.platform import PASSWORD, Platform

pytestmark = pytest.mark.xdist_group(__name__)

LISTS = ("/api/v1/keys", "/api/v1/auth/sessions", "/api/v1/consciousness/queries")
READS_NO_BODY = {"logout", "sessions", "queries-list"}  # deleting what is asked for all the same
_A_REFUSAL_S = 1.0

TEXT_FIELDS = ("username", "email", "password", "full_name", "token", "current_password", "name")

JSON_POISON: dict[str, bytes] = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep, never closed": b'{"email":' + b"[" * 100_000,
    "NUL": b'{"username": "a\\u0000b", "email": "\\u0000"}',
    "raw NUL": b'{"username": "a\x00b"}',
    "lone surrogate": b'{"username": "\\ud800", "full_name": "\\udfff"}',
    "surrogate name": b'{"\\udfff": 1}',
    "no UTF-8": b'{"username": "\xff\xfe"}',
    "UTF-16": '{"username": "alice"}'.encode("utf-16"),
    "401 digits": b'{"daily_token_quota": 1' + b"0" * 400 + b"}",
    "1e400": b'{"temperature": 1e400, "daily_token_quota": -1e400}',
    "NaN": b'{"temperature": NaN}',
    "a list": b'[{"username": "alice"}]',
    "text": b'"alice"',
    "null": b"null",
    "a number": b"5",
    "cut off": b'{"username": "alice',
    "two values": b"{} {}",
    "ten thousand names": json.dumps({f"n{number}": 1 for number in range(10_000)}).encode(),
    "a long name": b'{"' + b"x" * 500_000 + b'": 1}',
    "arrays for text": json.dumps({name: ["x"] for name in TEXT_FIELDS}).encode(),
    "objects for text": json.dumps({name: {"$ne": ""} for name in TEXT_FIELDS}).encode(),
}
# Databases differ in what they store. All else is refused before one is asked.
_FOR_DATABASES = (
    *("NUL", "raw NUL", "lone surrogate", "surrogate name", "401 digits", "1e400", "NaN"),
    "objects for text",
)
NAUGHTY = (  # few: some make a password be hashed
    *("' OR 1=1 --", "${jndi:ldap://127.0.0.1/a}{{7*7}}%s%n", "\u202ea\r\nSet-Cookie: a=b\x1b[31m"),
    *("\ufdfa" * 99, "\ufffe\uffff\U0010ffff\u2028", "0" * 9999, "Ṱ̺̺̕o͞ ̷i̲̬͇̪͙ 👩‍👩‍👧‍👦", '"\\"\u00a0'),
)


@pytest.fixture(scope="module")
def member(_session_platform: Platform) -> str:
    return _session_platform.register_and_log_in(f"poisoner-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def http(platform: Platform, member: str) -> Iterator[httpx2.Client]:
    with platform.client(member) as client:
        yield client
        for path in LISTS:
            assert client.get(path).status_code == httpx2.codes.OK
    bugs = [line for line in platform.log_lines() if '"unhandled_error"' in line]
    assert bugs == []


def places(path: str) -> str:
    """`path` with an id or a name of nothing in it."""
    return re.sub(r"\{(\w+)\}", lambda found: "nobody" if found[1] == "name" else NOBODY, path)


NOBODY = str(uuid.uuid4())
WRITES = [
    (method, places(route.path))
    for name, route in ROUTES.items()
    if name not in READS_NO_BODY
    for method in ("POST", "PUT", "PATCH", "DELETE")
    if method in route.methods
]
READS = [places(route.path) for route in ROUTES.values() if "GET" in route.methods]


def check_refused(reply: httpx2.Response, what: str) -> None:
    assert 400 <= reply.status_code < 500, (what, reply.status_code, reply.text[:300])


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(poison, id=name, marks=() if name in _FOR_DATABASES else pytest.mark.once)
        for name, poison in JSON_POISON.items()
    ],
)
def test_json_that_breaks_parsers(http: httpx2.Client, poison: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    times_s = []
    for method, path in WRITES:
        started_s = time.perf_counter()
        reply = http.request(method, path, content=poison, headers=headers)
        times_s.append(time.perf_counter() - started_s)
        check_refused(reply, f"{method} {path}")
        assert len(reply.content) < 20_000, "it does not repeat what it was sent"
    assert statistics.median(times_s) < _A_REFUSAL_S


def test_text_that_breaks_what_reads_it(http: httpx2.Client) -> None:
    for text in NAUGHTY:
        for name, body in BODIES.items():
            naughty = {
                field: text if isinstance(value, str) else value for field, value in body.items()
            }
            for method in set(ROUTES[name].methods) & {"POST", "PATCH"}:
                reply = http.request(method, ROUTES[name].path.format(name="nobody"), json=naughty)
                assert reply.status_code < 500, (name, text[:20], reply.text[:300])


@pytest.mark.once
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"username=%00&password=%00"),
        ("application/x-www-form-urlencoded", b"username=%ED%A0%80&password=x"),
        ("application/x-www-form-urlencoded", b"username=%FF%FE&password=%C0%80"),
        ("application/x-www-form-urlencoded", b"username=a&username=b&password=x"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(10_000))),
        ("application/x-www-form-urlencoded", b"&" * 100_000),
        ("application/x-www-form-urlencoded; charset=utf-7", b"username=+AGE-&password=x"),
        ("application/json; charset=utf-16", b"{}"),
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na"),
        ("multipart/form-data; boundary=" + "x" * 500, b"--x"),
        ("application/xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        ("text/plain", b"{}"),
        ("\xff\xfe", b"{}"),
        ("", b"{}"),
    ],
)
def test_forms_and_types_that_are_not_ours(
    http: httpx2.Client, content_type: str, body: bytes
) -> None:
    headers = {b"Content-Type": content_type.encode("latin-1")}
    for method, path in WRITES:
        reply = http.request(method, path, content=body, headers=headers)
        check_refused(reply, f"{method} {path}")


@pytest.mark.once
def test_bombs_and_bodies_without_end(platform: Platform, http: httpx2.Client) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    for method, path in WRITES:
        encoded = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        reply = http.request(method, path, content=bomb, headers=encoded)
        assert reply.status_code == httpx2.codes.UNSUPPORTED_MEDIA_TYPE, path
        # By its header only: nobody has to read twenty megabytes to refuse them.
        for promised in ("Content-Length: 20971520", "Content-Length: 99999999999999999999"):
            assert _status_of(platform, method, path, promised) == 413, path
        assert _status_of(platform, method, path, "Transfer-Encoding: chunked") == 411, path


def _status_of(platform: Platform, method: str, path: str, header: str) -> int:
    with socket.create_connection(("127.0.0.1", platform.port), 30) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\n{header}\r\n\r\n".encode()
        )
        return int(connection.makefile("rb").readline().split()[1])


QUERIES = (
    *("search=%00", "search=%ED%A0%80", "search=" + "x" * 3000, "search[]=a", "search=a&search=b"),
    *("cursor=%00", "cursor=x", "cursor=" + "A" * 2000, "limit=0", "limit=1e9", "limit=-1"),
    *(
        "limit=99999999999999999999",
        "limit=%D9%A1",
        "token=%00",
        "token=%FF",
        "token=" + "x" * 3000,
    ),
    *("next=//evil.example", "q=%00", "a=1&" * 900, "%00=%00", "=&=&", "format=xml", "page=x"),
)


def test_query_strings_that_break_what_reads_them(http: httpx2.Client) -> None:
    for path in READS:
        for query in QUERIES:
            reply = http.get(f"{path}?{query}")
            # Readiness is 503 by right while no engine answers; here one does.
            assert reply.status_code < 500, (path, query, reply.text[:300])


def test_paths_that_break_what_reads_them(http: httpx2.Client) -> None:
    for _, path in WRITES:
        if NOBODY not in path and "nobody" not in path:
            continue
        for part in ("%00", "%0d%0a", "%ED%A0%80", "..%2f..", "x" * 3000, "'%20OR%201=1", "%2e"):
            odd = path.replace(NOBODY, part).replace("nobody", part)
            reply = http.delete(odd)
            assert reply.status_code in range(400, 500), (odd, reply.status_code)


# --- Pages and the admin site ----------------------------------------------------------------

FORM_POISON = (
    *("\x00", "a\x00b", "\ufdfa" * 99, "x" * 100_000, "\u202e", "' OR 1=1 --", "\U0010ffff"),
    *("<script>", "{{7*7}}", "%s%n"),
)
PAGES = ("/register", "/password-reset", "/password-reset/confirm", "/verify-email")


def test_forms_of_pages(http: httpx2.Client) -> None:
    token = _csrf_token(http, "/password-reset")
    for path in (*PAGES, "/email-change/confirm"):
        for text in FORM_POISON:
            form = {"csrfmiddlewaretoken": token, "no_such_field": text}
            form |= dict.fromkeys(("username", "email", "password", "full_name", "token"), text)
            check_refused(http.post(path, data=form), f"{path} {text[:10]!r}")
        raw = f"csrfmiddlewaretoken={token}&email=%ED%A0%80&username=%FF&token=%C0%80&password=%00"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        check_refused(http.post(path, content=raw, headers=headers), path)


def _csrf_token(http: httpx2.Client, path: str) -> str:
    token, *_ = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', http.get(path).text)
    return str(token)


@pytest.fixture
def admin(platform: Platform) -> Iterator[httpx2.Client]:
    """A browser in which a superuser is logged in to the admin site."""
    name = f"admin-{uuid.uuid4().hex[:8]}"
    code = (
        "from accounts.models import User;"
        f"User.objects.create_superuser('{name}', '{name}@example.org', '{PASSWORD}')"
    )
    made = platform.manage("shell", "--no-imports", "-c", code)
    assert made.returncode == 0, made.stderr
    with platform.client() as browser:
        form = {"username": name, "password": PASSWORD}
        form["csrfmiddlewaretoken"] = _csrf_token(browser, "/admin/login/")
        assert browser.post("/admin/login/", data=form).status_code == httpx2.codes.FOUND
        assert browser.get("/admin/").status_code == httpx2.codes.OK
        yield browser


def test_the_admin_site(http: httpx2.Client, admin: httpx2.Client) -> None:
    odd = ("q=%00", "q=%ED%A0%80", "_popup=%00", "_to_field=password", "_changelist_filters=%00")
    of_lists = (
        *("q=" + "x" * 3000, "q='%20OR%201=1", "p=x", "p=-1", "p=99999999", "o=x", "o=99.-99"),
        *("is_active__exact=x", "is_active__exact=%00", "e=1", "all=x", "_facets=x"),
        *("username__startswith=a", "password__startswith=b", "id__exact=x", "user__id__exact=%00"),
    )
    for name, page in ADMIN_PAGES.items():
        path = places(page.path)
        for query in (*odd, *(of_lists if name.endswith("_changelist") else ())):
            reply = admin.get(f"{path}?{query}")
            assert reply.status_code < 500, (path, query)
        if "{" in page.path:
            for part in ("%00", "x", "'", "_00", "_5F_5f", "x" * 3000, "%ED%A0%80", "99"):
                reply = admin.get(re.sub(r"\{\w+\}", part, page.path))
                assert reply.status_code < 500, (page.path, part)
    token = _csrf_token(admin, "/admin/accounts/user/add/")
    for text in FORM_POISON:
        form = {"csrfmiddlewaretoken": token, "action": text, "_selected_action": text}
        for path in (
            "/admin/accounts/user/",
            "/admin/accounts/session/",
            "/admin/accounts/apikey/",
        ):
            assert admin.post(path, data=form).status_code < 500, (path, text[:10])
        new = dict.fromkeys(("username", "email", "password1", "password2"), text)
        reply = admin.post("/admin/accounts/user/add/", data={**new, "csrfmiddlewaretoken": token})
        assert reply.status_code < 500, text[:10]
        login = {"username": text, "password": text}
        login["csrfmiddlewaretoken"] = _csrf_token(http, "/admin/login/")
        assert http.post("/admin/login/", data=login).status_code < 500, text[:10]
