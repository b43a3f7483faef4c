"""What is kept of a response beside its result, for as long as it is kept itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contract.fields import StrictModel
from contract.openai.responses.items import FunctionOutputItem, Item, KeptItem, MessageItem
from contract.openai.responses.request import ResponsesRequest

_REPEATED = frozenset(
    {
        "background",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
_DEFAULTS: dict[str, Any] = {
    "background": False,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
}
"""What OpenAI's document says of a field that was left out; of all others it says null."""


class KeptResponse(StrictModel):
    """`asked` are the members of the body that its document repeats, `items` what the model was given, those of the
    responses before this one included."""

    asked: dict[str, Any]
    items: list[KeptItem]

    @classmethod
    def of(cls, body: ResponsesRequest, items: Sequence[Item]) -> KeptResponse:
        given = body.model_dump(mode="json", include=set(_REPEATED), exclude_none=True)
        asked: dict[str, Any] = {name: given.get(name, _DEFAULTS.get(name)) for name in sorted(_REPEATED)}
        asked["tools"] = [{"parameters": None, "strict": None, **tool} for tool in asked["tools"]]
        return cls(asked=asked, items=list(items))

    @property
    def is_stored(self) -> bool:
        return bool(self.asked["store"])

    @property
    def in_background(self) -> bool:
        return bool(self.asked["background"])


def item_document(item: Item, id: str) -> dict[str, Any]:
    """An item as it is listed, and as it comes back; `id` where it has none."""
    document = item.model_dump(mode="json", exclude_none=True)
    document["id"] = item.id or id
    if isinstance(item, MessageItem):
        kind = "output_text" if item.role == "assistant" else "input_text"
        document["content"] = [_part(part, kind) for part in document["content"]]
    if isinstance(item, FunctionOutputItem):
        document["output"] = [_part(part, "input_text") for part in document["output"]]
    return {"status": "completed", **document}


def _part(part: dict[str, Any], kind: str) -> dict[str, Any]:
    if part["type"] == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    return {"type": kind, "text": part["text"]} | ({"annotations": []} if kind == "output_text" else {})
