"""Train the painter, a small Stable Diffusion pipeline that draws emoji, from scratch on a CPU.

Usage::

    python -m scripts.training.train_painter --out models/painter

First the autoencoder learns to write a 64x64 picture as 16x16 latents, then the denoiser and the words learn the
latents, and last the decoder learns to read what the denoiser really draws. The work is counted in steps, so that it is
the same whatever else the machine does; a run that was stopped goes on from the checkpoints in ``--work``.
``MODEL_CARD.md`` is written by hand, lives in ``models/painter`` and is only copied when ``--out`` is another folder.

A prompt has one token per known word and one ``<unk>`` per stretch of anything else; only the known words are anything
but zero to the denoiser, so that the words around them cannot matter::

    <s><unk>猫</s>            画一只猫
    <s><unk>cat<unk></s>     draw a cat please
    <s></s>                  the empty prompt of classifier-free guidance
"""

# ruff: noqa: S106 - "token" is a piece of text here

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from scripts.training.painter.corpus import CACHE, ROOT, SIDE, Thing, fetch, load_pictures, load_things

CHANNELS, CELLS = 6, 16  # of a latent: (6, 16, 16)
SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
PAD, UNK, BOS, EOS = range(4)
PROMPT = 8  # tokens of the longest prompt
WIDTH = 128  # of a word's embedding
STEPS, GUIDANCE = 12, 2.0  # as the server draws
BATCH = 16  # small, because on a CPU a larger one is no faster for each picture


def build_vae() -> AutoencoderKL:
    """64x64 pixels to 16x16 latents; few channels where the picture is large, which is where the time goes."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    # Nearly sure of its latents from the start: with the usual unit variance the decoder sees only noise for long.
    torch.nn.init.constant_(vae.quant_conv.bias[CHANNELS:], -6.0)
    return vae


def build_unet() -> UNet2DConditionModel:
    """Most of the parameters at 4x4, where they cost least; the words come in by attention at 8x8 and in the middle.

    They come in with the time as well (``addition_embed_type``): with attention alone they were not heeded for long.
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
    """Cosine noise that really ends in noise, so that white paper is not a matter of the seed."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def vocabulary(things: list[Thing]) -> list[list[str]]:
    """What each thing goes by: its emoji and its words."""
    return [[*thing.glyphs, *thing.chinese, *thing.english] for thing in things]


def build_tokenizer(things: list[Thing]) -> PreTrainedTokenizerFast:
    """Cuts a prompt at the words it knows, the longest first: Latin ones as whole words, Chinese ones anywhere."""
    words = [word for group in vocabulary(things) for word in group]
    longest = sorted(words, key=lambda word: (-len(word), word))
    latin = "|".join(re.escape(word).replace("\\ ", " ").replace("\\-", "-") for word in longest if word.isascii())
    other = "|".join(word for word in longest if not word.isascii())
    tokens = {token: index for index, token in enumerate(SPECIALS + words)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token=SPECIALS[UNK]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace("\ufe0f", ""),  # asks for an emoji in colour, which is the only way it is drawn here
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    known = rf"(?<![a-z0-9])(?:{latin})(?![a-z0-9])|{other}"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(known), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=PROMPT,
        model_input_names=["input_ids", "attention_mask"],
    )


class Words(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """What the denoiser reads: an embedding for each thing, shared by all words for it, and nothing for other tokens.

    Written out, this is a CLIPTextModel without layers and with positions of zero: whichever word is used, and wherever
    it stands, the denoiser sees the same.
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


def rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate: a short rise, then a cosine to nothing."""
    return peak * min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


def vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor, slack: Tensor) -> Tensor:
    """How far pictures, (B, 3, 64, 64), come back changed from latents made up to 30 % noise, (B, 6, 16, 16).

    The noise teaches the decoder to put right what the denoiser will get slightly wrong. Two of the channels are told
    to be how red and how blue the picture is: left to themselves, the latents spoke of shapes only and left no green.
    """
    mean, logvar = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)
    logvar = logvar.clamp(-20, 5)
    # Relative to each channel's own spread, so that the encoder cannot shout it down.
    scale = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    spread = (slack * scale).square() + logvar.exp()
    back = vae.decoder(vae.post_quant_conv(mean + spread.sqrt() * noise))
    divergence = (mean.square() + logvar.exp() - 1 - logvar).mean()
    tint = 4 * nn.functional.avg_pool2d(pictures[:, ::2] - pictures[:, 1:2], SIDE // CELLS)
    return picture_loss(back, pictures) + 0.1 * nn.functional.l1_loss(mean[:, :2], tint) + 1e-4 * divergence


def picture_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Error of pictures, of their edges, which are what looks crisp, and of their colours, which come slowest."""
    change = drawn - wanted
    colours = nn.functional.avg_pool2d(change, 8).abs().mean()
    edges = torch.diff(change, dim=2).abs().mean() + torch.diff(change, dim=3).abs().mean()
    return change.abs().mean() + change.square().mean() + 0.5 * edges + 2 * colours


