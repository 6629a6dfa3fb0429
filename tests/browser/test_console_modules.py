"""The console's pure modules, in the browser that they are for."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser

EVENTS = (
    'event: token\ndata: {"text":"Pa"}\n\n: still working\n\ndata: a\ndata:b\r\n\r\n'
    "event: done\r\rid: 7\nretry\ndata\n\ndata: café ☕ 👩‍💻\n\ndata: no end"
)
WANTED = [
    {"name": "token", "data": '{"text":"Pa"}'},
    {"name": "message", "data": "a\nb"},
    {"name": "message", "data": ""},
    {"name": "message", "data": "café ☕ 👩‍💻"},
]


@pytest.fixture
def run(page: Any) -> Any:
    """`run(script, argument)` with `load(name)` to import a module of the console."""
    page.goto("/")
    page.get_by_role("button", name="Sign in").wait_for()

    def evaluate(script: str, argument: Any = None) -> Any:
        return page.evaluate(
            f"""(argument) => {{
                const main = document.querySelector("script[type=module]").src;
                const load = (name) => import(new URL(name, main).href);
                return ({script})(argument);
            }}""",
            argument,
        )

    return evaluate


def parsed(run: Any, pieces: list[str]) -> list[dict[str, str]]:
    script = """async (pieces) => {
        const { createParser } = await load("sse.js");
        const events = [];
        const feed = createParser((event) => events.push(event));
        for (const piece of pieces) feed(piece);
        return events;
    }"""
    events: list[dict[str, str]] = run(script, pieces)
    return events


def test_events_are_read_from_any_pieces(run: Any) -> None:
    assert parsed(run, [EVENTS]) == WANTED
    assert parsed(run, list(EVENTS)) == WANTED
    for size in (2, 3, 5, 7):
        pieces = [EVENTS[at : at + size] for at in range(0, len(EVENTS), size)]
        assert parsed(run, pieces) == WANTED
    for at in range(len(EVENTS)):
        assert parsed(run, [EVENTS[:at], EVENTS[at:]]) == WANTED


def test_an_event_is_given_as_soon_as_it_is_whole(run: Any) -> None:
    assert parsed(run, ["data: one\n"]) == []
    assert parsed(run, ["data: one\n", "\n"]) == [{"name": "message", "data": "one"}]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", []),
        ("one", [("text", "one")]),
        (
            "one\ntwo\n\n\n- three\n  - four\n",
            [("text", "one\ntwo"), ("text", "- three\n  - four")],
        ),
        ("a\r\nb\rc", [("text", "a\nb\nc")]),
        ("see:\n```python\nx = 1\n\ny\n```\ndone", ["text:see:", "code:x = 1\n\ny", "text:done"]),
        ("```\nnot closed\n`` `", ["code:not closed\n`` `"]),
        ("````\n```\ninside\n```\n````", ["code:```\ninside\n```"]),
        ("~~~\ntildes\n```\n~~~", ["code:tildes\n```"]),
        ("```\n```", ["code:"]),
        ("`inline` and ```also``` inline", ["text:`inline` and ```also``` inline"]),
        ("    ```\nindented is text", ["text:    ```\nindented is text"]),
    ],
)
def test_text_is_cut_into_paragraphs_and_code(run: Any, text: str, blocks: list[Any]) -> None:
    script = "async (text) => (await load('text.js')).blocksOf(text)"
    found = [(block["kind"], block["text"]) for block in run(script, text)]
    assert found == [tuple(b.split(":", 1)) if isinstance(b, str) else b for b in blocks]


def test_text_that_grows_keeps_its_elements_and_ends_as_if_shown_at_once(run: Any) -> None:
    text = "One <b>two</b>.\n\n```js\nif (a < b) {\n```\n\nThree\nfour \u202eevil"
    script = """async (text) => {
        const { showText } = await load("text.js");
        const [grown, whole] = [document.createElement("div"), document.createElement("div")];
        let first = null;
        for (let end = 1; end <= text.length; end += 1) {
            showText(grown, text.slice(0, end));
            first ??= grown.firstElementChild;
        }
        showText(whole, text);
        return [grown.innerHTML, whole.innerHTML, grown.firstElementChild === first];
    }"""
    grown, whole, is_same = run(script, text)
    assert grown == whole
    assert is_same
    assert '<p data-kind="text" dir="auto">One &lt;b&gt;two&lt;/b&gt;.</p>' in grown
    assert "<code>if (a &lt; b) {</code></pre>" in grown


def test_what_the_server_tells_of_an_answer_is_shown(run: Any) -> None:
    script = """async (told) => {
        const { Turn } = await load("turn.js");
        const turn = new Turn("A question");
        turn.showEnd("An answer", { told });
        document.body.append(turn.root);
        return turn.root.innerText;
    }"""
    told = {
        "model": "a-model",
        "usage": {"total_tokens": 1234},
        "processing_time_ms": 2345,
        "finish_reason": "length",
        "cached": True,
        "turns_dropped": 2,
        "memories_used": [{"id": "1", "text": "I live in Bern."}, {"id": "2", "text": "I ski."}],
        "memory_stored": {"id": "3", "text": "I have a dog"},
    }
    shown = run(script, told)
    for words in (
        "The answer reached its length limit.",
        "The 2 oldest turns no longer fit and were left out.",
        "a-model · 1,234 tokens · 2.3 s · from the cache",
        "2 memories used",
        "Remembered: I have a dog",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (
            {"status": 503, "code": "engine_busy", "retryAfterS": 5},
            "The engine is busy. Try again in 5 s.",
        ),
        (
            {"status": 429, "code": "rate_limited", "retryAfterS": 150},
            "That was too often in a short time. Try again in 3 min.",
        ),
        (
            {"status": 429, "code": "insufficient_quota", "retryAfterS": 40000},
            "You have not enough tokens left for that today. More come at midnight UTC.",
        ),
        (
            {"status": 429, "code": "insufficient_quota"},
            "You have not enough tokens left for that today. A whole day's would not do either.",
        ),
        (
            {"status": 422, "errors": {"text": ["A fact has words."]}},
            "A fact has words.",
        ),
        (
            {"status": 409, "code": "new_code", "detail": "As the server says."},
            "As the server says.",
        ),
        ({"status": 500}, "Something went wrong."),
    ],
)
def test_problems_are_told_in_words(run: Any, problem: dict[str, Any], sentence: str) -> None:
    script = """async (problem) => {
        const { Problem, sentenceFor } = await load("problems.js");
        return sentenceFor(new Problem(problem));
    }"""
    assert run(script, problem) == sentence


def test_answers_that_are_no_problem_objects_are_understood_too(run: Any) -> None:
    script = """async ([status, body, headers]) => {
        const { problemOf } = await load("problems.js");
        const problem = await problemOf(new Response(body, { status, headers }));
        return [problem.code, problem.detail, problem.retryAfterS];
    }"""
    assert run(script, [502, "<html>Bad gateway</html>", {}]) == ["", "", None]
    told = '{"error": "invalid_grant", "detail": "no"}'
    assert run(script, [401, told, {"Retry-After": "7"}]) == ["invalid_grant", "no", 7]
    date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert run(script, [503, "{}", date]) == ["", "", None]


def test_what_could_not_be_sent_is_nobody_elses_draft(run: Any) -> None:
    script = """async () => {
        const { Composer, draftKeeper, forgetDrafts } = await load("composer.js");
        const { clone } = await load("dom.js");
        const draft = () => {
            const slots = clone("chat");
            new Composer(slots, { conversation: null });
            return slots.input.value;
        };
        const keep = draftKeeper();
        keep(null, "mine");
        const own = draft();
        forgetDrafts();
        keep(null, "too late");
        return [own, draft()];
    }"""
    assert run(script) == ["mine", ""]
