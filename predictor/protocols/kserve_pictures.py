"""The KServe Model around a picture engine. V1 carries files in base64, V2 as BYTES tensors."""

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
from contract.result import Picture, PictureResult, PictureTiming
from predictor.engine.events import EventListener, PictureFinished
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask, Task
from predictor.protocols.generation_model import GenerationModel, all_of, of_instances, read_tensors, v1_body
from predictor.protocols.picture_file import MEDIA_TYPES, finished


class _V1Body(StrictModel):
    instances: list[PicturePrompt] = Field(min_length=1, max_length=INSTANCES)


class PictureModel(GenerationModel):
    """Paints: a prediction is one picture or more."""

    kind: ClassVar[Kind] = "image"
    outputs: ClassVar[dict[str, str]] = {"image": "BYTES", "seed": "INT64"}

    async def _predict_v1(self, payload: dict[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        body = v1_body(payload, _V1Body)
        self.check_places("instances", sum(instance.n or 1 for instance in body.instances))
        paintings = await of_instances([self._paint(instance.prompt, instance, headers) for instance in body.instances])
        return {
            "predictions": [
                await _prediction(painted, instance, self.name)
                for painted, instance in zip(paintings, body.instances, strict=True)
            ]
        }

    async def _infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        prompts, painting = read_tensors(request, Painting, self.outputs)
        self.check_places("inputs.prompt", len(prompts) * (painting.n or 1))
        paintings = await all_of([self._paint(prompt, painting, headers) for prompt in prompts])
        painted = [one for some in paintings for one in some]
        files = await asyncio.gather(
            *(
                asyncio.to_thread(finished, one, painting.format or "png", prompt, self.name)
                for prompt, some in zip(prompts, paintings, strict=True)
                for one in some
            )
        )
        # JSON has no bytes, so without binary outputs a file is text in base64.
        images = [base64.b64encode(file).decode() for file in files]
        return self._response(request, {"image": images, "seed": [one.seed for one in painted]})

    async def _paint(self, prompt: str, painting: Painting, headers: Mapping[str, str]) -> list[PictureFinished]:
        generation = await self.submit(PictureTask(prompt, painting), headers)
        painted, _ = await generation.pictures()
        return painted

    def task(self, order: GenerationRequest) -> Task:
        return PictureTask(order.prompt, order)

    async def result(
        self,
        result_id: str,
        order: GenerationRequest,
        generation: Generation,
        begun: float,
        watch: EventListener | None,
    ) -> PictureResult:
        painted, queue_s = await generation.pictures(watch)
        return PictureResult(
            id=result_id,
            model=self.name,
            images=await _pictures(painted, order, self.name),
            steps=painted[0].steps,
            understood=painted[0].understood,
            timing=PictureTiming(queue_s=round(queue_s, 4), total_s=round(time.monotonic() - begun, 4)),
        )


async def _prediction(painted: list[PictureFinished], prompt: PicturePrompt, model: str) -> dict[str, Any]:
    """The pictures of one prompt: the members that `/generate` answers with, too."""
    images = [picture.model_dump() for picture in await _pictures(painted, prompt, model)]
    return {"images": images, "steps": painted[0].steps, "understood": painted[0].understood}


async def _pictures(painted: list[PictureFinished], prompt: PicturePrompt, model: str) -> list[Picture]:
    form = prompt.format or "png"
    pictures = []
    for one in painted:
        file = await asyncio.to_thread(finished, one, form, prompt.prompt, model)
        pictures.append(
            Picture(
                data=base64.b64encode(file).decode(),
                media_type=MEDIA_TYPES[form],
                seed=one.seed,
                width=one.image.width,
                height=one.image.height,
            )
        )
    return pictures
