"""What the stub is told to do and what it did; shared by its threads, so all under locks."""

import collections
import secrets
import threading
import time

from tests.stub_engine.behaviours import Behaviour, Script
from tests.stub_engine.ledger import Ledger, RequestRecord

IDLE_TIMEOUT_S = 5.0
DEFAULT_N_CTX = 8192


class StubState:
    """The typed API of the tests, apart from starting and stopping."""

    def __init__(
        self,
        behaviour: Behaviour = Behaviour.NORMAL,
        *,
        token_delay_s: float | None = None,
        after_tokens: int = 2,
        api_key: str | None = None,
        n_ctx: int = DEFAULT_N_CTX,
    ) -> None:
        self.api_key = api_key or secrets.token_hex(16)
        self.n_ctx = n_ctx
        self.created = int(time.time())
        self.takes_tools = self.has_embeddings = True
        self.book = Ledger()
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._default = self._first = Script(behaviour, token_delay_s, after_tokens)
        self._probes = Script()
        self._queue: collections.deque[Script] = collections.deque()

    @property
    def ledger(self) -> list[RequestRecord]:
        """Every chat request so far, in the order of arrival: a copy."""
        return self.book.records

    @property
    def active(self) -> int:
        """How many chat requests are being answered now."""
        return self.book.active

    @property
    def peak_active(self) -> int:
        """The most there have been at once since the last reset."""
        return self.book.peak_active

    def wait_idle(self, timeout_s: float = IDLE_TIMEOUT_S) -> bool:
        """Whether within `timeout_s` no chat request was being answered any more."""
        return self.book.wait_idle(timeout_s)

    def behave(
        self, behaviour: Behaviour, *, token_delay_s: float | None = None, after_tokens: int = 2
    ) -> None:
        """What every chat request meets from now on, once the queue is empty."""
        with self._lock:
            self._default = Script(behaviour, token_delay_s, after_tokens)

    def enqueue(
        self,
        behaviour: Behaviour,
        *,
        token_delay_s: float | None = None,
        after_tokens: int = 2,
        times: int = 1,
    ) -> None:
        """What the next `times` chat requests meet."""
        with self._lock:
            self._queue.extend([Script(behaviour, token_delay_s, after_tokens)] * times)

    def behave_probes(self, behaviour: Behaviour, *, token_delay_s: float | None = None) -> None:
        """What `GET /health` and `GET /v1/models` meet from now on, apart from chat requests."""
        with self._lock:
            self._probes = Script(behaviour, token_delay_s)

    def reset(self) -> None:
        """Empty ledger and queue, and the behaviour given at construction."""
        with self._lock:
            self.takes_tools = self.has_embeddings = True
            self._queue.clear()
            self._default, self._probes = self._first, Script()
        self.book.clear()

    @property
    def probe_script(self) -> Script:
        with self._lock:
            return self._probes

    def take_script(self) -> Script:
        """The script of the chat request that has just arrived."""
        with self._lock:
            return self._queue.popleft() if self._queue else self._default
