"""A real HTTP server that speaks llama.cpp's OpenAI protocol, for tests and benchmarks.

No model: answers are deterministic (`composing`, written by `protocol`), misbehaviour is on demand
(`behaviours`), and every token written is in the ledger (`ledger`). `python -m tests.stub_engine`
runs it alone.
"""

from tests.stub_engine.behaviours import Behaviour, Script
from tests.stub_engine.engine import StubEngine
from tests.stub_engine.ledger import RequestRecord
from tests.stub_engine.protocol import CANARY_SECRET, MODEL

__all__ = ["CANARY_SECRET", "MODEL", "Behaviour", "RequestRecord", "Script", "StubEngine"]
