"""The KServe Model around a picture engine. V1 carries files in base64, V2 as BYTES tensors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse
from pydantic import Field

from contract.fields import StrictModel
from contract.limits import INSTANCES
from contract.problems import ProblemError
from contract.request import Painting, PicturePrompt
from predictor.engine import Painted, PictureTask
from predictor.model import GenerationModel, all_of, read_tensors, v1_body
from predictor.picture_file import MEDIA_TYPES, finished

_OUTPUTS = {"image": "BYTES", "seed": "INT64"}


class _V1Body(StrictModel):
    instances: list[PicturePrompt] = Field(min_length=1, max_length=INSTANCES)


class PictureModel(GenerationModel):
    """Paints: a prediction is one picture or more."""

    async def predict(
        self, payload: dict[str, Any] | bytes | InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        if isinstance(payload, InferRequest):
            try:
                return await self._infer(payload, headers or {})
            except ProblemError as error:
                raise self._grpc_error(error) if payload.from_grpc else error from None
        body = v1_body(payload, _V1Body)
        paintings = await all_of([self._paint(instance.prompt, instance, headers or {}) for instance in body.instances])
        return {
            "predictions": [
                await _prediction(painted, instance, self.name)
                for painted, instance in zip(paintings, body.instances, strict=True)
            ]
        }

    async def _infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        prompts, painting = read_tensors(request, Painting, _OUTPUTS)
        paintings = await all_of([self._paint(prompt, painting, headers) for prompt in prompts])
        painted = [one for some in paintings for one in some]
        files = await asyncio.gather(
            *(
                asyncio.to_thread(finished, one, painting.format or "png", prompt, self.name)
                for prompt, some in zip(prompts, paintings, strict=True)
                for one in some
            )
        )
        shape = [len(painted)]
        return InferResponse(
            request.id or "",
            self.name,
            [
                # JSON has no bytes, so without binary outputs a file is text in base64.
                InferOutput("image", shape, "BYTES", [base64.b64encode(file).decode() for file in files]),
                InferOutput("seed", shape, "INT64", [one.seed for one in painted]),
            ],
            from_grpc=request.from_grpc,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=None if request.from_grpc else request.request_outputs,
        )

    async def _paint(self, prompt: str, painting: Painting, headers: Mapping[str, str]) -> list[Painted]:
        generation = await self.submit(PictureTask(prompt, painting), headers)
        try:
            painted = [event async for event in generation if isinstance(event, Painted)]
        finally:
            generation.close()
        return sorted(painted, key=lambda one: one.picture)

    # V2 metadata

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in _OUTPUTS.items()]


async def _prediction(painted: list[Painted], painting: PicturePrompt, model: str) -> dict[str, Any]:
    """The pictures of one prompt: the members that `/generate` answers with, too."""
    form = painting.format or "png"
    images = []
    for one in painted:
        file = await asyncio.to_thread(finished, one, form, painting.prompt, model)
        images.append(
            {
                "data": base64.b64encode(file).decode(),
                "media_type": MEDIA_TYPES[form],
                "seed": one.seed,
                "width": one.image.width,
                "height": one.image.height,
            }
        )
    return {"images": images, "steps": painted[0].steps, "understood": painted[0].understood}
