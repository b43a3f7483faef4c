"""The KServe Model around an engine, whatever it makes: its life-cycle, tasks in, and both of KServe's protocols."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from kserve.model import Model
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse

from contract import problems
from contract.models.description import NOT_DESCRIBED, ModelDescription
from contract.problems import ProblemError, invalid_field
from contract.request import GenerationRequest, Kind
from contract.result import PictureResult, TextResult
from predictor import metrics
from predictor.engine.base import Engine, SleepLevel
from predictor.engine.events import EventListener
from predictor.engine.generation import Generation
from predictor.engine.sleep.sleeper import Sleeper
from predictor.engine.tasks import Task, TextTask
from predictor.errors import ModelError
from predictor.loading.startup import Startup
from predictor.protocols.access import cache_salt_of, caller_of
from predictor.protocols.grpc_status import grpc_error
from predictor.telemetry.generation_phases import GenerationPhases
from wire.deadline import REQUEST_SECONDS, request_seconds


class GenerationModel(Model):  # type: ignore[misc]  # kserve is not typed
    """One served model. Ready after a warm-up generation, alive while its engine makes progress."""

    kind: ClassVar[Kind]
    outputs: ClassVar[dict[str, str]]
    """Names and datatypes of the V2 tensors of a prediction."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        request_seconds: float = REQUEST_SECONDS,
        sleep_level: SleepLevel | None = None,
        stated: ModelDescription = NOT_DESCRIBED,
    ) -> None:
        super().__init__(name)
        self._engine = engine
        self.sleeper = Sleeper(engine, sleep_level)
        self._request_seconds = request_seconds
        self._draining = False
        self.stated = stated
        self.startup = Startup()
        self.loaded = False
        """Whether the engine was loaded before this model was made of it, as in a restored process."""

    # Life-cycle

    def start_loading(self, on_failure: Callable[[], None]) -> None:
        """Load in the background; `on_failure` is called on that thread when the model cannot be loaded."""

        def load() -> None:
            try:
                if not self.loaded:
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

        metrics.show_alive(lambda: self.alive)
        threading.Thread(target=load, name="load", daemon=True).start()

    def load(self) -> bool:
        # KServe calls this for a request when the model is not ready. KServe's own would make it ready.
        raise grpc_error(self.not_ready())

    async def healthy(self) -> bool:
        return bool(self.ready) and self._engine.alive and not self._engine.strained and not self._draining

    def not_ready(self) -> ProblemError:
        """Why the model is not ready: it drains or loads, memory has just run out, or its engine is dead."""
        if self._draining:
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

    @property
    def fingerprint(self) -> str | None:
        """As Engine.fingerprint."""
        return self._engine.fingerprint

    @property
    def description(self) -> ModelDescription:
        """What its deployment has written of it, and else what it says of itself."""
        return self.stated.over(self._engine.description)

    def drain(self) -> None:
        """Not ready any more, so that no more is sent; what comes all the same is still answered."""
        self._draining = True

    def stop(self) -> None:
        """End all tasks with a problem, and accept none any more."""
        super().stop()
        self.sleeper.close()
        self._engine.close()

    # Generating

    def check_name(self, name: str) -> None:
        """Raise a ProblemError unless this model is meant."""
        if name != self.name:
            raise ProblemError(
                problems.UNKNOWN_MODEL, f"There is no model {name[:64]!r} here; {self.name!r} is served."
            )

    def check_count(self, field: str, count: int) -> None:
        """Raise a ProblemError when slots and queue together cannot hold `count` tasks: waiting does not help."""
        most = self._engine.max_scheduled if self.ready else None
        if most is not None and count > most:
            raise invalid_field(field, f"asks for {count} at once, and this server has {most} places in all")

    async def submit(self, task: Task, headers: Mapping[str, str]) -> Generation:
        """Accept a task. Raises a ProblemError when the model is not loaded or alive, or the engine refuses the task.

        Its time is bounded by `headers` (names in lower case; X-Request-Timeout), its own `seconds` and the settings.
        `headers` name its caller, too, and the salt of a text that has none of its own.
        """
        if not (self.ready and self._engine.alive):
            raise self.not_ready()
        limit = self._request_seconds if task.seconds is None else min(task.seconds, self._request_seconds)
        task = replace(task, seconds=request_seconds(headers, limit), caller=caller_of(headers))
        if isinstance(task, TextTask) and task.cache_salt is None:
            task = replace(task, cache_salt=cache_salt_of(headers))
        phases = GenerationPhases(self.name, task.caller)
        try:
            phases.enter("wake" if self.sleeper.holds else "queue")
            generation = await self.sleeper.submit(task)
        except ProblemError as error:
            phases.end(error.kind.slug)
            raise
        phases.enter("queue")
        generation.observer, phases.parts = phases, generation.parts
        return generation

    @abstractmethod
    def task(self, request: GenerationRequest) -> Task:
        """The task of a request that fits this model."""

    @abstractmethod
    async def result(
        self,
        result_id: str,
        request: GenerationRequest,
        generation: Generation,
        begun: float,
        listener: EventListener | None,
    ) -> TextResult | PictureResult:
        """The result of a request that came at `begun`, on the clock of time.monotonic; cancelling the wait closes the
        generation. `listener` is called with each event."""

    def validate(self, payload: Any) -> Any:
        return payload  # `predict` checks more than KServe's own

    async def predict(
        self, payload: dict[str, Any] | bytes | InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        if isinstance(payload, InferRequest):
            try:
                return await self._infer(payload, headers or {})
            except ProblemError as error:
                raise grpc_error(error) if payload.from_grpc else error from None
        return await self._predict_v1(payload, headers or {})

    @abstractmethod
    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """One prediction for each instance of a V1 request."""

    @abstractmethod
    async def _infer(self, infer_request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        """The `outputs` of the prompts of a V2 request."""

    def _response(self, infer_request: InferRequest, columns: dict[str, list[Any]]) -> InferResponse:
        """The answer to a V2 request, from the values of each output: one for each prompt or picture."""
        return InferResponse(
            infer_request.id or "",
            self.name,
            [InferOutput(name, [len(data)], self.outputs[name], data) for name, data in columns.items()],
            from_grpc=infer_request.from_grpc,
            use_binary_outputs=infer_request.use_binary_outputs,
            requested_outputs=None if infer_request.from_grpc else infer_request.request_outputs,
        )

    # V2 metadata

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in self.outputs.items()]
