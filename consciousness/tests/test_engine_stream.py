"""Reading an engine's event stream: the same however it is cut, and never a surprise."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consciousness import engine_errors as errors
from consciousness.engine_stream import Chunk, Tally, Usage, chunks_of

pytestmark = pytest.mark.once

BIG = 10**9
DONE = b"data: [DONE]\n\n"


def data(event: Any) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str | None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"choices": [choice], **more}


def read(*parts: bytes, max_bytes: int = BIG) -> list[Chunk]:
    return list(chunks_of(parts, max_bytes=max_bytes))


def total(chunks: Iterable[Chunk]) -> Usage:
    tally = Tally()
    for chunk in chunks:
        tally.add(chunk)
    return tally.usage


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(whole) + 1) for place in places})
    return [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]


A_STREAM = (
    b": a comment\n\n"
    + data(delta(None))
    + data(delta("Grüße, 世界 👍\u2028", timings={"prompt_n": 2, "cache_n": 1, "predicted_n": 1}))
    + b"event: message\r\nid: 5\r\nretry: 10\r\n"
    + data(delta(' "quoted"\n\n data: [DONE]')).replace(b"\n\n", b"\r\n\r\n")
    + data(delta("", "stop"))
    + data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    + DONE
    + data(delta("after the end"))
)
ITS_CHUNKS = [
    Chunk(),
    Chunk(text="Grüße, 世界 👍\u2028", prompt_tokens=3, completion_tokens=1, cached_tokens=1),
    Chunk(text=' "quoted"\n\n data: [DONE]'),
    Chunk(finish_reason="stop"),
    Chunk(prompt_tokens=3, completion_tokens=2, counts_all=True),
]


def test_a_stream_in_one_piece() -> None:
    assert read(A_STREAM) == ITS_CHUNKS


def test_a_stream_byte_by_byte() -> None:
    assert read(*(bytes([byte]) for byte in A_STREAM)) == ITS_CHUNKS


@given(st.lists(st.integers(0, len(A_STREAM)), max_size=40))
def test_however_it_is_cut(places: list[int]) -> None:
    assert read(*cut(A_STREAM, places)) == ITS_CHUNKS


def test_a_last_line_may_lack_its_end() -> None:
    assert read(data(delta("a", "stop")).rstrip()) == [Chunk(text="a", finish_reason="stop")]


def read_or_refuse(*parts: bytes) -> list[Chunk]:
    """The chunks, or none after an engine error; any other exception fails the test."""
    chunks: list[Chunk] = []
    with contextlib.suppress(errors.EngineError):
        chunks.extend(chunks_of(parts, max_bytes=BIG))
    return chunks


fragments = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"error:",
        b"\n",
        b"\r\n",
        b"{",
        b"}",
        b"[",
        b"[DONE]",
        b'"choices":',
        b"0",
    ]
)


@given(st.lists(st.binary(max_size=30) | fragments, max_size=12))
def test_arbitrary_bytes_raise_nothing_but_engine_errors(parts: list[bytes]) -> None:
    assert all(isinstance(chunk, Chunk) for chunk in read_or_refuse(*parts))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("choices", "delta", "content", "finish_reason", "usage", "timings", "error"),
                    *("prompt_tokens", "completion_tokens", "prompt_n", "cache_n", "predicted_n"),
                    *("code", "message", "type"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_arbitrary_events_raise_nothing_but_engine_errors(event: Any) -> None:
    line = b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n"
    for chunk in read_or_refuse(line):
        assert len(chunk.finish_reason) <= 20
        assert (chunk.prompt_tokens is None) == (chunk.completion_tokens is None)
        assert 0 <= (chunk.completion_tokens or 0) < 2**31


def test_an_error_that_is_nested_beyond_all_measure_is_one_too() -> None:
    deep = b'{"error": {"message": ' + b"[" * 1000 + b"]" * 1000 + b"}}"
    with pytest.raises(errors.EngineBadReply):
        read(b"data: " + deep + b"\n\n")


@pytest.mark.parametrize(
    "line",
    [
        b"data:\n\n",
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: 5\n\n",
        b"data: null\n\n",
        b"data: NaN\n\n",
        b'data: {"choices": [5]}\n\n',
        b'data: {"a": "\xff"}\n\n',
        b'data: {"a": "\\ud800"}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b"<html>\ndata: </html>\n",
    ],
)
def test_events_that_are_no_chunks(line: bytes) -> None:
    with pytest.raises(errors.EngineBadReply):
        read(data(delta("good so far")), line)


def test_what_was_good_comes_before_the_error() -> None:
    chunks = chunks_of([data(delta("good")) + b"data: {\n\n"], max_bytes=BIG)
    assert next(chunks) == Chunk(text="good")
    with pytest.raises(errors.EngineBadReply):
        next(chunks)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'data: {"error": {"code": 500, "message": "compute error"}}', errors.EngineBadReply),
        (b'error: {"code": 503, "message": "Loading model"}', errors.EngineLoading),
        (b'data: {"error": {"code": 429}}', errors.EngineBusy),
        (b'data: {"error": {"code": 401}}', errors.EngineMisconfigured),
        (
            b'data: {"error": {"code": 400, "type": "exceed_context_size_error"}}',
            errors.PromptTooLong,
        ),
        (
            b'data: {"error": {"code": "context_length_exceeded", "message": "maximum context"}}',
            errors.PromptTooLong,
        ),
        (b'data: {"error": "overloaded"}', errors.EngineBadReply),
        (b'data: {"error": true}', errors.EngineBadReply),
    ],
)
def test_an_engines_own_failure_is_told_as_what_it_is(
    raw: bytes, error: type[errors.EngineError]
) -> None:
    with pytest.raises(errors.EngineError) as raised:
        read(raw + b"\n\n")
    assert raised.type is error


def test_a_stream_that_is_too_large_or_a_line_that_is_too_long() -> None:
    event = data(delta("x" * 100))
    assert len(read(*[event] * 10, max_bytes=len(event) * 10)) == 10
    with pytest.raises(errors.EngineBadReply) as raised:
        read(*[event] * 10, max_bytes=len(event) * 10 - 1)
    assert not raised.value.is_fault  # whoever asks for much may get it
    with pytest.raises(errors.EngineBadReply) as raised:
        read(*[b"x" * 65536] * 17)  # over 1 MiB without a line's end
    assert raised.value.is_fault


def test_text_is_free_of_what_a_database_cannot_keep() -> None:
    assert read(data(delta("a\x00b", "st\x00op"))) == [Chunk(text="ab", finish_reason="stop")]
    assert read(data(delta("\x00"))) == [Chunk()]
    assert read(data(delta(None, "x" * 300)))[0].finish_reason == "x" * 20


def test_counts_of_usage_go_before_those_of_timings() -> None:
    both = delta(
        "a",
        usage={"prompt_tokens": 7, "completion_tokens": 1},
        timings={"prompt_n": 1, "predicted_n": 99},
    )
    assert total(read(data(both))) == Usage(
        prompt_tokens=7, completion_tokens=1, is_estimated=False
    )


def test_progress_in_reading_the_prompt_counts_and_is_no_text() -> None:
    """As llama.cpp sends it before the first token, when it is asked to."""
    progress = {
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}],
        "timings": {"cache_n": 66, "prompt_n": 2, "predicted_n": 0},
        "prompt_progress": {"total": 72, "cache": 66, "processed": 68, "time_ms": 89},
    }
    (chunk,) = read(data(progress))
    assert chunk == Chunk(text="", prompt_tokens=68, completion_tokens=0, cached_tokens=66)


def test_counts_of_timings_include_what_came_from_the_cache() -> None:
    event = delta("a", timings={"prompt_n": 4, "cache_n": 30, "predicted_n": 2})
    assert total(read(data(event))) == Usage(
        prompt_tokens=34, completion_tokens=2, cached_tokens=30, is_estimated=False
    )


@pytest.mark.parametrize(
    "counts",
    [
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": 5}},
        {"usage": {"prompt_tokens": "5", "completion_tokens": "1"}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2**31}},
        {"usage": {"prompt_tokens": 1.5, "completion_tokens": 1}},
        {"timings": {"prompt_n": 5}},
        {"timings": {"prompt_n": None, "predicted_n": 1}},
        {"timings": {"prompt_n": 1, "cache_n": "x", "predicted_n": 1}},
        {"timings": "fast"},
    ],
)
def test_without_good_counts_each_piece_of_text_counts_one(counts: dict[str, Any]) -> None:
    events = [data(delta(text, **counts)) for text in ("a", "", "b", "c")]
    assert total(read(*events)) == Usage(prompt_tokens=0, completion_tokens=3, is_estimated=True)


def per_choice(index: int, count: int, end: str | None = None) -> dict[str, Any]:
    event = delta("" if end else "a", end)
    event["choices"][0]["index"] = index
    timings = {"prompt_n": 4, "cache_n": 3, "predicted_n": count}
    return event if end else {**event, "timings": timings}


def test_counts_of_several_choices_add_up_and_the_prompt_counts_once() -> None:
    """llama.cpp: the last count of each comes without its name, and may hold a token more."""

    def last(count: int) -> dict[str, Any]:
        usage = {"prompt_tokens": 7, "completion_tokens": count}
        return {"choices": [], "usage": usage, "timings": {"predicted_n": count}}

    events = [
        *(per_choice(1, 1), per_choice(0, 1), per_choice(1, 2), per_choice(1, 2, "stop"), last(3)),
        *(per_choice(0, 2), per_choice(0, 3), per_choice(0, 3, "stop"), last(4)),
    ]
    assert total(read(*map(data, events))) == Usage(
        prompt_tokens=7, completion_tokens=7, cached_tokens=3, is_estimated=False
    )
    on_the_way = [total(read(*map(data, events[:end]))).completion_tokens for end in range(1, 9)]
    assert on_the_way == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_count_of_all_choices_at_the_end_is_the_whole() -> None:
    """vLLM and OpenAI."""
    last = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}}
    events = [per_choice(0, 2), per_choice(1, 3), last]
    assert total(read(*map(data, events))).completion_tokens == 9
    assert total(read(data(delta("a")), data(last))).completion_tokens == 9


def test_the_engines_count_replaces_the_estimate_and_later_text_does_not_change_it() -> None:
    chunks = [
        Chunk(text="a"),
        Chunk(text="b"),
        Chunk(prompt_tokens=9, completion_tokens=5),
        Chunk(text="c"),
    ]
    assert total(chunks[:2]) == Usage(completion_tokens=2)
    final = Usage(prompt_tokens=9, completion_tokens=5, is_estimated=False)
    assert total(chunks) == final
    assert final.total_tokens == 14


def test_attempts_add_up() -> None:
    first = Usage(prompt_tokens=3, completion_tokens=0, cached_tokens=1, is_estimated=False)
    second = Usage(prompt_tokens=4, completion_tokens=2, cached_tokens=2, is_estimated=False)
    assert first.plus(second) == Usage(
        prompt_tokens=7, completion_tokens=2, cached_tokens=2, is_estimated=False
    )
    assert first.plus(Usage()) == first  # an engine that said nothing
    assert first.plus(Usage(completion_tokens=1)).is_estimated
