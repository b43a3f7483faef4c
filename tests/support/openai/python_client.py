"""The official client for Python, for probes."""

from __future__ import annotations

import json
import warnings
from typing import Annotated, Any, Literal

import openai
import pydantic
import websockets

from tests.support.openai.files import FILES


class Trip(pydantic.BaseModel):
    """What JavaScript's client writes with zod, and `trip` in tests.support.openai.probes.chat as a schema."""

    city: Literal["杭州", "苏州"]
    days: Annotated[int, pydantic.Field(ge=1, le=9)]


class PythonClient:
    """See tests.support.openai.probe.Client. The client's settings are its defaults."""

    language = "python"

    def __init__(self, url: str) -> None:
        self._client = openai.OpenAI(base_url=url, api_key="none")

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        target: Any = self._client
        for part in method.split("."):
            target = getattr(target, part)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of methods that OpenAI itself offers no more
                return {"answer": _as_json(target(**{name: _typed(value) for name, value in arguments.items()}))}
        except openai.APIError as error:
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            return {"error": {"status": status, "param": error.param, "code": error.code, "message": str(error)}}
        except websockets.InvalidStatus as error:
            code = json.loads(error.response.body or b"{}").get("type", "").rpartition(":")[2]
            return {"error": {"status": error.response.status_code, "param": None, "code": code, "message": str(error)}}
        except Exception as error:
            return {"failure": repr(error)}

    def close(self) -> None:
        self._client.close()


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return [_typed(one) for one in value]
    if isinstance(value, dict):
        if value.keys() == {"$file"}:
            return value["$file"], FILES[value["$file"]], "image/png"
        if value.keys() == {"$trip"}:
            return Trip
    return value


def _as_json(answer: Any) -> Any:
    """Of a model, a page, a stream or the manager of one, or nothing."""
    if answer is None:
        return {}
    if isinstance(answer, openai.Stream):
        return [_as_json(event) for event in answer]
    if isinstance(answer, openai.pagination.SyncPage | openai.pagination.SyncCursorPage):
        return {"data": [_as_json(one) for one in answer.data]}
    if isinstance(answer, pydantic.BaseModel):
        return answer.to_dict(mode="json", warnings=False) if isinstance(answer, openai.BaseModel) else {}
    if hasattr(answer, "__enter__"):
        with answer as stream:
            return [_as_json(event) for event in stream]
    return answer
