"""Callers for Locust: people who log in, look around, ask and stream, and programs with a key.

Each caller makes an account of its own when it begins and erases it when it ends, so the server has
to let anybody register, and its limits have to be as high as the load is to be: see
docs/how-to/test.md. A request that is refused is a failure here, whatever the reason.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import uuid
from typing import Any

from locust import HttpUser, between
from locust.exception import StopUser

API = "/api/v1"
CHAT = "/v1/chat/completions"
# Between two things that a caller does, on the average.
PAUSE_S = float(os.environ.get("LOAD_PAUSE_S", "1"))
_BUSY = 503
# Few passwords are hashed at once, and callers begin together.
_ATTEMPTS = 30


class Caller(HttpUser):  # type: ignore[misc]
    """One with an account, and what all of them do."""

    abstract = True
    wait_time = between(PAUSE_S / 2, PAUSE_S * 3 / 2)

    def on_start(self) -> None:
        self.username = f"load-{uuid.uuid4().hex[:16]}"
        self.password = f"Aa1-{secrets.token_urlsafe(12)}"
        address = f"{self.username}@load.invalid"
        form = {"username": self.username, "email": address, "password": self.password}
        self.hashing(f"{API}/users/register", json=form)
        self.log_in()

    def on_stop(self) -> None:
        self.hashing(f"{API}/users/me", method="DELETE", json={"current_password": self.password})

    def log_in(self) -> None:
        form = {"username": self.username, "password": self.password}
        self.pair = self.hashing(f"{API}/auth/token", data=form)
        self.show(self.pair["access_token"])

    def show(self, credential: str) -> None:
        self.client.headers["Authorization"] = f"Bearer {credential}"

    def hashing(self, path: str, *, method: str = "POST", **body: Any) -> dict[str, Any]:
        """What hashes a password is told to come again while others do; that is no failure."""
        for _ in range(_ATTEMPTS):
            with self.client.request(method, path, catch_response=True, **body) as reply:
                if reply.status_code != _BUSY:
                    break
                reply.success()
            time.sleep(int(reply.headers["Retry-After"]))
        if not reply.ok:
            raise StopUser
        return dict(reply.json()) if reply.content else {}

    def stream(self, path: str, body: dict[str, Any], *, last: str) -> None:
        """Read to the end, which has to be `last`; the time that is told is that of the whole."""
        name = f"{path} (stream)"
        started_s = time.perf_counter()
        with self.client.post(
            path, json={**body, "stream": True}, name=name, stream=True, catch_response=True
        ) as reply:
            if not reply.ok:
                reply.failure(f"status {reply.status_code}")
                return
            lines = [line for line in reply.iter_lines(decode_unicode=True) if line]
            reply.request_meta["response_time"] = 1000 * (time.perf_counter() - started_s)
            if last not in lines[-2:]:
                reply.failure(f"ends with {lines[-1:]}")


class Person(Caller):
    """With a login, as the console has it."""

    weight = 3

    def look_around(self) -> None:
        self.client.get(f"{API}/consciousness/state")
        self.client.get(
            f"{API}/consciousness/queries?limit=20", name=f"{API}/consciousness/queries"
        )
        self.client.get(f"{API}/usage")

    def ask(self) -> None:
        question = {"prompt": f"Count to 5. {uuid.uuid4()}", "max_tokens": 50}
        self.client.post(f"{API}/consciousness/process", json=question)

    def ask_for_a_stream(self) -> None:
        question = {"prompt": f"Count to 20. {uuid.uuid4()}", "max_tokens": 100}
        self.stream(f"{API}/consciousness/process", question, last="event: done")

    def refresh(self) -> None:
        old = {"refresh_token": self.pair["refresh_token"]}
        with self.client.post(f"{API}/auth/token/refresh", json=old, catch_response=True) as reply:
            if reply.ok:
                self.pair = reply.json()
                self.show(self.pair["access_token"])

    def leave_and_come_back(self) -> None:
        self.client.post(f"{API}/auth/logout")
        self.log_in()

    # How often each is done beside the others.
    tasks = {look_around: 4, ask: 3, ask_for_a_stream: 2, refresh: 1, leave_and_come_back: 1}


class Program(Caller):
    """With an API key, by OpenAI's protocol."""

    weight = 1

    def on_start(self) -> None:
        super().on_start()
        wanted = {"name": "load", "scopes": ["read", "write"]}
        self.show(self.client.post(f"{API}/keys", json=wanted).json()["key"])
        self.model = self.client.get("/v1/models").json()["data"][0]["id"]

    def chat(self, text: str) -> dict[str, Any]:
        said = {"role": "user", "content": f"{text} {uuid.uuid4()}"}
        return {"model": self.model, "messages": [said], "max_tokens": 50}

    def talk(self) -> None:
        with self.client.post(CHAT, json=self.chat("Count to 5."), catch_response=True) as reply:
            if reply.ok and not json.loads(reply.content)["choices"]:
                reply.failure("no choice")

    def talk_in_a_stream(self) -> None:
        self.stream(CHAT, self.chat("Count to 20."), last="data: [DONE]")

    tasks = {talk: 2, talk_in_a_stream: 1}
