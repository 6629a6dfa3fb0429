"""Forged, stolen and oddly carried credentials against real processes: one answer for all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from sovereigncore.tests.permission_table import ROUTES
from tests.platform import Platform, running_platform
from tests.rsa_keys import pem_of, rsa_key
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

ME = "/api/v1/auth/me"
OTHER_SECRET = "k8WnYc3HgJd6EaUo1iMq5Nx0Br2SvZtGfPwKyLhCQm7fX2pL9sVb4TzR"
Claims = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: Any, claims: Any, secret: str) -> str:
    """An HS256 token with whatever in it."""
    parts = [b64(json.dumps(part).encode()) for part in (header, claims)]
    mac = hmac.digest(secret.encode(), ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, b64(mac)])


def secret_of(platform: Platform) -> str:
    return platform.environment["JWT_SIGNING_KEYS"].removeprefix("t1:")


def parts_of(token: str) -> tuple[Claims, Claims]:
    header: Claims = jwt.get_unverified_header(token)
    return header, jwt.decode(token, options={"verify_signature": False})


def check_refused(http: httpx2.Client, authorization: str, path: str = ME) -> None:
    """The same 401 whatever was wrong."""
    reply = http.get(path, headers={"Authorization": authorization})
    assert reply.status_code == httpx2.codes.UNAUTHORIZED, (authorization, reply.text)
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["code"] == "invalid_credentials"


@pytest.fixture
def pair(platform: Platform) -> dict[str, str]:
    return platform.log_in(platform.register(f"holder-{uuid.uuid4().hex[:8]}"))


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx2.Client]:
    with platform.client() as client:
        yield client


@pytest.fixture
def key(platform: Platform, pair: dict[str, str]) -> str:
    with platform.client(pair["access_token"]) as client:
        made = client.post("/api/v1/keys", json={"name": "k", "scopes": ["read", "write"]})
    assert made.status_code == httpx2.codes.CREATED, made.text
    return str(made.json()["key"])


# --- Forged tokens ---------------------------------------------------------------------------


def forgeries(pair: dict[str, str], others: dict[str, str], secret: str) -> Iterator[str]:
    """What an attacker can make of a token of theirs, without and even with the secret."""
    header, claims = parts_of(pair["access_token"])
    _, theirs = parts_of(others["access_token"])
    good = pair["access_token"]
    head, body, mac = good.split(".")
    for alg in ("none", "None", "NONE", "nOnE", "", None, "HS384", "HS512", "RS256", "ES256"):
        unsigned = sign({**header, "alg": alg}, claims, secret).rpartition(".")[0]
        yield from (f"{unsigned}.", f"{unsigned}.{mac}", unsigned)
        yield sign({**header, "alg": alg}, claims, secret)
    for kid in ("", "t2", "../../../dev/null", "/dev/null", "' OR 1=1 --", None, ["t1"], 0):
        yield from (sign({**header, "kid": kid}, claims, key) for key in (secret, "", OTHER_SECRET))
    further: list[Claims] = [
        {"jku": "http://127.0.0.1:9/jwks.json"},
        {"jwk": {"kty": "oct", "k": b64(OTHER_SECRET.encode())}},
        {"x5u": "http://127.0.0.1:9/cert.pem"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
    ]
    for more in further:
        yield from (sign({**header, **more}, claims, key) for key in (secret, OTHER_SECRET))
    for typ in ("JWT", "rt+jwt", "AT+JWT", "", None, ["at+jwt"]):
        yield sign({**header, "typ": typ}, claims, secret)
    now = int(time.time())
    for abuse in (
        *({"aud": "other"}, {"aud": ["sovereigncore"]}, {"aud": None}),
        *({"iss": "http://evil.example"}, {"iss": claims["iss"] + "/"}, {"iss": None}),
        *({"exp": now - 1}, {"exp": 0}, {"exp": "tomorrow"}, {"exp": 10**400}, {"exp": None}),
        *({"nbf": now + 3600}, {"iat": now + 3600}, {"epoch": 1}, {"epoch": -1}, {"epoch": None}),
        *({"sub": theirs["sub"]}, {"sid": theirs["sid"]}, {"sid": "x' OR '1'='1"}, {"sub": 1}),
        *({"token_type": "refresh"}, {"jti": None}, {"scope": None}),
    ):
        yield sign(header, {**claims, **abuse}, secret)
    for guess in (OTHER_SECRET, "", "secret", "t1"):
        yield sign(header, claims, guess)
    yield from (good[:end] for end in range(1, len(good), 23))
    yield from (
        f"{head}.{body}.{mac}{tail}" for tail in ("=", "A", ".", f" {mac}", f".{mac}", "," + good)
    )
    yield from (f"{mac}.{body}.{head}", f"{head}..{mac}", "..", "a.b.c", "null", "x" * 4000)
    yield pair["refresh_token"]
    deep = b64(b"[" * 800 + b"]" * 800)
    yield f"{deep}.{deep}.{deep}"


def test_no_forged_token_is_accepted(
    platform: Platform, http: httpx2.Client, pair: dict[str, str]
) -> None:
    others = platform.log_in(platform.register(f"other-{uuid.uuid4().hex[:8]}"))
    secret = secret_of(platform)
    header, claims = parts_of(pair["access_token"])
    ours = http.get(ME, headers={"Authorization": f"Bearer {sign(header, claims, secret)}"})
    assert ours.status_code == httpx2.codes.OK, "or every forgery would fail for another reason"
    tried = list(forgeries(pair, others, secret))
    assert len(tried) > 100
    for token in tried:
        check_refused(http, f"Bearer {token}")
        if token != pair["refresh_token"]:
            spent = http.post("/api/v1/auth/token/refresh", json={"refresh_token": token})
            assert spent.status_code == (400 if len(token) > 4096 else 401), token
    assert http.get(ME, headers={"Authorization": f"Bearer {pair['access_token']}"}).is_success


def test_a_published_key_signs_nothing(live_stub: StubEngine) -> None:
    """RS256 taken for HS256, with the public key in each form that an attacker may have it."""
    with running_platform(
        live_stub, JWT_ALGORITHM="RS256", JWT_SIGNING_KEYS=f"r1:{pem_of(rsa_key('a'))}"
    ) as platform:
        token = platform.register_and_log_in("reader")
        header, claims = parts_of(token)
        with platform.client() as http:
            assert http.get(ME, headers={"Authorization": f"Bearer {token}"}).is_success
            (published,) = http.get("/.well-known/jwks.json").json()["keys"]
            public = RSAAlgorithm.from_jwk(published)
            assert isinstance(public, RSAPublicKey)
            pem, der = (
                public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
                for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
            )
            text = pem.decode()
            materials = [text, text.strip(), text.replace("\n", "\r\n"), der.decode("latin-1")]
            for material in (*materials, published["n"], json.dumps(published)):
                for alg in ("HS256", "RS256"):
                    forged = sign({**header, "alg": alg}, claims, material)
                    check_refused(http, f"Bearer {forged}")


# --- Where credentials are looked for --------------------------------------------------------

INJECTIONS = (
    *("' OR '1'='1", "' OR 1=1 --", "'; DROP TABLE accounts_user; --", '" OR ""="', "\\' OR 1=1 #"),
    *("1 UNION SELECT * FROM accounts_apikey", "%", "_" * 43, "*", "sk-%", "sk-' OR '1'='1"),
    *(
        "sk-" + "_" * 43,
        "sk-'; DROP TABLE accounts_apikey; --",
        "$ne",
        '{"$gt":""}',
        "%s%n",
        "\\x00",
    ),
)


def test_sql_in_headers_finds_nothing(
    platform: Platform, http: httpx2.Client, pair: dict[str, str], key: str
) -> None:
    for text in INJECTIONS:
        for form in ("Bearer {}", "bearer {}", "Basic {}", "Token {}", "{}", "Bearer {},{}"):
            check_refused(http, form.format(text, text))
        for name in ("X-API-Key", "X-Forwarded-For", "User-Agent", "X-Request-ID", "Cookie"):
            reply = http.get(ME, headers={name: text})
            assert reply.status_code == httpx2.codes.UNAUTHORIZED
    for credential in (pair["access_token"], key):
        assert http.get(ME, headers={"Authorization": f"Bearer {credential}"}).is_success


def test_credentials_that_begin_alike_are_different(
    platform: Platform, http: httpx2.Client, pair: dict[str, str], key: str
) -> None:
    for credential in (key, pair["access_token"]):
        last = "A" if credential[-3] != "A" else "B"
        for changed in (
            *(credential[:-1], credential[: len(credential) // 2], credential + "A"),
            *(credential[:-3] + last + credential[-2:], credential.swapcase(), credential.lower()),
        ):
            check_refused(http, f"Bearer {changed}")
    check_refused(http, f"Bearer sk-{hashlib.sha256(key.encode()).hexdigest()}")


def test_a_credential_counts_in_its_one_place_only(
    http: httpx2.Client, pair: dict[str, str], key: str
) -> None:
    for credential in (pair["access_token"], key):
        basic = base64.b64encode(f"{credential}:".encode()).decode()
        query = dict.fromkeys(("access_token", "api_key", "token"), credential)
        for headers in (
            {},
            {"X-API-Key": credential, "X-Auth-Token": credential},
            {"Proxy-Authorization": f"Bearer {credential}"},
            {"Cookie": f"access_token={credential}; sessionid={credential}"},
        ):
            reply = http.get(ME, params=query, headers=headers)
            assert reply.status_code == httpx2.codes.UNAUTHORIZED, headers
            assert reply.json()["code"] == "not_authenticated"
        for authorization in (f"Basic {basic}", f"Token {credential}", credential):
            check_refused(http, authorization)


def test_a_key_and_a_token_of_the_same_scopes_are_told_the_same(
    platform: Platform, pair: dict[str, str], key: str
) -> None:
    nowhere = str(uuid.uuid4())
    told: list[dict[str, int]] = []
    for credential in (pair["access_token"], key):
        with platform.client(credential) as http:
            told.append(
                {
                    name: http.get(path).status_code
                    for name, route in ROUTES.items()
                    for path in [_somewhere(route.path, nowhere)]
                }
            )
    assert told[0] == told[1]
    assert {200, 403, 404, 405} <= set(told[0].values())


def _somewhere(path: str, uuid_text: str) -> str:
    return "/".join(uuid_text if part.startswith("{") else part for part in path.split("/"))
