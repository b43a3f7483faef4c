"""Measure the painter: whether it draws what is asked, in both languages, and how fast.

Usage::

    python -m scripts.training.evaluate_painter --model models/painter

The model is loaded only through diffusers' public interface. For every thing it knows and every seed, it draws one
picture, asked in Chinese and English in turn; the picture counts as right when, of all the reference pictures, the one
nearest to it pixel by pixel shows that thing. The references are drawn here, from the font itself (fetched with
``apt-get download`` if it is not installed, or ``--font FILE``): no code is shared with the trainer. What the painter
knows is read from its own tokenizer, in which every emoji is followed by the words for it.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from scripts.progress import tracked
from scripts.project import ROOT

FONT = Path("usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
CACHE = ROOT / "data" / "painter"
STEPS, GUIDANCE = 12, 2.0  # as the server draws
BATCH = 15  # pictures drawn together
TEMPLATES = {
    "zh": ["{}", "画一个{}", "一张{}的图片", "请帮我画{}，谢谢"],
    "en": ["{}", "draw a {} please", "a picture of a {}", "I would like to see the {}!"],
}


@dataclass(frozen=True)
class Thing:
    """A thing the painter knows, by its emoji (one or two) and the words for it."""

    emoji: tuple[str, ...]
    words: tuple[str, ...]

    def name(self, language: str) -> str:
        """The first Chinese or the first English word."""
        return next(word for word in self.words if word.isascii() == (language == "en"))


@dataclass(frozen=True)
class DrawingRequest:
    """A picture to be drawn, and what it should show."""

    thing: Thing
    language: str
    prompt: str
    seed: int


def known_things(tokenizer: Any) -> list[Thing]:
    """The tokenizer's vocabulary in the order of its ids: emoji, then words, then the next thing's emoji."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    things: list[tuple[list[str], list[str]]] = []
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        if token in special:
            continue
        if is_emoji(token):
            if not things or things[-1][1]:
                things.append(([], []))
            things[-1][0].append(token)
        else:
            things[-1][1].append(token)
    return [Thing(tuple(emoji), tuple(words)) for emoji, words in things]


def is_emoji(token: str) -> bool:
    """Whether a token is a picture character: neither Latin nor a Chinese character."""
    return not token.isascii() and not any("\u3400" <= char <= "\u9fff" for char in token)


def find_font(font: Path | None) -> Path:
    """The font named, the installed one, or the one of Debian's package."""
    if font is not None:
        return font
    if not (Path("/") / FONT).exists() and not (CACHE / FONT).exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "fonts-noto-color-emoji"], cwd=CACHE, check=True)
        archive = next(CACHE.glob("fonts-noto-color-emoji_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=CACHE, check=True)
    return Path("/") / FONT if (Path("/") / FONT).exists() else CACHE / FONT


def reference(emoji: str, font: ImageFont.FreeTypeFont, side: int) -> npt.NDArray[np.float32]:
    """One emoji on a white square, flattened, 0..1: the 136x128 bitmap, scaled to the square's width."""
    paper = Image.new("RGBA", (136, 136), "white")
    box = font.getbbox(emoji)
    ImageDraw.Draw(paper).text((-box[0], 4 - box[1]), emoji, font=font, embedded_color=True)
    return as_vector(paper.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))


def as_vector(picture: Image.Image) -> npt.NDArray[np.float32]:
    """An RGB picture's values, 0..1, in one row."""
    return np.asarray(picture.convert("RGB"), dtype=np.float32).ravel() / np.float32(255)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the painter.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "painter")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, instead of fetching it")
    parser.add_argument("--seeds", type=int, default=3, help="pictures of each thing")
    parser.add_argument("--things", type=int, help="only so many things, spread over all of them")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="what it computes in")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    files = [path for path in args.model.rglob("*") if path.is_file()]
    start = time.perf_counter()
    dtype = getattr(torch, args.dtype)
    pipeline = DiffusionPipeline.from_pretrained(args.model, torch_dtype=dtype, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    loading = time.perf_counter() - start
    things = known_things(pipeline.tokenizer)
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    size = sum(parameter.numel() for part in parts for parameter in part.parameters())
    print(f"{type(pipeline).__name__}, loaded in {loading:.2f} s; folder {sum(map(_size, files)) / 1e6:.1f} MB")
    print(f"{size / 1e6:.2f} M parameters, {len(things)} things, {len(pipeline.tokenizer)} tokens")

    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    font = ImageFont.truetype(str(find_font(args.font)), 109)
    references = np.stack([reference(emoji, font, side) for thing in things for emoji in thing.emoji])
    owners = [thing for thing in things for _ in thing.emoji]
    asked = things[:: max(1, len(things) // args.things)] if args.things else things

    def draw(requests: list[DrawingRequest]) -> list[Image.Image]:
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        output = pipeline(
            [request.prompt for request in requests],
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
            generator=generators,
        )
        pictures: list[Image.Image] = output.images
        return pictures

    requests = []
    for number, thing in enumerate(asked):
        for seed in range(args.seeds):
            language = ("zh", "en")[(number + seed) % 2]
            template = TEMPLATES[language][(number + seed) // 2 % len(TEMPLATES[language])]
            requests.append(DrawingRequest(thing, language, template.format(thing.name(language)), seed))
    draw(requests[:1])
    start = time.perf_counter()
    for request in requests[:10]:
        draw([request])
    alone = (time.perf_counter() - start) / 10
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    distances = []
    start = time.perf_counter()
    for first in tracked(range(0, len(requests), BATCH), "batches"):
        some = requests[first : first + BATCH]
        for request, picture in zip(some, draw(some), strict=True):
            errors = np.square(references - as_vector(picture)).mean(axis=1)
            nearest = owners[int(errors.argmin())]
            distances.append(float(errors.min()) ** 0.5)
            total[request.language] += 1
            if nearest is request.thing:
                right[request.language] += 1
            else:
                wrong[request.thing.name("en"), nearest.name("en")] += 1
    together = (time.perf_counter() - start) / len(requests)
    count = total.total()
    shares = ", ".join(f"{name} {100 * right[name] / total[name]:.1f} %" for name in total)
    print(f"{args.steps} steps, guidance {args.guidance}, {count} pictures ({len(asked)} things, {args.seeds} seeds)")
    print(f"nearest of {len(references)} references is right: {100 * right.total() / count:.1f} % ({shares})")
    print(f"median distance to the nearest reference: {np.median(distances):.3f} (root mean square, of 1)")
    print("confusions:", ", ".join(f"{a} as {b} ({n})" for (a, b), n in wrong.most_common()) or "none")
    print(
        f"{side}x{side} pixels, {args.threads} threads: {alone:.2f} s a picture, {together:.2f} s in batches of {BATCH}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main()
