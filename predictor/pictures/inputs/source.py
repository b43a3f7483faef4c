"""What a request's picture begins with: its fields `image` and `mask`, decoded."""

from __future__ import annotations

from contract.problems import invalid_field
from contract.request import Painting
from predictor.pictures.inputs.decoding import PictureFile
from predictor.pictures.parameters import SourcePicture
from predictor.pictures.picture_sizes import PictureSizes


def read_source(asked: Painting, sizes: PictureSizes) -> SourcePicture:
    """Of the size that is asked for, or else of the one of `sizes` that is next to the picture's own. Blocks. Raises a
    ProblemError that names the field which is wrong."""
    assert asked.image is not None
    image = PictureFile(asked.image, "image")
    mask = None if asked.mask is None else PictureFile(asked.mask, "mask")
    if mask is not None and mask.size != image.size:
        raise invalid_field("mask", f"must be of the size of image: {image.size[0]}x{image.size[1]}")
    size = sizes.read(asked.size) if asked.size else sizes.nearest(image.size)
    return SourcePicture(image.picture(size), None if mask is None else mask.mask(size))
