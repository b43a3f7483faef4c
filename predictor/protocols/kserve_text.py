"""Texts over KServe's V1 and V2 protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kserve.protocol.infer_type import InferRequest, InferResponse
from pydantic import Field

from contract.fields import StrictModel
from contract.limits import INSTANCES
from contract.problems import invalid_field
from contract.request import GenerationRequest, Kind, TextPrompt, Writing
from contract.result import TextResult
from predictor.engine.events import EventListener
from predictor.engine.generation import Completion, Generation
from predictor.engine.tasks import Task, TextTask
from predictor.protocols.conversation import text_task
from predictor.protocols.fan_out import all_instances
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.kserve_bodies import read_v1_body, read_v2_tensors
from predictor.protocols.text_answer import text_result
from wire.concurrency.all_of import all_of


class _V1Body(StrictModel):
    instances: list[TextPrompt] = Field(min_length=1, max_length=INSTANCES)


class TextModel(GenerationModel):
    """A prediction is a text."""

    kind: ClassVar[Kind] = "text"
    outputs: ClassVar[dict[str, str]] = {
        "text": "BYTES",
        "finish_reason": "BYTES",
        "prompt_tokens": "INT64",
        "completion_tokens": "INT64",
    }

    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        body = read_v1_body(payload, _V1Body)
        self.check_count("instances", len(body.instances))
        completions = await all_instances([self._complete(text_task(instance), headers) for instance in body.instances])
        return {"predictions": [_prediction(completion) for completion in completions]}

    async def _infer(self, infer_request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        prompts, writing = read_v2_tensors(infer_request, Writing, self.outputs)
        self.check_count("inputs.prompt", len(prompts))
        if writing.top_logprobs is not None:
            raise invalid_field("top_logprobs", "is not told over this protocol; the others tell it")
        if writing.offers_tools:
            raise invalid_field("tools", "are not served over V2, whose outputs have no place for calls")
        given = writing.model_dump(exclude_none=True)
        tasks = [text_task(TextPrompt.model_validate(given | {"prompt": prompt})) for prompt in prompts]
        completions = await all_of([self._complete(task, headers) for task in tasks])
        # Without the reasoning: clients get each output, and most texts have none.
        columns: dict[str, list[Any]] = {
            "text": [completion.text for completion in completions],
            "finish_reason": [completion.end.finish_reason for completion in completions],
            "prompt_tokens": [completion.end.prompt_tokens for completion in completions],
            "completion_tokens": [completion.end.completion_tokens for completion in completions],
        }
        return self._response(infer_request, columns)

    async def _complete(self, task: TextTask, headers: Mapping[str, str]) -> Completion:
        generation = await self.submit(task, headers)
        return await generation.complete()

    def task(self, request: GenerationRequest) -> Task:
        return text_task(request)

    async def result(
        self,
        result_id: str,
        request: GenerationRequest,
        generation: Generation,
        begun: float,
        listener: EventListener | None,
    ) -> TextResult:
        completion = await generation.complete(listener)
        return text_result(result_id, self.name, completion, begun)


def _prediction(completion: Completion) -> dict[str, Any]:
    """A V1 prediction, with the members that `/generate` answers with, too."""
    end = completion.end
    reasoning = {"reasoning_content": completion.reasoning} if completion.reasoning else {}
    told = completion.logprobs
    logprobs = {} if told is None else {"logprobs": [one.model_dump() for one in told]}
    calls = {"tool_calls": [call.model_dump() for call in completion.tool_calls]} if completion.tool_calls else {}
    return {
        "text": completion.text,
        **reasoning,
        **calls,
        **logprobs,
        "finish_reason": end.finish_reason,
        "usage": {"prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens},
    }
