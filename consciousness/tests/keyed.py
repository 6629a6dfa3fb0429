"""Requests that carry an `Idempotency-Key`."""

from __future__ import annotations

from typing import Any

from rest_framework.test import APIClient

from consciousness.models import IdempotentRequest
from consciousness.tests.asking import PROCESS

KEY = "a-key-of-a-caller-0001"
CONVERSATIONS = "/api/v1/consciousness/conversations"
COUNT = {"prompt": "Count to 3"}
STREAM = {**COUNT, "stream": True}


def send(client: APIClient, body: Any = COUNT, key: str = KEY, path: str = PROCESS) -> Any:
    return client.post(path, body, headers={"Idempotency-Key": key})


def is_replay(response: Any) -> bool:
    told = response.get("Idempotent-Replayed")
    assert told in (None, "true")
    return told is not None


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def the_key_is_free() -> bool:
    return not IdempotentRequest.objects.exists()
