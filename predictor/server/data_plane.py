"""What KServe's routes and its gRPC service ask: is the server live, is the model ready, which models are there.

KServe 0.21 answers that a server is live and ready whatever its models are, and lets any client unload them.
"""

from __future__ import annotations

from typing import Any

from kserve.errors import InvalidInput, ModelNotFound
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from contract.problems import ProblemError
from predictor.protocols.access import Access, without_caller
from predictor.protocols.generation_model import GenerationModel


class ModelDataPlane(DataPlane):  # type: ignore[misc]  # kserve is not typed
    """Ready and live as the model is. `registry` holds the model and nothing else."""

    def __init__(self, model: GenerationModel, registry: ModelRepository) -> None:
        super().__init__(model_registry=registry)
        self.model = model

    async def ready(self) -> bool:
        return await self.model.healthy()

    async def live(self) -> dict[str, str]:
        return {"status": "alive" if self.model.alive else "dead"}


class GrpcDataPlane(ModelDataPlane):
    """Over gRPC the one method that generates asks for the token; over HTTP the guard of all requests does."""

    def __init__(self, model: GenerationModel, registry: ModelRepository, access: Access) -> None:
        super().__init__(model, registry)
        self._access = access

    async def infer(self, model_name: str, request: Any, headers: dict[str, str] | None = None, *args: Any) -> Any:
        headers = headers or {}
        self._access.check(headers)
        if not self._access.has_token(headers):
            headers = without_caller(headers)
        return await super().infer(model_name, request, headers, *args)


class RestDataPlane(ModelDataPlane):
    """Over HTTP a model that is not ready is a problem document, which names the phase of the start."""

    async def ready(self) -> bool:
        return await self.model_ready(self.model.name)

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        if model_name != self.model.name:
            raise ModelNotFound(model_name)
        if not await self.model.healthy():
            raise self.model.not_ready()
        return True

    def decode(self, body: Any, headers: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().decode(body, headers, *args, **kwargs)
        except (InvalidInput, ProblemError):
            raise
        except Exception as error:  # KServe 0.21 reads members of a body before it has checked its shape
            raise InvalidInput(f"the body cannot be read: {type(error).__name__}: {error}") from None


class FixedModelRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """Refuses to load and unload: a pod whose model was unloaded would look healthy and answer nothing."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError("This server loads its one model when it starts.")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError("This server keeps its one model for as long as it runs.")
