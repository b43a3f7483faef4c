"""Put pictures that the painter draws on one sheet, with the prompts beneath.

Usage::

    python -m scripts.training.contact_sheet --model models/painter --out docs/painter.png

Prompts in Chinese need a font with Chinese characters; one is looked for with fontconfig's ``fc-list`` or named with
``--font``. Seeds are the prompts' numbers: the same model gives the same sheet.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from scripts.progress import tracked
from scripts.project import ROOT

PROMPTS = """画一只猫|a red apple|draw a panda please|一条龙|sunflower|热气腾腾的拉面
画一座火山|a rocket|小提琴|an owl at night|西瓜|a steam train
一把雨伞|hamburger|蝴蝶|a castle on a hill|圣诞树|a robot
草莓|a penguin|彩虹|birthday cake|红灯笼|whale"""
COLUMNS, SCALE, MARGIN, CAPTION = 6, 2, 12, 26  # pictures a row; pixels for each of theirs; pixels around; below


def find_font() -> str:
    """The file of a font that has Chinese characters."""
    command = ["fc-list", "--format=%{file}\n", ":lang=zh-cn"]  # fc-match would find one without them rather than none
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    if not found:
        raise SystemExit("no font with Chinese characters: install one (Debian: fonts-wqy-microhei) or name its --font")
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a contact sheet with the painter.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "painter")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "painter.png")
    parser.add_argument("--font", help="font file for the captions")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    font = ImageFont.truetype(args.font or find_font(), 14)
    pipeline = DiffusionPipeline.from_pretrained(args.model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts = PROMPTS.replace("\n", "|").split("|")
    pictures = []
    for seed, prompt in enumerate(tracked(prompts, "pictures")):
        generator = torch.Generator("cpu").manual_seed(seed)
        output = pipeline(prompt, num_inference_steps=args.steps, guidance_scale=args.guidance, generator=generator)
        pictures.append(output.images[0])
    width, height = (SCALE * length for length in pictures[0].size)
    cell = (width + 2 * MARGIN, height + MARGIN + CAPTION)
    sheet = Image.new("RGB", (COLUMNS * cell[0], -(-len(pictures) // COLUMNS) * cell[1] + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        left, top = number % COLUMNS * cell[0], number // COLUMNS * cell[1]
        sheet.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (left + MARGIN, top + MARGIN))
        middle = (left + cell[0] / 2, top + MARGIN + height + CAPTION / 2)
        pen.text(middle, prompt, fill=(60, 60, 60), font=font, anchor="mm")
    sheet.quantize(256, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(f"{args.out}: {sheet.width}x{sheet.height}, {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
