"""OpenAI's own Python client, the platform and the bundled model: all of it real."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field

from consciousness.bundled_model import BUNDLED_NAME
from consciousness.tests.running_engine import Served, served_model
from tests.platform import running_platform

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("model")]

CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
CLOCK: ChatCompletionToolParam = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_model(tmp_path_factory.mktemp("engine")) as served:
        yield served


@pytest.fixture(scope="module")
def client(engine: Served) -> Iterator[OpenAI]:
    with running_platform(engine) as platform:
        token = platform.register_and_log_in("asker")
        with OpenAI(base_url=f"{platform.url}/v1", api_key=token, timeout=120) as client:
            yield client


def test_it_knows_the_capital_of_france(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=BUNDLED_NAME, messages=CAPITAL, temperature=0)
    assert answer.choices[0].message.content == "Paris."
    assert answer.model == BUNDLED_NAME


def test_a_stream_says_and_counts_the_same(client: OpenAI) -> None:
    options = {"cache": False}
    whole = client.chat.completions.create(
        model=BUNDLED_NAME, messages=CAPITAL, temperature=0, extra_body=options
    )
    *chunks, last = client.chat.completions.create(
        model=BUNDLED_NAME,
        messages=CAPITAL,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=options,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert last.usage is not None
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


class Place(BaseModel):
    city: str = Field(max_length=20)


def test_it_follows_a_schema(client: OpenAI) -> None:
    question = "What is the capital of France? Answer as JSON."
    answer = client.chat.completions.parse(
        model=BUNDLED_NAME,
        messages=[{"role": "user", "content": question}],
        response_format=Place,
        temperature=0,
    )
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_json_may_hold_a_blank_line(client: OpenAI) -> None:
    """Where the base model's own stops would end it: a grammar tells the end."""
    answer = client.chat.completions.create(
        model=BUNDLED_NAME,
        messages=[{"role": "user", "content": "Three colours, as JSON."}],
        response_format={"type": "json_object"},
        stop=["}"],
        temperature=0,
    )
    assert (answer.choices[0].message.content or "").lstrip().startswith("{")
    assert answer.choices[0].finish_reason == "stop"


def test_a_schema_that_it_cannot_follow_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model=BUNDLED_NAME,
            messages=CAPITAL,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "nonsense"}},
            },
        )
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "response_format")


def test_tools_are_refused_instead_of_left_out(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model=BUNDLED_NAME, messages=CAPITAL, tools=[CLOCK], tool_choice="required"
        )
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "tools")


def test_embeddings_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=BUNDLED_NAME, input="a")
    assert raised.value.code == "unsupported_parameter"


def test_several_choices_are_counted_together(client: OpenAI) -> None:
    one = client.chat.completions.create(
        model=BUNDLED_NAME, messages=CAPITAL, temperature=0, extra_body={"cache": False}
    )
    two = client.chat.completions.create(model=BUNDLED_NAME, messages=CAPITAL, temperature=0, n=2)
    assert [choice.message.content for choice in two.choices] == ["Paris.", "Paris."]
    assert one.usage is not None
    assert two.usage is not None
    assert two.usage.prompt_tokens == one.usage.prompt_tokens
    assert two.usage.completion_tokens == 2 * one.usage.completion_tokens


def test_a_text_is_continued(client: OpenAI) -> None:
    answer = client.completions.create(
        model=BUNDLED_NAME, prompt="One, two, three,", temperature=0, max_tokens=3, logprobs=2
    )
    assert answer.choices[0].text.startswith(" four")
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.tokens is not None
    assert "".join(answer.choices[0].logprobs.tokens) == answer.choices[0].text


def test_it_is_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [BUNDLED_NAME]


def test_no_alternatives_are_told_that_nobody_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BUNDLED_NAME, messages=CAPITAL, temperature=0, logprobs=True
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert all(entry.logprob > -9999 and entry.top_logprobs == [] for entry in logprobs.content)
