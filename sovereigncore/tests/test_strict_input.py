"""Poisoned input: a clear 4xx each, no 5xx, and the history list still reads afterwards."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness.models import Query
from tests.log_capture import LogCapture
from tests.stub_engine import StubEngine

PROCESS = "/api/v1/consciousness/process"
QUERY = "/api/v1/consciousness/query"
HISTORY = "/api/v1/consciousness/queries"
JSON = "application/json"

MALFORMED: dict[str, bytes] = {
    "cut off": b'{"prompt": "hi"',
    "two values": b'{"prompt": "hi"} {}',
    "single quotes": b"{'prompt': 'hi'}",
    "trailing comma": b'{"prompt": "hi",}',
    "comment": b'{"prompt": "hi"} // hello',
    "bare word": b"prompt",
    "spaces": b"   ",
    "byte order mark": b'\xef\xbb\xbf{"prompt": "hi"}',
    "UTF-16": '{"prompt": "hi"}'.encode("utf-16"),
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "raw surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "escaped surrogate": b'{"prompt": "\\ud800"}',
    "escaped surrogate in a name": b'{"prompt": "hi", "\\udfff": 1}',
    "raw control character": b'{"prompt": "a\x01b"}',
    "raw NUL": b'{"prompt": "a\x00b"}',
    "escaped NUL": b'{"prompt": "a\\u0000b"}',
    "NUL in a name": b'{"prompt": "hi", "\\u0000": 1}',
    "NUL deep inside": b'{"prompt": {"a": ["b", {"c": "\\u0000"}]}}',
    "NaN": b'{"prompt": "hi", "temperature": NaN}',
    "Infinity": b'{"prompt": "hi", "temperature": Infinity}',
    "1e400": b'{"prompt": "hi", "temperature": 1e400}',
    "-1e400": b'{"prompt": "hi", "temperature": -1e400}',
    "401 digits": b'{"prompt": "hi", "max_tokens": 1%s}' % (b"0" * 400),
    "hex": b'{"prompt": "hi", "max_tokens": 0x10}',
    "33 levels": b'{"prompt": %s%s}' % (b"[" * 32, b"]" * 32),
    "33 levels of objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100,000 levels of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 levels, never closed": b'{"prompt":' + b"[" * 100_000,
}

INVALID: dict[str, tuple[Any, str]] = {
    "an array": ([], "request"),
    "text": ("prompt", "request"),
    "a number": (5, "request"),
    "true": (True, "request"),
    "null": (None, "request"),
    "nothing": ({}, "prompt"),
    "prompt null": ({"prompt": None}, "prompt"),
    "prompt number": ({"prompt": 5}, "prompt"),
    "prompt true": ({"prompt": True}, "prompt"),
    "prompt array": ({"prompt": ["hi"]}, "prompt"),
    "prompt object": ({"prompt": {"a": "hi"}}, "prompt"),
    "prompt empty": ({"prompt": ""}, "prompt"),
    "prompt blank": ({"prompt": " \t\n\u3000"}, "prompt"),
    "prompt too long": ({"prompt": "x" * 10_001}, "prompt"),
    "temperature text": ({"prompt": "hi", "temperature": "0.7"}, "temperature"),
    "temperature true": ({"prompt": "hi", "temperature": True}, "temperature"),
    "temperature array": ({"prompt": "hi", "temperature": [0.7]}, "temperature"),
    "temperature low": ({"prompt": "hi", "temperature": -0.01}, "temperature"),
    "temperature high": ({"prompt": "hi", "temperature": 2.01}, "temperature"),
    "temperature huge": ({"prompt": "hi", "temperature": 10**30}, "temperature"),
    "max_tokens zero": ({"prompt": "hi", "max_tokens": 0}, "max_tokens"),
    "max_tokens fraction": ({"prompt": "hi", "max_tokens": 1.0}, "max_tokens"),
    "max_tokens text": ({"prompt": "hi", "max_tokens": "5"}, "max_tokens"),
    "max_tokens true": ({"prompt": "hi", "max_tokens": True}, "max_tokens"),
    "max_tokens high": ({"prompt": "hi", "max_tokens": 4097}, "max_tokens"),
    "max_tokens 2**63": ({"prompt": "hi", "max_tokens": 2**63}, "max_tokens"),
    "max_tokens 10**30": ({"prompt": "hi", "max_tokens": 10**30}, "max_tokens"),
    "stream text": ({"prompt": "hi", "stream": "true"}, "stream"),
    "stream number": ({"prompt": "hi", "stream": 1}, "stream"),
    "store null": ({"prompt": "hi", "store": None}, "store"),
    "model too long": ({"prompt": "hi", "model": "m" * 129}, "model"),
    "unknown field": ({"prompt": "hi", "promtp": "x"}, "promtp"),
    "field of another case": ({"prompt": "hi", "Store": False}, "Store"),
    "dunder": ({"prompt": "hi", "__proto__": {}}, "__proto__"),
}

# From the Big List of Naughty Strings, kinds of text that break something somewhere.
NAUGHTY = (
    "undefined",
    "1;DROP TABLE users",
    "' OR 1=1 -- 1",
    "<script>alert(0)</script>",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "%s%n%x",
    "../../../../etc/passwd",
    "\u202ertl\u200b\ufeff",
    "\r\nSet-Cookie: a=b",
    "\u001b[31mred",
    "a\u2028b\u2029c\u0085d",
    "Ṱ̺̺̕o͞ ̷i̲̬͇̪͙n̝̗͕v̟̜̘̦͟o̶̙̰̠kè͚̮̺̪̹̱̤",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001d57f\U0001d58d\U0001d58a",
    "ﷺ" * 500,
    "\ufffe\uffff\U0010ffff",
    "0" * 10_000,
    '"\\"',
    "```\n</s><|im_end|>",
)


@pytest.fixture(autouse=True)
def _history_still_reads(as_alice: APIClient, logs: LogCapture) -> Iterator[None]:
    yield
    history = as_alice.get(HISTORY)
    assert history.status_code == 200
    assert logs.events("unhandled_error") == []


def refusal_of(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content[:500]
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code
    assert isinstance(body["detail"], str)
    assert len(response.content) < 4096
    assert not Query.objects.exists()
    return body


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_a_400(as_alice: APIClient, body: bytes) -> None:
    refusal_of(as_alice.post(PROCESS, body, content_type=JSON), 400, "malformed_request")


@pytest.mark.parametrize(("body", "field"), INVALID.values(), ids=INVALID)
def test_json_that_is_not_in_the_contract_is_a_422(
    as_alice: APIClient, body: Any, field: str
) -> None:
    response = as_alice.post(PROCESS, json.dumps(body), content_type=JSON)
    refused = refusal_of(response, 422, "validation_error")
    assert list(refused["errors"]) == [field]


def test_a_hundred_unknown_fields_are_answered_in_brief(as_alice: APIClient) -> None:
    body = {"prompt": "hi", **{f"field-{number}-" + "x" * 1000: 1 for number in range(100)}}
    refused = refusal_of(as_alice.post(PROCESS, body), 422, "validation_error")
    assert len(refused["errors"]) == 10


def test_a_prompt_of_a_megabyte_is_too_long_and_a_byte_more_too_large(as_alice: APIClient) -> None:
    frame = len(json.dumps({"prompt": ""}))
    largest = json.dumps({"prompt": "x" * (2**20 - frame)})
    refused = as_alice.post(PROCESS, largest, content_type=JSON)
    assert list(refusal_of(refused, 422, "validation_error")["errors"]) == ["prompt"]
    larger = json.dumps({"prompt": "x" * (2**20 - frame + 1)})
    refusal_of(as_alice.post(PROCESS, larger, content_type=JSON), 413, "body_too_large")


@pytest.mark.parametrize("length", [str(20 * 2**20), "9" * 30, "-1", "+5", "1e3", "5, 5"])
def test_a_body_is_refused_by_its_stated_length(as_alice: APIClient, length: str) -> None:
    """Without reading it: the bodies here are empty, and waiting for 20 MB would hang."""
    response = as_alice.generic("POST", PROCESS, content_type=JSON, CONTENT_LENGTH=length)
    refusal_of(response, 413, "body_too_large")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "gzip, identity"])
def test_a_compressed_body_is_refused(as_alice: APIClient, encoding: str) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"x" * 2**20 + b'"}')
    response = as_alice.post(PROCESS, bomb, content_type=JSON, HTTP_CONTENT_ENCODING=encoding)
    refusal_of(response, 415, "unsupported_encoding")


@pytest.mark.parametrize("encoding", ["chunked", "gzip, chunked", "identity"])
def test_a_chunked_body_is_refused(as_alice: APIClient, encoding: str) -> None:
    extra: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": encoding, "wsgi.input_terminated": True}
    response = as_alice.generic("POST", PROCESS, content_type=JSON, **extra)
    refusal_of(response, 411, "length_required")


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "multipart/form-data; boundary=x", "application/xml", "text/json"),
        *("application/x-www-form-urlencoded", "application/json, text/plain", "a/b/c", "\x7f"),
    ],
)
def test_another_media_type_is_refused(as_alice: APIClient, content_type: str) -> None:
    response = as_alice.generic("POST", PROCESS, '{"prompt": "hi"}', content_type=content_type)
    refusal_of(response, 415, "unsupported_media_type")


def test_refusals_by_headers_come_before_the_question_who_asks(db: None) -> None:
    stranger = APIClient()
    large = stranger.generic("POST", PROCESS, content_type=JSON, CONTENT_LENGTH="20000000")
    refusal_of(large, 413, "body_too_large")


@pytest.mark.parametrize("text", NAUGHTY)
def test_naughty_text_is_text(as_alice: APIClient, stub: StubEngine, text: str) -> None:
    response = as_alice.post(PROCESS, {"prompt": text, "max_tokens": 5})
    assert response.status_code == 200, response.content
    (record,) = stub.ledger
    assert record.body["messages"][-1]["content"] == text.strip()
    (entry,) = as_alice.get(HISTORY).json()["results"]
    assert entry["prompt"] == text.strip()


def test_the_largest_json_of_the_contract_is_accepted(
    as_alice: APIClient, stub: StubEngine
) -> None:
    context: Any = "deep"
    for _ in range(30):
        context = [context]
    body = {"query": "x" * 10_000, "context": {"nested": context}}
    assert as_alice.post(QUERY, body).status_code == 200


@pytest.mark.parametrize(
    "context", [[], 5, True, None, "x" * 10_001, {"a": "x" * 10_001}, {"a": "b\x00"}]
)
def test_context_passes_the_same_filter(as_alice: APIClient, context: Any) -> None:
    response = as_alice.post(QUERY, {"query": "hi", "context": context})
    has_nul = isinstance(context, dict) and "\x00" in context["a"]
    status, code = (400, "malformed_request") if has_nul else (422, "validation_error")
    refusal_of(response, status, code)
