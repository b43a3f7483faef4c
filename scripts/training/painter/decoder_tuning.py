"""The last stage of training: the decoder learns to read what the denoiser really draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from scripts.training.painter.autoencoder import CELLS, CHANNELS, picture_loss
from scripts.training.painter.corpus import load_things
from scripts.training.painter.pipeline import GUIDANCE, STEPS
from scripts.training.painter.tokenizer import vocabulary
from scripts.training.painter.training_loop import Loop


@dataclass(frozen=True)
class Encoded:
    """Pictures, (N, 3, 64, 64), their latents, (N, 6, 16, 16), and the index of the thing that each shows, (N,)."""

    pictures: Tensor
    latents: Tensor
    shown: Tensor


def train_decoder(pipeline: StableDiffusionPipeline, encoded: Encoded, work: Path, steps: int) -> None:
    """Teach the decoder that what the denoiser draws, (M, 6, 16, 16), means the picture that it is nearest to."""
    latents = encoded.latents
    names = [group[-1] for group in vocabulary(load_things())]
    drawn, wanted = [latents], [torch.arange(len(latents))]
    pipeline.set_progress_bar_config(disable=True)
    for some in torch.arange(len(names)).split(16):
        made = pipeline(
            [names[index] for index in some],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(1000 + int(index)) for index in some],
            output_type="latent",
        ).images
        distance = torch.cdist(made.flatten(1), latents.flatten(1))
        distance[some[:, None] != encoded.shown] = math.inf
        drawn.append(made)
        wanted.append(distance.argmin(dim=1))
    examples, targets = torch.cat(drawn), torch.cat(wanted)
    vae = pipeline.vae
    learning = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW([{"params": learning, "peak": 7e-4}], betas=(0.9, 0.99), weight_decay=0, fused=True)
    loop = Loop("decoder", nn.ModuleDict({"vae": vae}), optimizer, work / "decoder.pt", steps)
    for _ in loop.left():
        chosen = torch.randint(len(examples), (8,))
        slack = 0.15 * torch.rand(len(chosen), 1, 1, 1)
        noisy = examples[chosen] + slack * torch.randn(len(chosen), CHANNELS, CELLS, CELLS)
        loop.learn(
            picture_loss(vae.decode(noisy / vae.config.scaling_factor).sample, encoded.pictures[targets[chosen]])
        )
        if loop.step % 200 == 0 or loop.step == steps:
            loop.save()
