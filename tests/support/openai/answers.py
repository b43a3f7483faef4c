"""What an answer holds, whole or as the events of a stream, in the shapes of either client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def chunks(answer: Any) -> list[dict[str, Any]]:
    """Of a streamed chat completion, or of a streamed completion."""
    found = [event.get("chunk", event) for event in answer]
    return [chunk for chunk in found if isinstance(chunk, dict) and "choices" in chunk]


def choices(answer: Any) -> Iterator[dict[str, Any]]:
    """Of all chunks, or of the whole."""
    for document in chunks(answer) if isinstance(answer, list) else [answer]:
        yield from document["choices"]


def texts(answer: Any) -> list[str]:
    """In the order of the choices."""
    found: dict[int, str] = {}
    for choice in choices(answer):
        message = choice.get("message") or choice.get("delta") or {}
        text = choice.get("text") or message.get("content") or ""
        found[choice.get("index", 0)] = found.get(choice.get("index", 0), "") + text
    return [text for _, text in sorted(found.items())]


def has_text(answer: Any) -> bool:
    return bool(texts(answer)[0])


def has_texts(count: int) -> Any:
    return lambda answer: len(texts(answer)) == count and all(texts(answer))


def ends_by(reason: str) -> Any:
    return lambda answer: reason in [choice["finish_reason"] for choice in choices(answer)]


def has_usage(answer: Any) -> bool:
    return any(chunk.get("usage") for chunk in chunks(answer))


def has_logprobs(least: int) -> Any:
    """Of the tokens, and so many likeliest ones of each; in the shape of chat completions."""

    def holds(answer: Any) -> bool:
        told = [
            choice["logprobs"]["content"] for choice in choices(answer) if (choice.get("logprobs") or {}).get("content")
        ]
        return bool(told) and len(told[0][0]["top_logprobs"]) == least

    return holds


def calls_trip(answer: Any) -> bool:
    """Whether the function `trip` is called, with arguments as its schema has them."""
    arguments = ""
    named = False
    for choice in choices(answer):
        for call in (choice.get("message") or choice.get("delta") or {}).get("tool_calls") or ():
            named |= call["function"].get("name") == "trip"
            arguments += call["function"].get("arguments") or ""
    return named and is_trip(arguments)


def is_trip(text: str) -> bool:
    trip = json.loads(text)
    return trip["city"] in ("杭州", "苏州") and 1 <= trip["days"] <= 9


def holds_trip(answer: Any) -> bool:
    """Whether the text is a trip."""
    return is_trip(texts(answer)[0])


def responded(answer: Any) -> dict[str, Any]:
    """A response, or the one that a stream ends with."""
    if isinstance(answer, list):
        last: dict[str, Any] = next(
            event["response"]
            for event in reversed(answer)
            if event["type"] in ("response.completed", "response.incomplete")
        )
        return last
    found: dict[str, Any] = answer
    return found


def response_text(answer: Any) -> str:
    parts = [part for item in responded(answer)["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text") or "" for part in parts)


def response_calls_trip(answer: Any) -> bool:
    calls = [item for item in responded(answer)["output"] if item["type"] == "function_call"]
    return bool(calls) and all(call["name"] == "trip" and is_trip(call["arguments"]) for call in calls)


def says(**members: Any) -> Any:
    """Whether a response says this of itself."""
    return lambda answer: members.items() <= responded(answer).items()


def pictures(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, list):
        return [event for event in answer if event["type"].endswith(".completed")]
    return list(answer["data"])


def has_pictures(count: int) -> Any:
    return lambda answer: len(pictures(answer)) == count and all(one.get("b64_json") for one in pictures(answer))
