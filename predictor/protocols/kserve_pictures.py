"""Pictures over KServe's V1 and V2 protocols: V1 carries files in base64, V2 as BYTES tensors."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from kserve.protocol.infer_type import InferRequest, InferResponse
from pydantic import Field

from contract.fields import StrictModel
from contract.limits import INSTANCES
from contract.request import GenerationRequest, Kind, Painting, PicturePrompt
from contract.result import PictureResult, PictureTiming
from predictor.engine.events import EventListener, PictureFinished
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask, Task
from predictor.protocols.fan_out import all_instances
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.kserve_bodies import read_v1_body, read_v2_tensors
from predictor.protocols.picture_file import encode_finished, encoded
from wire.concurrency.all_of import all_of


class _V1Body(StrictModel):
    instances: list[PicturePrompt] = Field(min_length=1, max_length=INSTANCES)


class PictureModel(GenerationModel):
    """A prediction is one picture or more."""

    kind: ClassVar[Kind] = "image"
    outputs: ClassVar[dict[str, str]] = {"image": "BYTES", "seed": "INT64"}

    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        body = read_v1_body(payload, _V1Body)
        self.check_count("instances", sum(instance.n or 1 for instance in body.instances))
        pictures = await all_instances([self._paint(instance.prompt, instance, headers) for instance in body.instances])
        return {
            "predictions": [
                await _prediction(finished, instance, self.name)
                for finished, instance in zip(pictures, body.instances, strict=True)
            ]
        }

    async def _infer(self, infer_request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        prompts, painting = read_v2_tensors(infer_request, Painting, self.outputs)
        self.check_count("inputs.prompt", len(prompts) * (painting.n or 1))
        of_prompts = await all_of([self._paint(prompt, painting, headers) for prompt in prompts])
        pictures = [(prompt, picture) for prompt, some in zip(prompts, of_prompts, strict=True) for picture in some]
        form = painting.format or "png"
        files = await asyncio.gather(
            *(asyncio.to_thread(encode_finished, picture, form, prompt, self.name) for prompt, picture in pictures)
        )
        # JSON has no bytes, so without binary outputs a file is text in base64.
        images = [base64.b64encode(file).decode() for file in files]
        return self._response(infer_request, {"image": images, "seed": [picture.seed for _, picture in pictures]})

    async def _paint(self, prompt: str, painting: Painting, headers: Mapping[str, str]) -> list[PictureFinished]:
        generation = await self.submit(PictureTask(prompt, painting), headers)
        pictures, _ = await generation.pictures()
        return pictures

    def task(self, request: GenerationRequest) -> Task:
        return PictureTask(request.prompt or "", request)  # check_fits has refused what has none

    async def result(
        self,
        result_id: str,
        request: GenerationRequest,
        generation: Generation,
        begun: float,
        listener: EventListener | None,
    ) -> PictureResult:
        pictures, queue_s = await generation.pictures(listener)
        return PictureResult(
            id=result_id,
            model=self.name,
            images=[await encoded(one, request.format or "png", request.prompt or "", self.name) for one in pictures],
            steps=pictures[0].steps,
            understood=pictures[0].understood,
            timing=PictureTiming(queue_s=round(queue_s, 4), total_s=round(time.monotonic() - begun, 4)),
        )


async def _prediction(pictures: list[PictureFinished], prompt: PicturePrompt, model: str) -> dict[str, Any]:
    """A V1 prediction of one prompt, with the members that `/generate` answers with, too."""
    images = [(await encoded(one, prompt.format or "png", prompt.prompt, model)).model_dump() for one in pictures]
    return {"images": images, "steps": pictures[0].steps, "understood": pictures[0].understood}
