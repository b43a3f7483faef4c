"""The images of a release, and where they stand in manifests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FLAVOURS = {"web": "web", "predictor": "predictor", "predictor-cpu": "predictorCpu"}
"""Repository and, for CPUs, the end of the tag; with the image's name in the chart's values."""


class ImagesError(Exception):
    """What was pushed is not what a release needs."""


@dataclass(frozen=True)
class Image:
    registry: str
    name: str
    tag: str
    digest: str

    @property
    def reference(self) -> str:
        return f"{self.registry}/{self.name}:{self.tag}@{self.digest}"


def read(lines: Iterable[str]) -> dict[str, Image]:
    """By its name in the chart's values, from what `scripts/build-images --digests` wrote. Raises an ImagesError."""
    images = {}
    for line in filter(None, map(str.strip, lines)):
        found = re.fullmatch(r"(\S+)/([a-z]+):([\w.-]+)@(sha256:[0-9a-f]{64})", line)
        if not found:
            raise ImagesError(f"{line!r} is not NAME:TAG@DIGEST")
        image = Image(*found.groups())
        flavour = f"{image.name}-cpu" if image.tag.endswith("-cpu") else image.name
        if flavour not in FLAVOURS or FLAVOURS[flavour] in images:
            raise ImagesError(f"{line}: one image each is needed of {', '.join(FLAVOURS)}")
        images[FLAVOURS[flavour]] = image
    if missing := [flavour for flavour, key in FLAVOURS.items() if key not in images]:
        raise ImagesError(f"no image of {', '.join(missing)}")
    if len({image.registry for image in images.values()}) > 1:
        raise ImagesError("the images are in several registries")
    return images


def substitute(rendered: str, text: Callable[[str], str]) -> str:
    """Rendered manifests with `text` of the image's name in the values in the place of each of our images."""
    # Only where something asks for a GPU the gigabytes of CUDA are of use.
    predictor = "predictor" if re.search(r"^ +nvidia\.com/[\w.-]+: \W?\d", rendered, re.MULTILINE) else "predictorCpu"
    keys = {"web": "web", "predictor": predictor}
    return re.sub(
        r"^( +(?:- )?image: )\S*\bshangcai/(web|predictor):\S+$",
        lambda found: found[1] + text(keys[found[2]]),
        rendered,
        flags=re.MULTILINE,
    )
