"""The KServe Model around an engine: V1 and V2 payloads in, predictions and tensors out."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import orjson
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve.model import Model
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse, to_http_parameters
from pydantic import BaseModel, Field, ValidationError

from contract import problems
from contract.fields import StrictModel
from contract.limits import INSTANCES
from contract.problems import ProblemError, invalid_field, invalid_fields, within
from contract.request import GenerationRequest, Kind, Sampling, TextPrompt
from contract.result import PictureResult, TextResult, Timing, Usage
from predictor.engine.base import Engine
from predictor.engine.events import EventListener
from predictor.engine.generation import Completion, Generation
from predictor.engine.tasks import Task, TextTask
from predictor.errors import ModelError
from predictor.loading.startup import Startup
from wire.deadline import REQUEST_SECONDS, request_seconds

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")
Parameters = TypeVar("Parameters", bound=BaseModel)

_GRPC_CODES = {404: StatusCode.NOT_FOUND, 503: StatusCode.UNAVAILABLE, 500: StatusCode.INTERNAL}


class _V1Body(StrictModel):
    instances: list[TextPrompt] = Field(min_length=1, max_length=INSTANCES)


def v1_body(payload: Any, shape: type[Body]) -> Body:
    """A V1 request of a given shape, or the problem that it is."""
    if isinstance(payload, bytes):  # KServe parses only bodies whose content type is exactly application/json
        try:
            payload = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise ProblemError(problems.MALFORMED_BODY, f"The body is not valid JSON: {error}.") from None
    try:
        return shape.model_validate(payload)
    except ValidationError as error:
        raise invalid_fields(error, shape) from None


class GenerationModel(Model):  # type: ignore[misc]  # kserve is not typed
    """One served model, whatever it makes. Ready after a warm-up generation, alive while its engine moves."""

    kind: ClassVar[Kind]
    outputs: ClassVar[dict[str, str]]
    """Names and datatypes of the V2 tensors that a prediction has."""

    def __init__(self, name: str, engine: Engine, *, request_seconds: float = REQUEST_SECONDS) -> None:
        super().__init__(name)
        self._engine = engine
        self._request_seconds = request_seconds
        self._leaving = False
        self.startup = Startup()

    # Life-cycle

    def start_loading(self, on_failure: Callable[[], None]) -> None:
        """Load in the background; `on_failure` is called on that thread when the model cannot be loaded."""

        def load() -> None:
            try:
                self._engine.load(self.startup.enter)
            except ModelError as error:
                self.startup.fail(str(error))
                on_failure()
            except BaseException as error:
                self.startup.fail(f"loading failed: {type(error).__name__}: {error}")
                on_failure()
                raise
            else:
                self.ready = True
                self.startup.succeed()

        threading.Thread(target=load, name="load", daemon=True).start()

    def load(self) -> bool:
        # KServe calls this from a request when the model is not ready; its own would set ready.
        raise self._grpc_error(self.not_ready())

    async def healthy(self) -> bool:
        return bool(self.ready) and self._engine.alive and not self._engine.strained and not self._leaving

    def not_ready(self) -> ProblemError:
        """Why the model cannot answer: it is leaving or loading, memory has just run out, or its engine is dead."""
        if self._leaving:
            return ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
        if not self.startup.ready:
            return self.startup.problem(self.name)
        if self._engine.alive:
            return ProblemError(problems.OVERLOADED, "Memory ran out again and again a moment ago.", retry_after=10)
        return ProblemError(problems.UNAVAILABLE, "The engine makes no progress; only a restart helps.")

    @property
    def alive(self) -> bool:
        """False when only a restart helps. Loading counts as alive."""
        return self._engine.alive if self.startup.ready else self.startup.error is None

    def leave(self) -> None:
        """Not ready any more; what comes all the same is still answered."""
        self._leaving = True

    def stop(self) -> None:
        """End what runs and waits with a problem, and answer nothing any more."""
        super().stop()
        self._engine.close()

    # Generating

    def check_name(self, name: str) -> None:
        """Raise a problem unless it is this model that is meant."""
        if name != self.name:
            raise ProblemError(
                problems.UNKNOWN_MODEL, f"There is no model {name[:64]!r} here; {self.name!r} is served."
            )

    def check_places(self, field: str, count: int) -> None:
        """Raise a problem when so many at once have no place, for which no waiting helps."""
        places = self._engine.places if self.ready else None
        if places is not None and count > places:
            raise invalid_field(field, f"asks for {count} at once, and this server has {places} places in all")

    async def submit(self, task: Task, headers: Mapping[str, str]) -> Generation:
        """Accept a task; a ProblemError when the model is not loaded or alive, or the engine refuses it.

        `headers` of the request, with names in lower case, may hold a deadline; the task may have one, too.
        """
        if not (self.ready and self._engine.alive):
            raise self.not_ready()
        limit = self._request_seconds if task.seconds is None else min(task.seconds, self._request_seconds)
        return await self._engine.submit(replace(task, seconds=request_seconds(headers, limit)))

    @abstractmethod
    def task(self, order: GenerationRequest) -> Task:
        """What the engine is to do for an order that fits this model."""

    @abstractmethod
    async def result(
        self,
        result_id: str,
        order: GenerationRequest,
        generation: Generation,
        begun: float,
        watch: EventListener | None,
    ) -> TextResult | PictureResult:
        """What an order comes to that was begun at a time of time.monotonic; giving up waiting closes the generation.
        `watch` is told every event."""

    def validate(self, payload: Any) -> Any:
        return payload  # KServe's own knows less about the payload than `predict`

    async def predict(
        self, payload: dict[str, Any] | bytes | InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        if isinstance(payload, InferRequest):
            try:
                return await self._infer(payload, headers or {})
            except ProblemError as error:
                raise self._grpc_error(error) if payload.from_grpc else error from None
        return await self._predict_v1(payload, headers or {})

    @abstractmethod
    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """One prediction for each instance of a V1 request."""

    @abstractmethod
    async def _infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        """The `outputs` for the prompts of a V2 request."""

    def _response(self, request: InferRequest, columns: dict[str, list[Any]]) -> InferResponse:
        """The answer to a V2 request, from the values of each output."""
        return InferResponse(
            request.id or "",
            self.name,
            [InferOutput(name, [len(data)], self.outputs[name], data) for name, data in columns.items()],
            from_grpc=request.from_grpc,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=None if request.from_grpc else request.request_outputs,
        )

    # V2 metadata

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in self.outputs.items()]

    @staticmethod
    def _grpc_error(error: ProblemError) -> GrpcException:
        code = _GRPC_CODES.get(error.kind.status, StatusCode.INVALID_ARGUMENT)
        return GrpcException(status_code=code, details=error.problem.detail)


class TextModel(GenerationModel):
    """Writes: a prediction is a text."""

    kind: ClassVar[Kind] = "text"
    outputs: ClassVar[dict[str, str]] = {
        "text": "BYTES",
        "finish_reason": "BYTES",
        "prompt_tokens": "INT64",
        "completion_tokens": "INT64",
    }

    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        body = v1_body(payload, _V1Body)
        self.check_places("instances", len(body.instances))
        completions = await of_instances(
            [self._complete(instance.prompt, instance, headers) for instance in body.instances]
        )
        return {"predictions": [_prediction(completion) for completion in completions]}

    async def _infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        prompts, sampling = read_tensors(request, Sampling, self.outputs)
        self.check_places("inputs.prompt", len(prompts))
        completions = await all_of([self._complete(prompt, sampling, headers) for prompt in prompts])
        columns: dict[str, list[Any]] = {
            "text": [completion.text for completion in completions],
            "finish_reason": [completion.end.finish_reason for completion in completions],
            "prompt_tokens": [completion.end.prompt_tokens for completion in completions],
            "completion_tokens": [completion.end.completion_tokens for completion in completions],
        }
        return self._response(request, columns)

    async def _complete(self, prompt: str, sampling: Sampling, headers: Mapping[str, str]) -> Completion:
        generation = await self.submit(_task(prompt, sampling), headers)
        return await generation.complete()

    def task(self, order: GenerationRequest) -> Task:
        return _task(order.prompt, order)

    async def result(
        self,
        result_id: str,
        order: GenerationRequest,
        generation: Generation,
        begun: float,
        watch: EventListener | None,
    ) -> TextResult:
        completion = await generation.complete(watch)
        end = completion.end
        return TextResult(
            id=result_id,
            model=self.name,
            text=completion.text,
            finish_reason=end.finish_reason,
            usage=Usage(prompt_tokens=end.prompt_tokens, completion_tokens=end.completion_tokens),
            timing=Timing(
                queue_s=round(completion.queue_s, 4),
                first_token_s=round(completion.first_token_at - begun, 4),
                total_s=round(time.monotonic() - begun, 4),
            ),
        )


def _task(prompt: str, sampling: Sampling) -> TextTask:
    return TextTask(({"role": "user", "content": prompt},), sampling)


def _prediction(completion: Completion) -> dict[str, Any]:
    """One text as the V1 protocol returns it: the members that `/generate` answers with, too."""
    end = completion.end
    return {
        "text": completion.text,
        "finish_reason": end.finish_reason,
        "usage": {"prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens},
    }


def read_tensors(
    request: InferRequest, shape: type[Parameters], outputs: Mapping[str, str]
) -> tuple[list[str], Parameters]:
    """The prompts and the parameters of a V2 request; a ProblemError that names what is wrong."""
    if [tensor.name for tensor in request.inputs] != ["prompt"] or request.inputs[0].datatype != "BYTES":
        raise invalid_field("inputs", 'must be one tensor: name "prompt", datatype "BYTES", shape [number of prompts]')
    for output in request.request_outputs or ():
        if output.name not in outputs:
            raise invalid_field("outputs", f"there is no output {output.name[:64]!r}; there are {', '.join(outputs)}")
    if not isinstance(request.parameters or {}, Mapping):  # KServe does not look at those that come with binary tensors
        raise invalid_field("parameters", "must be an object")
    try:
        values = request.inputs[0].as_numpy().reshape(-1).tolist()
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
    except Exception as error:  # KServe raises whatever numpy and struct do on a tensor that is not what it says
        raise invalid_field("inputs.prompt", f"cannot be read as a BYTES tensor: {error}") from None
    if not 1 <= len(texts) <= INSTANCES:
        raise invalid_field("inputs.prompt", f"must hold 1 to {INSTANCES} prompts, not {len(texts)}")
    try:
        # gRPC has no parameter type for fractions, so numbers may come as strings.
        parameters = to_http_parameters(request.parameters or {})
        parameters.pop("binary_data_output", None)
        asked = shape.model_validate(parameters, strict=False)
        prompts = [TextPrompt.model_validate({"prompt": text}).prompt for text in texts]
    except ValidationError as error:
        raise invalid_fields(error, shape) from None
    return prompts, asked


async def of_instances(completions: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """As `all_of`, for the instances of a V1 request: what is wrong with one of them names it."""

    async def named(number: int, completion: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await completion
        except ProblemError as error:
            raise within(f"instances.{number}", error) from None

    return await all_of([named(number, completion) for number, completion in enumerate(completions)])


async def all_of(completions: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run them together; the first failure or a cancellation ends them all."""
    tasks = [asyncio.ensure_future(completion) for completion in completions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
