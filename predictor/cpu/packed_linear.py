"""Linear layers whose weights lie in memory as oneDNN's kernels read them.

MKL multiplies 4 rows hardly faster than 16, and oneDNN rearranges a plain bfloat16 weight at each call. Packed once, a
layer of 65,536 x 640 takes 4.4 ms in place of 6.6 for four rows in float32, and 1.7 in place of 3.0 in bfloat16 (two
cores with AMX; with AVX512-BF16 alone 2.2 in place of 6.6).

The two operators are those that Inductor's freezing calls. They are internal, and nothing public does the same:
torch.utils.mkldnn copies inputs and outputs and packs no layout, freezing wants a C++ compiler and minutes, and torchao
quantizes. So there is a check of the version, and layers stay plain where an operator is missing or refuses.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from predictor.cpu.features import computes_packed, multiplies_tiles
from predictor.errors import first_line

log = logging.getLogger(__name__)

TESTED = "2.13"
"""Major and minor version of torch for which the tests prove that packed layers compute what plain ones do."""

LEAST_WEIGHTS = {torch.float32: 2**19, torch.bfloat16: 2**15}
"""Weights from which on a layer is packed. A call of the operator takes 20 µs more than a plain one of float32, which
small layers never make good; plain bfloat16 goes through oneDNN, too."""

ROWS_AT_ONCE = 32
"""Up to so many rows are multiplied by the same bfloat16 kernel, each to the same bits as alone; more by others, which
add up in another order and round otherwise. In float32 that is far below what changes a text."""

WIDE = 1025
"""Features of a row from which on the kernels of a CPU without tiles (AVX512-BF16 alone) depend on the number of rows,
from two on. There each call has EQUAL_ROWS, the last ones empty: 8 cost hardly more than one."""

EQUAL_ROWS = 8

LONG = 129
"""Positions of a prompt from which on it is multiplied as a whole, for it shares a forward with no other one. In parts
that takes two to three times as long."""


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch's layers are not typed
    """A linear layer of the same numbers as another, whose weight may be dropped afterwards.

    With `exact`, a bfloat16 row is multiplied to the same bits whatever rows are beside it, unless it is of a LONG
    prompt. Raises RuntimeError where the CPU has no kernel for its type. It cannot be trained, copied or moved.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, exact: bool = False) -> None:
        torch.nn.Module.__init__(self)  # Linear's own would allocate a weight
        self.out_features, self.in_features = weight.shape
        self.exact = exact and weight.dtype == torch.bfloat16
        self.equal_rows = self.in_features >= WIDE and not multiplies_tiles()
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach(), requires_grad=False)
        self.first_weights: list[float] = weight.detach()[0, :8].float().tolist()  # they tell one model from another
        # No parameter: `to`, `state_dict` and torch.nn.init cannot work with this layout.
        self.packed_weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    @property
    def weight(self) -> Any:
        """A plain copy, made anew each time: for the few models that compute with a layer's weight themselves."""
        return self.packed_weight.to_dense()

    @property
    def nbytes(self) -> int:
        """Bytes of the weight as it lies in memory."""
        return int(torch.ops.mkldnn._nbytes(self.packed_weight))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As Linear's, [..., in_features] to [..., out_features]."""
        rows = input.numel() // self.in_features
        is_long = input.dim() > 2 and input.shape[-2] >= LONG
        if is_long or not self.exact or (rows <= ROWS_AT_ONCE and not self.equal_rows):
            return self._multiply(input)
        flat = input.reshape(rows, self.in_features)
        if self.equal_rows:
            flat = torch.nn.functional.pad(flat, (0, 0, 0, -rows % EQUAL_ROWS))
        parts = flat.split(EQUAL_ROWS if self.equal_rows else ROWS_AT_ONCE)
        output = torch.cat([self._multiply(part) for part in parts])[:rows]
        return output.view(*input.shape[:-1], self.out_features)

    def _multiply(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self.packed_weight, self.bias, "none", [], "")
        return output


def pack_linear_layers(model: torch.nn.Module, dtype: torch.dtype | None = None, *, exact: bool = False) -> int:
    """Put packed layers in the place of the model's linear ones where that pays, and return how many there are now.

    Weights become `dtype` before, or stay as they are without one. Packed are exact nn.Linear layers on a CPU:
    subclasses compute something else, and quantized weights have kernels of their own. A weight that another module
    holds, too, stays in memory for that.
    """
    if not torch.__version__.startswith(f"{TESTED}."):
        log.info("linear layers stay plain: torch is %s, and %s is the tested version", torch.__version__, TESTED)
        return 0
    # Models look at the types of these weights in each forward, and a plain copy takes long.
    looked_at = {name for module in model.modules() for name in getattr(module, "_keep_in_fp32_modules", None) or ()}
    places = [
        (path, layer)
        for path, layer in model.named_modules(remove_duplicate=False)  # a layer may have several places
        if path and path.rpartition(".")[2] not in looked_at and _pays(layer, dtype)
    ]
    # The largest first, while the least is in memory: until a converted weight is packed, it is there twice.
    places.sort(key=lambda place: place[1].weight.numel(), reverse=True)
    packed: dict[torch.nn.Module, PackedLinear] = {}
    for path, layer in places:
        parent, _, name = path.rpartition(".")
        try:
            packed[layer] = packed.get(layer) or PackedLinear(_as(layer.weight, dtype), _as(layer.bias, dtype), exact)
        except (AttributeError, RuntimeError) as error:
            log.info("linear layers stay plain: %s", first_line(error))
            break
        setattr(model.get_submodule(parent), name, packed[layer])
    return len(packed)


def _pays(layer: torch.nn.Module, dtype: torch.dtype | None) -> bool:
    if type(layer) is not torch.nn.Linear:
        return False
    weight = layer.weight
    if weight.device.type != "cpu" or hasattr(weight, "__tensor_flatten__"):  # torchao's, which name other types
        return False
    dtype = dtype or weight.dtype
    return computes_packed(dtype) and weight.numel() >= LEAST_WEIGHTS[dtype]


def _as(tensor: Any, dtype: torch.dtype | None) -> Any:
    return tensor if tensor is None or dtype is None else tensor.to(dtype)
