"""The poems the poet learns from: fetching, cleaning and splitting, shared by the trainer and the evaluator.

The corpus is the npm package ``chinese-poetry`` (MIT licence; the poems themselves are in the public domain). It is
fetched with ``npm pack`` and never committed. What is kept: Tang and Song shi of 4 or 8 lines, all of 5 or all of 7
characters, in simplified characters, one copy of each, without marks for lost characters.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "chinese-poetry"
VERSION = "2.0.1"

# (lines, characters per line) -> name of the form, which is also the form's special token.
FORMS: dict[tuple[int, int], str] = {(4, 5): "五绝", (4, 7): "七绝", (8, 5): "五律", (8, 7): "七律"}

_SENTENCE_END = re.compile("[，。？！；：、,.?!;]")
_HAN_ONLY = re.compile("[\u4e00-\u9fff]+")
_NOTE = re.compile("[（(〈《\\[【].*?[）)〉》\\]】]")
# Buddhist verses, inscriptions and funeral eulogies are formulaic and teach little that a reader asks for.
_UNWANTED = re.compile("偈|颂|赞|挽|证道|缘识|逍遥咏|帖子|哀册|乐章|郊庙")
_NUMBERING = re.compile("(其[一二三四五六七八九十]+|[一二三四五六七八九十百]+首|[ ][一二三四五六七八九十百]+$|其$)")
# Variant characters that OpenCC's traditional-to-simplified table leaves alone.
_VARIANTS = str.maketrans(
    "疎踈牀葢筯峯巖嵓菴庵羣隣牕窓窻恠凴淛煖鴈晩徧嬾堦檝竝",
    "疏疏床盖箸峰岩岩庵庵群邻窗窗窗怪凭浙暖雁晚遍懒阶楫并",
)


@dataclass(frozen=True)
class Poem:
    """One poem: its form, its lines without punctuation, and a cleaned title (perhaps empty)."""

    form: str
    lines: tuple[str, ...]
    title: str
    tang: bool

    @property
    def text(self) -> str:
        """The poem as the model writes it: one verse per text line, comma and full stop in turn."""
        ends = ("，", "。")
        return "\n".join(line + ends[i % 2] for i, line in enumerate(self.lines))


def fetch(corpus: Path | None) -> Path:
    """Return the package's tarball: the one given, an earlier download, or a fresh one from the npm registry."""
    if corpus is not None:
        return corpus
    target = Path(tempfile.gettempdir()) / f"{PACKAGE}-{VERSION}.tgz"
    if not target.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("npm is not installed: fetch the package elsewhere and name the tarball with --corpus")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([npm, "pack", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)
            shutil.move(str(next(Path(folder).glob("*.tgz"))), target)
    return target


def clean_title(title: str) -> str:
    """Drop notes and numbering; long titles and those with anything but characters become empty."""
    title = _NUMBERING.sub("", _NOTE.sub("", title)).strip()
    title = _NUMBERING.sub("", title).replace(" ", "")
    return title if 1 < len(title) <= 8 and _HAN_ONLY.fullmatch(title) else ""


def load_poems(tarball: Path) -> list[Poem]:
    """All usable poems, Tang first, in the package's order, so that the result is the same on every machine."""
    import opencc  # only here, so that what needs no corpus can be imported without it

    convert = opencc.OpenCC("t2s").convert
    wanted = re.compile(r"package/dist/quantangshi/poet\.(tang|song)\.(\d+)\.json")
    sources: list[tuple[bool, int, list[dict[str, object]]]] = []
    with tarfile.open(tarball) as archive:
        for member in archive:
            match = wanted.fullmatch(member.name)
            stream = archive.extractfile(member) if match else None
            if match and stream:
                text = convert(stream.read().decode("utf-8")).translate(_VARIANTS)
                sources.append((match[1] == "tang", int(match[2]), json.loads(text)))
    sources.sort(key=lambda source: (not source[0], source[1]))
    poems: list[Poem] = []
    seen: set[str] = set()
    for tang, _, entries in sources:
        for entry in entries:
            paragraphs = entry["paragraphs"]
            assert isinstance(paragraphs, list)
            lines = [line for line in _SENTENCE_END.split("".join(paragraphs)) if line]
            form = FORMS.get((len(lines), len(lines[0]))) if lines else None
            if form is None or any(len(line) != len(lines[0]) for line in lines):
                continue
            if not all(_HAN_ONLY.fullmatch(line) for line in lines) or len(set(lines)) < len(lines):
                continue
            if _UNWANTED.search(str(entry["title"])):
                continue
            # Variants of one poem stand under several authors; they nearly always share their opening couplet.
            opening = lines[0] + lines[1]
            if opening in seen:
                continue
            seen.add(opening)
            poems.append(Poem(form, tuple(lines), clean_title(str(entry["title"])), tang))
    return poems


def held_out(poem: Poem) -> bool:
    """A stable 1 % of the poems, chosen by their opening couplet, that training never sees."""
    digest = hashlib.sha256((poem.lines[0] + poem.lines[1]).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 == 0


def split(poems: list[Poem]) -> tuple[list[Poem], list[Poem]]:
    """Training poems and held-out poems."""
    return [p for p in poems if not held_out(p)], [p for p in poems if held_out(p)]
