"""Convolutions whose weights lie in memory as oneDNN's kernels read them.

oneDNN rearranges a plain weight at each call, and picture and weight both where the picture is not channels-last, as
what a packed convolution returns is. That is a third of the time of a small picture's denoising step
(docs/benchmarks.md).

As in packed_linear, the operators are the internal ones of Inductor's freezing, and layers stay plain where they are
missing or refuse.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch

from predictor.cpu.features import PACKED_TYPES, computes_packed
from predictor.cpu.packed_linear import TESTED
from predictor.errors import first_line

log = logging.getLogger(__name__)

MOST_WEIGHTS = 2**20
"""Weights up to which a layer is packed. Larger ones compute so long that rearranging them hardly shows, and would be
in memory twice."""

LAYOUTS, FORMS = 4, 64
"""Packed weights that a layer keeps, and forms of its input that it knows the layout of. Sizes and numbers of pictures
that are asked for must not fill the memory."""

Form = tuple[torch.dtype, int, torch.Size]


class PackedConvolution(torch.nn.Conv2d):  # type: ignore[misc]
    """The same layer as another, with its weights packed, too. It cannot be trained.

    oneDNN has another layout for other sizes of the input, and rearranges a packed weight of the wrong one a hundred
    times slower than a plain one. So each form of the input gets its own, and those of one layout share it.
    """

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        torch.nn.Module.__init__(self)  # Conv2d's own would allocate a weight
        self.__dict__.update(layer.__dict__)
        self._packed: dict[Form, torch.Tensor] = {}
        self._layouts: dict[bytes, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs its weights itself: packed ones cannot be copied."""
        return vars(self) | {"_packed": {}, "_layouts": {}}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As Conv2d's, [row, channel, height, width], channels-last."""
        if input.dtype not in PACKED_TYPES or input.dtype != self.weight.dtype or input.dim() != 4:
            return super().forward(input)  # which knows more forms, or says what is wrong
        form = (input.dtype, torch.get_num_threads(), input.shape)
        packed = self._packed.get(form)
        if packed is None:
            packed = self._pack(form)
        convolve = torch.ops.mkldnn._convolution_pointwise
        output: torch.Tensor = convolve(
            input, packed, self.bias, self.padding, self.stride, self.dilation, self.groups, "none", [], ""
        )
        return output

    def _pack(self, form: Form) -> torch.Tensor:
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *geometry, form[-1])
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()
        if len(self._packed) == FORMS or (layout not in self._layouts and len(self._layouts) == LAYOUTS):
            self._packed.clear()
            self._layouts.clear()
        shared = self._packed[form] = self._layouts.setdefault(layout, packed)
        return shared


def pack_convolutions(model: torch.nn.Module) -> int:
    """Put packed layers in the place of the model's convolutions where that pays, and return how many there are now."""
    packed: dict[torch.nn.Module, PackedConvolution] = {}
    for path, layer in list(model.named_modules(remove_duplicate=False)):  # a layer may have several places
        parent, _, name = path.rpartition(".")
        if path and _pays(layer) and _works(layer.weight.dtype):
            assert isinstance(layer, torch.nn.Conv2d)
            packed[layer] = packed.get(layer) or PackedConvolution(layer)
            setattr(model.get_submodule(parent), name, packed[layer])
    return len(packed)


def _pays(layer: torch.nn.Module) -> bool:
    """Subclasses compute something else."""
    if type(layer) is not torch.nn.Conv2d or layer.weight.device.type != "cpu":
        return False
    ordinary = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return ordinary and layer.weight.numel() <= MOST_WEIGHTS and computes_packed(layer.weight.dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether the operators are there and compute what a plain layer does."""
    if not torch.__version__.startswith(f"{TESTED}."):
        log.info("convolutions stay plain: torch is %s, and %s is the tested version", torch.__version__, TESTED)
        return False
    plain = torch.nn.Conv2d(1, 1, 1, dtype=dtype)
    try:
        with torch.no_grad():
            picture = torch.ones(1, 1, 1, 1, dtype=dtype)
            return bool(torch.allclose(PackedConvolution(plain)(picture), plain(picture), atol=0.01))
    except (AttributeError, RuntimeError) as error:
        log.info("convolutions stay plain: %s", first_line(error))
        return False
