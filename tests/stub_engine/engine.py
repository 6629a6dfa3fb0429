"""Starting and stopping a stub engine inside the process of a test."""

import threading
from typing import Self

from tests.stub_engine.behaviours import Behaviour
from tests.stub_engine.server import StubServer
from tests.stub_engine.state import DEFAULT_N_CTX, StubState

STOP_TIMEOUT_S = 5.0
ACCEPT_POLL_S = 0.02  # how soon stop() is seen by the accept loop


class StubEngine(StubState):
    """A stub on 127.0.0.1. `stop()` and `start()` keep its port, ledger and scripts."""

    def __init__(
        self,
        behaviour: Behaviour = Behaviour.NORMAL,
        *,
        token_delay_s: float | None = None,
        after_tokens: int = 2,
        api_key: str | None = None,
        port: int = 0,
        n_ctx: int = DEFAULT_N_CTX,
    ) -> None:
        super().__init__(
            behaviour,
            token_delay_s=token_delay_s,
            after_tokens=after_tokens,
            api_key=api_key,
            n_ctx=n_ctx,
        )
        self.port = port
        self._server: StubServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The root, without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._server is not None:
            return
        self.stopping.clear()
        self._server = StubServer(self, self.port)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(ACCEPT_POLL_S,),
            name="stub-engine",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Cut every connection and wait, bounded, for the threads that served them."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        self.stopping.set()
        server.shutdown()
        thread.join(STOP_TIMEOUT_S)
        server.server_close()
        server.cut_connections(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
