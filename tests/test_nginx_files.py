"""What `deploy/nginx` and the platform have in common; `make rehearse` asks nginx itself."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER

from sovereigncore import forwarding, web_worker
from tests.migrated import ROOT

pytestmark = pytest.mark.once

_FOLDER = ROOT / "deploy/nginx"


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _seconds(name: str, directive: str) -> float:
    (value,) = re.findall(rf"^ *{directive} (\d+)s;$", _read(name), flags=re.MULTILINE)
    return float(value)


def test_no_header_of_a_proxy_gets_through_from_a_caller() -> None:
    """The platform believes what nginx sends it, and drops these only from others."""
    replaced = dict(
        re.findall(r"^proxy_set_header (\S+) (\S+);$", _read("proxy.conf"), re.MULTILINE)
    )
    as_wsgi = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in replaced.items()}
    assert set(forwarding._BY_A_PROXY) <= set(as_wsgi)
    kept = {name for name, value in as_wsgi.items() if value != '""'}
    assert {name for name in kept if forwarding.is_by_a_proxy(name)} == {
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_FORWARDED_PROTO",
    }
    assert replaced["X-Forwarded-For"] == "$remote_addr"
    assert replaced["X-Forwarded-Proto"] == "$scheme"


def test_nginx_lets_go_of_idle_connections_before_the_web_process_does() -> None:
    """Or it would send a request to one that is closing, and a POST could not be repeated."""
    config = (ROOT / "gunicorn.conf.py").read_text()
    (keepalive,) = re.findall(r"^keepalive = (\d+)$", config, flags=re.MULTILINE)
    assert _seconds("upstream.conf", "keepalive_timeout") < min(
        STOP_KEEPALIVE_LINGER, float(keepalive)
    )


def test_nginx_waits_longer_than_an_answer_takes() -> None:
    one_try_s = settings.QUEUE_TIMEOUT_S + settings.ENGINE_TOTAL_TIMEOUT_S
    longest_s = settings.QUEUE_TIMEOUT_S + settings.ENGINE_FIRST_TOKEN_TIMEOUT_S + one_try_s
    assert _seconds("proxy.conf", "proxy_read_timeout") > longest_s
    assert _seconds("nginx.conf", "worker_shutdown_timeout") > longest_s


def test_nginx_takes_a_little_more_than_the_platform() -> None:
    """So that most bodies that are too large are refused in the platform's own words."""
    sizes = re.findall(r"client_(?:max_body_size|body_buffer_size) (\d+)k;", _read("nginx.conf"))
    assert len(set(sizes)) == 1, "what is taken is kept in memory"
    assert 1 < int(sizes[0]) * 1024 / web_worker.MAX_BODY_BYTES < 1.1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:a:b:c:d", "2001:db8:1:2:"),
        ("2001:db8:1:2::d", "2001:db8:1:2:"),
        ("2001:db8:1::d", "2001:db8:1::"),
        ("2001:db8::a:b:c:d", "2001:db8::"),
        ("2001:db8::d", "2001:db8::"),
        ("::1", "::1"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
    ],
)
def test_a_64_of_ipv6_counts_as_one_address(address: str, network: str) -> None:
    """By the regular expressions of the map, which nginx tries in their order."""
    inside = _read("nginx.conf").partition("map $remote_addr $network {")[2].partition("\n    }")[0]
    patterns = re.findall(r'"~(\S+)" \$prefix;', inside)
    assert len(patterns) == 2
    matches = (re.search(each.replace("?<", "?P<"), address) for each in patterns)
    assert next((found["prefix"] for found in matches if found), address) == network


def test_its_own_answers_have_the_platforms_headers() -> None:
    told = dict(
        re.findall(
            r'^add_header (\S+) "?([^"]+?)"? always;$', _read("refusal_headers.conf"), re.MULTILINE
        )
    )
    assert told["Referrer-Policy"] == settings.SECURE_REFERRER_POLICY
    assert told["X-Frame-Options"] == settings.X_FRAME_OPTIONS
    assert told["Strict-Transport-Security"] == f"max-age={365 * 24 * 3600}"
    assert told["X-Content-Type-Options"] == "nosniff"
    assert told["Cross-Origin-Opener-Policy"] == "same-origin"
