import pytest
from consciousness.models import Query
from tests.stub_engine import StubEngine
URL = "/api/v1/consciousness/process"
@pytest.mark.parametrize("n", range(5))
def test_x(as_alice, stub, n):
    r = as_alice.post(URL, {"prompt": "count to 300", "stream": True}, format="json")
    it = iter(r.streaming_content)
    next(it); next(it)
    r._iterator.close()
    assert stub.wait_idle()
    (rec,) = stub.ledger
    q = Query.objects.get()
    print(rec.completion_tokens, rec.prompt_tokens, q.completion_tokens, q.prompt_tokens, q.status, rec.disconnected)
    assert 0
def test_cursor(as_alice):
    import base64
    for p in (b"p=abc", b"p=2020-13-45", b"p=%00", b"o=5", b"p=2020-01-01"):
        try:
            r = as_alice.get("/api/v1/consciousness/queries/", {"cursor": base64.b64encode(p).decode()})
            print(p, r.status_code)
        except Exception as e: print(p, repr(e))
    assert 0