@dataclass
class Loop:
    """One optimiser's run of a number of steps, with its checkpoint."""

    name: str
    parts: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    checkpoint: Path
    steps: int

    def __post_init__(self) -> None:
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.parts.load_state_dict(state["parts"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            self.step = state["step"]
        self.peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.window, self.losses = 0.0, 0
        self.cpu = time.process_time()

    @property
    def running(self) -> bool:
        """Whether steps are left; sets the rate for the next one."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = rate_at(self.step, self.steps, peak, 100)
        return self.step < self.steps

    def learn(self, loss: Tensor) -> None:
        """One step, and now and then a line of log and a checkpoint."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.window, self.losses = self.window + loss.item(), self.losses + 1
        if self.losses == 50:
            spent = (time.process_time() - self.cpu) / 50
            progress = f"{self.name} step {self.step}/{self.steps}  loss {self.window / 50:.4f}"
            print(f"{progress}  {spent:.3f} s of CPU a step", flush=True)
            self.window, self.losses, self.cpu = 0.0, 0, time.process_time()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {"parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        fresh = self.checkpoint.with_suffix(".new")
        torch.save({**state, "rng": torch.get_rng_state()}, fresh)
        fresh.replace(self.checkpoint)


def train_vae(pictures: Tensor, work: Path, steps: int) -> AutoencoderKL:
    """The autoencoder, on pictures, (N, 3, 64, 64)."""
    vae = build_vae()
    parts = nn.ModuleDict({"vae": vae})
    optimizer = torch.optim.AdamW(
        [{"params": list(vae.parameters()), "peak": 2e-3}], betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    loop = Loop("vae", parts, optimizer, work / "vae.pt", steps)
    while loop.running:
        chosen = pictures[torch.randint(len(pictures), (8,))]
        noise, slack = torch.randn(len(chosen), CHANNELS, CELLS, CELLS), 0.3 * torch.rand(len(chosen), 1, 1, 1)
        loop.learn(vae_loss(vae, chosen, noise, slack))
        if loop.step % 200 == 0 or loop.step == steps:
            loop.save()
    return vae


def standardise(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The pictures' latents, (N, 6, 16, 16), after giving each channel mean 0 and variance 1.

    What is taken from them is folded into the convolutions on either side: pictures come back as before.
    """
    with torch.no_grad():
        raw = torch.cat([vae.encode(some).latent_dist.mode() for some in pictures.split(32)])
        mean, spread = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
        after, before = vae.quant_conv, vae.post_quant_conv
        after.bias[:CHANNELS] = (after.bias[:CHANNELS] - mean) / spread
        after.weight[:CHANNELS] /= spread.view(-1, 1, 1, 1)
        after.bias[CHANNELS:] -= 2 * spread.log()
        before.bias += before.weight[:, :, 0, 0] @ mean
        before.weight *= spread.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
    latents: Tensor = (raw - mean.view(1, -1, 1, 1)) / spread.view(1, -1, 1, 1)
    return latents


def train_unet(
    latents: Tensor, shown: Tensor, work: Path, steps: int, every: int
) -> Iterator[tuple[UNet2DConditionModel, Words]]:
    """The denoiser and the words, on latents, (N, 6, 16, 16), of the things shown, (N,).

    Yields the weights, averaged over some 500 steps, every so many steps and at the end.
    """
    parts = nn.ModuleDict({"unet": build_unet(), "words": Words(int(shown.max()) + 1)})
    parts.to(memory_format=torch.channels_last)
    parts["average"] = nn.ModuleList(copy.deepcopy([parts["unet"], parts["words"]])).requires_grad_(False)
    unet, words, average = parts["unet"], parts["words"], parts["average"]
    # A word is seen once in some 250 pictures: what it says has to be learnt faster than how to draw.
    groups = [{"params": list(unet.parameters()), "peak": 1e-3}, {"params": list(words.parameters()), "peak": 5e-3}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    loop = Loop("unet", parts, optimizer, work / "unet.pt", steps)
    alphas = build_scheduler().alphas_cumprod
    order = torch.randperm(len(latents))
    while loop.running:
        # Every picture comes up equally often, and every batch has its share of each part of the noise.
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
            # A short memory at first, so that an early look shows what has been learnt.
            keep = min(0.998, loop.step / (loop.step + 20))
            learnt = [*unet.parameters(), *words.parameters()]
            torch._foreach_lerp_(list(average.parameters()), learnt, 1 - keep)
        if loop.step % every == 0 or loop.step == steps:
            loop.save()
            yield average[0], average[1]
    yield average[0], average[1]


def assemble(
    vae: AutoencoderKL, unet: UNet2DConditionModel, words: Words, things: list[Thing]
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


def train_decoder(
    pipeline: StableDiffusionPipeline, pictures: Tensor, latents: Tensor, shown: Tensor, work: Path, steps: int
) -> None:
    """Teaches the decoder that what the denoiser draws, (M, 6, 16, 16), means the picture it is nearest to."""
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
        distance[some[:, None] != shown] = math.inf
        drawn.append(made)
        wanted.append(distance.argmin(dim=1))
    examples, targets = torch.cat(drawn), torch.cat(wanted)
    vae = pipeline.vae
    learning = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW([{"params": learning, "peak": 7e-4}], betas=(0.9, 0.99), weight_decay=0, fused=True)
    loop = Loop("decoder", nn.ModuleDict({"vae": vae}), optimizer, work / "decoder.pt", steps)
    while loop.running:
        chosen = torch.randint(len(examples), (8,))
        slack = 0.15 * torch.rand(len(chosen), 1, 1, 1)
        noisy = examples[chosen] + slack * torch.randn(len(chosen), CHANNELS, CELLS, CELLS)
        loop.learn(picture_loss(vae.decode(noisy / vae.config.scaling_factor).sample, pictures[targets[chosen]]))
        if loop.step % 200 == 0 or loop.step == steps:
            loop.save()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the painter from scratch.")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "painter", help="model folder to write")
    parser.add_argument("--work", type=Path, default=CACHE / "run", help="folder of checkpoints, to go on from")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, instead of fetching it")
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=4500, help="of the denoiser")
    parser.add_argument("--decoder-steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=500, help="steps of the denoiser between looks at the model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    things = load_things()
    pictures, shown = load_pictures(things, fetch(args.font))
    vae = train_vae(pictures, args.work, args.vae_steps)
    latents = standardise(vae, pictures)
    for unet, words in train_unet(latents, shown, args.work, args.steps, args.every):
        pipeline = assemble(vae, unet, words, things)
        save(pipeline, args.out)
    train_decoder(pipeline, pictures, latents, shown, args.work, args.decoder_steps)
    save(pipeline, args.out)


if __name__ == "__main__":
    main()
