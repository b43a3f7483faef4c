"""The painter's denoiser, and the embeddings of words that it reads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from scripts.training.painter.autoencoder import CELLS, CHANNELS
from scripts.training.painter.corpus import Thing
from scripts.training.painter.tokenizer import BOS, EOS, PAD, PROMPT, SPECIALS, vocabulary
from scripts.training.painter.training_loop import Loop

WIDTH = 128  # of a word's embedding
BATCH = 16  # small, because on a CPU a larger one is no faster for each picture


def build_unet() -> UNet2DConditionModel:
    """Most of the parameters are at 4x4, where they cost least; words enter by attention at 8x8 and in the middle.

    They also enter with the time step (``addition_embed_type``): by attention alone, they had no effect for long.
    """
    return UNet2DConditionModel(
        sample_size=CELLS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(48, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """A cosine schedule that ends in pure noise, so that the background is white for every seed."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


class WordEmbedding(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """An embedding for each thing, shared by all words for it, and zero for all other tokens.

    `export` writes it as a CLIPTextModel without layers and with zero position embeddings. So the denoiser sees the
    same, whichever of its words stands for a thing and wherever it stands.
    """

    def __init__(self, things: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1 + things, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, bias=False)

    def forward(self, shown: Tensor) -> Tensor:
        """Things, (B,), or -1 for a prompt in which nothing is understood, to (B, 8, 128)."""
        ids = torch.zeros((len(shown), PROMPT), dtype=torch.long)
        ids[:, 1] = shown + 1
        hidden: Tensor = self.norm(self.embedding(ids)) * (ids > 0).unsqueeze(-1)
        return hidden

    def export(self, things: list[Thing]) -> CLIPTextModel:
        """The CLIPTextModel that does the same for the tokenizer's ids."""
        owners = [index for index, group in enumerate(vocabulary(things)) for _ in group]
        config = CLIPTextConfig(
            vocab_size=len(SPECIALS) + len(owners),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=0,
            num_attention_heads=4,
            max_position_embeddings=PROMPT,
            layer_norm_eps=self.norm.eps,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        model = CLIPTextModel(config)
        with torch.no_grad():
            words = model.embeddings.token_embedding.weight
            words.zero_()
            words[len(SPECIALS) :] = self.embedding.weight[1:][owners]
            model.embeddings.position_embedding.weight.zero_()
            model.final_layer_norm.weight.copy_(self.norm.weight)
        return model


def train_unet(
    latents: Tensor, shown: Tensor, work: Path, steps: int, every: int
) -> Iterator[tuple[UNet2DConditionModel, WordEmbedding]]:
    """The denoiser and the words, on latents, (N, 6, 16, 16), of the things shown, (N,).

    Yields the weights, averaged over some 500 steps, every so many steps and at the end.
    """
    parts = nn.ModuleDict({"unet": build_unet(), "words": WordEmbedding(int(shown.max()) + 1)})
    parts.to(memory_format=torch.channels_last)
    parts["average"] = nn.ModuleList(copy.deepcopy([parts["unet"], parts["words"]])).requires_grad_(False)
    unet, words, average = parts["unet"], parts["words"], parts["average"]
    # Each word occurs once in some 250 pictures, so it needs a higher rate than the denoiser.
    groups = [{"params": list(unet.parameters()), "peak": 1e-3}, {"params": list(words.parameters()), "peak": 5e-3}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    loop = Loop("unet", parts, optimizer, work / "unet.pt", steps)
    alphas = build_scheduler().alphas_cumprod
    order = torch.randperm(len(latents))
    for _ in loop.left():
        # Every picture comes up equally often, and every batch covers the whole range of noise levels.
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(latents))])
        chosen, order = order[:BATCH], order[BATCH:]
        times = ((torch.arange(BATCH) + torch.rand(BATCH)) * len(alphas) / BATCH).long()
        signal, noisiness = (part.view(-1, 1, 1, 1) for part in (alphas[times].sqrt(), (1 - alphas[times]).sqrt()))
        clean = latents[chosen]
        noise = torch.randn_like(clean)
        noisy = (signal * clean + noisiness * noise).contiguous(memory_format=torch.channels_last)
        asked = torch.where(torch.rand(BATCH) < 0.1, -1, shown[chosen])
        velocity = unet(noisy, times, words(asked)).sample
        loop.learn(nn.functional.mse_loss(velocity, signal * noise - noisiness * clean))
        with torch.no_grad():
            # A short average at first, so that an early checkpoint shows what has been learnt.
            keep = min(0.998, loop.step / (loop.step + 20))
            learnt = [*unet.parameters(), *words.parameters()]
            torch._foreach_lerp_(list(average.parameters()), learnt, 1 - keep)
        if loop.step % every == 0 or loop.step == steps:
            loop.save()
            yield average[0], average[1]
    yield average[0], average[1]
