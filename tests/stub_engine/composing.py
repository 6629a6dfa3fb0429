"""What the stub engine answers. Pure: the same request always gets the same answer.

One word is one token. "Paris." for the capital of France, "1 2 3 …" for "count to N", an object
for a JSON schema, a call of the first tool where there are tools, an echo otherwise.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

CAPITAL_QUESTION = "capital of france"
COUNT_REQUEST = re.compile(r"\bcount to (\d{1,6})\b", re.IGNORECASE)
VECTOR_NUMBERS = 8


def split_tokens(text: str) -> list[str]:
    """One token per word, each with the white space before it: joined they are the text again."""
    return re.findall(r"\s*\S+", text)


def read_text(message: Any) -> str:
    """A message's text; its content may be a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def read_prompt(body: dict[str, Any]) -> str:
    """The question: a completion's prompt, or the last user message."""
    if "messages" not in body:
        return str(body["prompt"])
    users = [
        message
        for message in body["messages"]
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    return read_text(users[-1]) if users else ""


def compose_answer(body: dict[str, Any]) -> list[str]:
    """The whole answer's tokens, before any limit."""
    prompt = read_prompt(body)
    last = (body.get("messages") or [{}])[-1]
    wanted = body.get("response_format") or {}
    if isinstance(last, dict) and last.get("role") == "tool":
        return split_tokens(f"The tool says: {read_text(last)}")
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"].get("schema") or {}
        return split_tokens(json.dumps(compose_value(schema, prompt)))
    if wanted.get("type") == "json_object":
        return split_tokens(json.dumps({"answer": prompt}))
    if CAPITAL_QUESTION in prompt.lower():
        return ["Paris."]
    if count := COUNT_REQUEST.search(prompt):
        return split_tokens(" ".join(str(number + 1) for number in range(int(count[1]))))
    return split_tokens(f"Echo: {prompt}")


def compose_value(schema: dict[str, Any], prompt: str) -> Any:
    """Something that fits the schema: of text, the prompt's last word."""
    match schema.get("type"):
        case "object":
            properties = schema.get("properties") or {}
            return {name: compose_value(inner, prompt) for name, inner in properties.items()}
        case "array":
            return [compose_value(schema.get("items") or {}, prompt)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case _:
            return (split_tokens(prompt) or [""])[-1].strip(" ?!.")


def compose_calls(body: dict[str, Any]) -> list[dict[str, str]]:
    """Name and arguments of the calls: of the first tool, of the one that `tool_choice` names, or
    of all for a question that says "each"."""
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if not tools or choice == "none" or body["messages"][-1].get("role") == "tool":
        return []
    prompt = read_prompt(body)
    functions = [tool["function"] for tool in tools]
    if isinstance(choice, dict):
        wanted = choice["function"]["name"]
        functions = [function for function in functions if function["name"] == wanted]
    elif "each" not in prompt:
        functions = functions[:1]
    return [
        {
            "name": function["name"],
            "arguments": json.dumps(compose_value(function.get("parameters") or {}, prompt)),
        }
        for function in functions
    ]


def call_deltas(calls: Sequence[dict[str, str]], number: int) -> list[dict[str, Any]]:
    """Each call's name in one piece and its arguments word by word, as llama.cpp streams them."""
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        head = {"id": f"call-stub-{number}-{index}", "type": "function"}
        function = {"name": call["name"], "arguments": ""}
        deltas.append({"index": index, **head, "function": function})
        deltas += [
            {"index": index, "function": {"arguments": piece}}
            for piece in split_tokens(call["arguments"])
        ]
    return deltas


def cut_at_stop(tokens: Sequence[str], stops: Any) -> tuple[list[str], bool]:
    """The tokens before the first stop, and whether there was one."""
    text = "".join(tokens)
    stops = [stops] if isinstance(stops, str) else stops or []
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return list(tokens), False
    return split_tokens(text[: min(found)]), True


def compose_logprobs(token: str, count: int) -> dict[str, Any]:
    """As llama.cpp writes them, for chats and completions alike."""
    entry = {"id": len(token), "token": token, "bytes": list(token.encode()), "logprob": -0.5}
    others = [{**entry, "token": f"{token}{place}", "logprob": -1.5 - place} for place in range(20)]
    return {"content": [{**entry, "top_logprobs": [entry, *others][:count]}]}


def compose_vector(text: str) -> list[float]:
    return [round(((len(text) + 1) * (place + 3)) % 17 / 17, 6) for place in range(VECTOR_NUMBERS)]
