"""What the painter learns from: Noto Color Emoji's pictures, and the Chinese and English words for them.

The pictures are the 136x128 colour bitmaps of Debian's package ``fonts-noto-color-emoji`` (SIL Open Font License 1.1),
taken from the installed font or fetched with ``apt-get download``; the names come from the PyPI package ``emoji``, to
which ``things.txt`` adds everyday words. There, one line is one thing: its picture, Chinese words | English words. The
first of each are the names shown to people. Single characters that are part of other everyday words (心 in 开心) are
left out. Neither the font nor its pictures are committed.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import emoji
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scripts.project import ROOT

CACHE = ROOT / "data" / "painter"
PACKAGE = "fonts-noto-color-emoji"
FONT = Path("usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EM = 109  # the one size, in pixels per em, that the font's bitmaps have
BITMAP = (136, 128)
SIDE = 64  # of a picture, in pixels
THINGS = Path(__file__).with_name("things.txt")


@dataclass(frozen=True)
class Thing:
    """Something the painter knows: its emoji, and the Chinese and English words that mean it, lower case."""

    glyphs: tuple[str, ...]
    chinese: tuple[str, ...]
    english: tuple[str, ...]


def plural(word: str) -> str | None:
    """The regular English plural, None for what looks like one; that it may be no word ("sheeps") does no harm."""
    if word.endswith("s") and not word.endswith(("ss", "us")):
        return None
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def load_things() -> list[Thing]:
    """The table in its order, with the package's names where they are words that nothing else goes by."""
    rows: list[tuple[list[str], list[str], list[str]]] = []
    for line in THINGS.read_text(encoding="utf-8").splitlines():
        pictures, _, words = line.partition(" ")
        first, _, second = words.lower().partition("|")
        english = [word.replace("_", " ") for word in second.split()]
        rows.append(([char for char in pictures if char != "\ufe0f"], first.split(), english))
    taken = {word for _, chinese, english in rows for word in chinese + english}
    emoji.config.load_language("zh")
    data = {key.replace("\ufe0f", ""): value for key, value in emoji.EMOJI_DATA.items()}
    things = []
    for glyphs, chinese, english in rows:
        for glyph in glyphs:
            entry = data[glyph]
            names = [entry["en"], *entry.get("alias", ())]
            for name in (text.strip(":").replace("_", " ").lower() for text in names):
                letters = name.replace(" ", "")
                if name not in taken and letters.isascii() and letters.isalpha() and name.count(" ") <= 1:
                    taken.add(name)
                    english.append(name)
            name = entry["zh"].strip(":").lower()
            if name not in taken and len(name) > 1 and all(_is_han(char) for char in name):
                taken.add(name)
                chinese.append(name)
        for word in list(english):
            many = plural(word)
            if many is not None and many not in taken:
                taken.add(many)
                english.append(many)
        things.append(Thing(tuple(glyphs), tuple(chinese), tuple(english)))
    return things


def _is_han(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK UNIFIED")


def fetch(font: Path | None) -> Path:
    """The font file: the one given, the installed one, an earlier download, or a fresh one from Debian's mirror."""
    for known in (font, Path("/") / FONT, CACHE / FONT):
        if known is not None and known.exists():
            return known
    if shutil.which("apt-get") is None:
        raise SystemExit(f"no apt-get here: unpack Debian's {PACKAGE} elsewhere and name its font file with --font")
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", PACKAGE], cwd=CACHE, check=True)
    archive = next(CACHE.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=CACHE, check=True)
    return CACHE / FONT


def draw(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji on white, 64x64, RGB."""
    large = Image.new("RGBA", BITMAP, (255, 255, 255, 255))
    left, top, _, _ = font.getbbox(glyph)
    ImageDraw.Draw(large).text((-left, -top), glyph, font=font, embedded_color=True)
    width, height = SIDE, round(SIDE * BITMAP[1] / BITMAP[0])
    picture = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    small = large.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    picture.paste(small, (0, (SIDE - height) // 2))
    return picture


def load_pictures(things: list[Thing], font_file: Path) -> tuple[Tensor, Tensor]:
    """Every picture, (N, 3, 64, 64) in -1..1, and the index of the thing that each one shows, (N,)."""
    font = ImageFont.truetype(str(font_file), EM)
    pixels = [np.asarray(draw(glyph, font)) for thing in things for glyph in thing.glyphs]
    shown = [index for index, thing in enumerate(things) for _ in thing.glyphs]
    pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures.contiguous(), torch.tensor(shown)
