"""The pipeline of the trained parts, and the model folder that it is saved to."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

from scripts.project import ROOT
from scripts.training.painter.corpus import Thing
from scripts.training.painter.denoiser import WordEmbedding, build_scheduler
from scripts.training.painter.tokenizer import build_tokenizer

STEPS, GUIDANCE = 12, 2.0  # as the server draws


def assemble(
    vae: AutoencoderKL, unet: UNet2DConditionModel, words: WordEmbedding, things: list[Thing]
) -> StableDiffusionPipeline:
    """The pipeline of the trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=words.export(things),
        tokenizer=build_tokenizer(things),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipeline: StableDiffusionPipeline, out: Path) -> None:
    """Write the model folder: weights in half precision, which diffusers turns back into float32 when it loads them.

    The text encoder stays in float32: transformers would load it as it is written.
    """
    halves = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("vae", "unet")}
    StableDiffusionPipeline(**{**pipeline.components, **halves}, requires_safety_checker=False).save_pretrained(out)
    settings = json.dumps({"num_inference_steps": STEPS, "guidance_scale": GUIDANCE})
    (out / "generation_config.json").write_text(settings + "\n", encoding="utf-8")
    for weights in out.rglob("*.safetensors"):
        weights.chmod(0o644)
    card = ROOT / "models" / "painter" / "MODEL_CARD.md"
    if card.exists() and card.parent.resolve() != out.resolve():
        shutil.copy(card, out / card.name)
