"""People who do everything that people do, each with a secret word in all they ask and keep."""

from __future__ import annotations

import random
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

from tests.chaos.grown import PROCESS, QUERIES, Grown

_WORD = re.compile(r"canary-[0-9a-f]{32}")
CHAT = "/v1/chat/completions"
MEMORIES = "/api/v1/consciousness/memories"
CONVERSATIONS = "/api/v1/consciousness/conversations"
# Keys and questions that all of them use: what one process knows of them must stay its owner's.
_KEYS = [f"everybodys-key-{number}" for number in range(5)]
# What one has at most: who only collects makes each of their own requests larger than the last.
_FACTS, _TURNS = 40, 20


class Person(threading.Thread):
    """`foreign` are the others' words in what was told, `told` the answers looked at. `pause_s`,
    which may be changed, is how long one thinks between two things that one does."""

    def __init__(self, parts: Grown, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.word = f"canary-{uuid.uuid4().hex}"
        self.foreign: list[tuple[str, str]] = []
        self.told: Counter[str] = Counter()
        self.own = 0
        self._http = parts.client(name)
        self._chance = random.Random(seed)
        self._conversation, self._turns = "new", 0
        self._is_over = threading.Event()
        self.pause_s = 0.0

    def run(self) -> None:
        doings = (
            *(self.ask, self.ask_with_a_common_key, self.ask_again, self.chat, self.leave),
            *(self.remember, self.forget, self.converse, self.look),
        )
        while not self._is_over.wait(self.pause_s):
            self.attempt(self._chance.choice(doings))

    def attempt(self, doing: Callable[[], None]) -> None:
        try:
            doing()
        except httpx2.TransportError:
            self.told["broken"] += 1

    def end(self) -> None:
        """Begin nothing more."""
        self._is_over.set()

    # --- what people do ---------------------------------------------------------------------

    def ask(self) -> None:
        self.post(PROCESS, {"prompt": f"My word is {self.word}, and {self._chance.random()}"})

    def ask_with_a_common_key(self) -> None:
        body = {"prompt": f"Of this key my word is {self.word}"}
        self.post(PROCESS, body, {"Idempotency-Key": self._chance.choice(_KEYS)})

    def ask_again(self) -> None:
        """Served from the cache from the second time on; the question is the same for all but for
        the fact that is told with it."""
        self.post(PROCESS, {"prompt": "What is my word?", "temperature": 0})
        self.post(PROCESS, {"prompt": f"Again {self.word}", "temperature": 0})

    def chat(self) -> None:
        messages = [
            {"role": "system", "content": f"The word is {self.word}"},
            {"role": "user", "content": f"Say {self.word}"},
        ]
        self.post(CHAT, {"model": "stub-model", "messages": messages, "temperature": 0})

    def leave(self) -> None:
        """In the middle of a stream."""
        body = {"prompt": f"Count to 30 {self.word} and {self.word}", "stream": True}
        with self._http.stream("POST", PROCESS, json=body) as reply:
            for text in reply.iter_text():
                self.note("stream", text)
                if self._chance.random() < 0.3:
                    return

    def remember(self) -> None:
        if self._chance.random() < 0.5:
            self.post(PROCESS, {"prompt": f"Remember that my word is {self.word}"})
        else:
            self.post(MEMORIES, {"text": f"A fact of {self.word} {self._chance.random()}"})

    def forget(self) -> None:
        """The oldest facts, which come last."""
        facts = self._http.get(f"{MEMORIES}?limit=100").json().get("results", [])
        for fact in facts[_FACTS:]:
            self._http.delete(f"{MEMORIES}/{fact['id']}")

    def converse(self) -> None:
        if self._turns == _TURNS:
            self._http.delete(f"{CONVERSATIONS}/{self._conversation}")
            self._conversation, self._turns = "new", 0
        body = {"prompt": f"In our talk {self.word}", "conversation": self._conversation}
        reply = self.post(PROCESS, body)
        if reply.status_code == httpx2.codes.OK:
            self._conversation = reply.json()["conversation"]
            self._turns += 1

    def look(self) -> None:
        for path in (f"{QUERIES}?limit=100", MEMORIES, f"{MEMORIES}?search=word", CONVERSATIONS):
            self.note(path, self._http.get(path).text)
        if self._conversation != "new":
            path = f"{CONVERSATIONS}/{self._conversation}/messages"
            self.note(path, self._http.get(path).text)

    # --- what they are told -----------------------------------------------------------------

    def post(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        reply = self._http.post(path, json=body, headers=headers)
        self.told[str(reply.status_code)] += 1
        self.note(path, reply.text)
        return reply

    def note(self, path: str, text: str) -> None:
        self.told["answers"] += 1
        words = _WORD.findall(text)
        self.own += words.count(self.word)
        self.foreign += [(path, word) for word in words if word != self.word]
