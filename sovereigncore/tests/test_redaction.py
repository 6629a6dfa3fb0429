"""What is cut out of lines: known secrets, what looks like one, rows that a database quotes."""

from __future__ import annotations

import logging

import orjson
import pytest
import structlog
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, transaction
from hypothesis import example, given
from hypothesis import strategies as st

from accounts.models import User
from sovereigncore.redaction import REDACTED, Redactor, cut_fields, cut_traceback
from tests.log_capture import LogCapture

log = structlog.get_logger("tests.redaction")


@pytest.mark.parametrize(
    "secret", ["s3cr3t-canary", 'with "quotes" and \\', "p@ss/w?rd", "päss-wörd"]
)
def test_a_known_secret_is_cut_out_of_any_line(secret: str) -> None:
    redactor = Redactor([secret, ""])
    for text in (secret, f"before {secret} after", f"{secret}{secret}"):
        line = redactor.cut(orjson.dumps({"event": text, text: [text]}).decode())
        assert orjson.loads(line)  # still JSON
        assert secret not in str(orjson.loads(line))


@pytest.mark.parametrize("word", ["ollama", "sovereigncore", "a1b2", ""])
def test_a_password_that_is_just_a_word_does_not_spoil_the_log(word: str) -> None:
    line = f'{{"event":"started {word}","logger":"sovereigncore.middleware"}}'
    assert Redactor([word]).cut(line) == line


def test_a_known_password_is_found_as_urls_write_it() -> None:
    assert "p%40ss%2Fword" not in Redactor(["p@ss/word"]).cut("postgres://u:p%40ss%2Fword@h/d")
    assert "p@ss/word" not in Redactor(["p%40ss%2Fword"]).cut("password is p@ss/word")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("redis://:hunter2@127.0.0.1:6379/0", f"redis://{REDACTED}@127.0.0.1:6379/0"),
        ("postgres://me:hunter2@db/app is away", f"postgres://{REDACTED}@db/app is away"),
        ("host=db password=hunter2 user=me", f"host=db password={REDACTED} user=me"),
        ("Authorization: Bearer abcdef123456", f"Authorization: Bearer {REDACTED}"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln", f"got {REDACTED}"),
        ("/api/v1/keys/sk-abcdefgh12345678", f"/api/v1/keys/{REDACTED}"),
        ("http://127.0.0.1:8529/v1/models", "http://127.0.0.1:8529/v1/models"),
        ("task-force, ask-me", "task-force, ask-me"),
    ],
)
def test_what_looks_like_a_secret_is_cut_and_nothing_else(text: str, left: str) -> None:
    assert Redactor().cut(text) == left


@given(st.text(), st.text(min_size=6))
@example("\x10", "000000")  # an escape that ends as the secret begins
@example("\n12345", "n12345")
@example('00000"', "00000\\")
def test_a_line_of_json_stays_one(text: str, secret: str) -> None:
    line = Redactor([secret]).cut(orjson.dumps({"event": text + secret}).decode())
    orjson.loads(line)


def test_fields_with_names_of_secrets_hold_numbers_only(logs: LogCapture) -> None:
    told = {
        "password": "canary-1",
        "api_key": ["canary-2"],
        "Set-Cookie": "canary-3",
        "inner": {"otp_seed": "canary-4", "kind": "kept"},
        "prompt_tokens": 7,
        "is_token": True,
    }
    log.info("tested", **told)
    (event,) = logs.events()
    assert "canary" not in logs.text
    assert (event["prompt_tokens"], event["is_token"], event["inner"]["kind"]) == (7, True, "kept")
    assert cut_fields({"secret": None}) == {"secret": None}


def test_other_peoples_loggers_are_cut_too(logs: LogCapture) -> None:
    error = OSError("no route to redis://user:hunter2@127.0.0.1")
    logging.getLogger("foreign").error("with Bearer hunter2hunter2", exc_info=error)
    assert "hunter2" not in logs.text
    (event,) = logs.events()
    assert "no route to redis://[redacted]@127.0.0.1" in event["exception"]


def test_this_installations_own_secrets_are_known(logs: LogCapture) -> None:
    (signing_key,) = settings.JWT_KEYS.values()
    own = [settings.SECRET_KEY, settings.AUDIT_KEY, settings.ENGINE_API_KEY, signing_key.private]
    for secret in own:
        error = OperationalError(f"connection refused: postgresql://app/?key={secret}")
        log.error("failed", exc_info=error, quoted=secret)
    assert len(logs.events("failed")) == len(own)
    assert "connection refused" in logs.text
    assert [secret for secret in own if str(secret) in logs.text] == []


def test_a_traceback_does_not_quote_the_rows_of_the_database(alice: User, logs: LogCapture) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        User.objects.create_user("another", alice.email, "x")
    log.error("failed", exc_info=caught.value)
    assert alice.email not in logs.text
    (event,) = logs.events()
    word = "UniqueViolation" if connection.vendor == "postgresql" else "UNIQUE constraint failed"
    assert word in event["exception"]


def test_what_postgresql_quotes_is_cut() -> None:
    text = (
        "psycopg.errors.UniqueViolation: duplicate key\nDETAIL:  Key (a)=(canary) exists.\n"
        "LINE 1: SELECT 'canary'\n               ^\n"
        'DataError: invalid input syntax for type uuid: "canary"\nTraceback'
    )
    cut = cut_traceback(text)
    assert "canary" not in cut
    assert "duplicate key" in cut
    assert cut.endswith("Traceback")
