"""How many texts fit into the memory of a device.

A slot costs the keys and values of a whole text of the longest allowed length, and what one row adds to a step's
working memory. The weights and the working memory of one prefill are paid once.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from predictor.engine.memory.slot_plan import PROCESS_BYTES, Cost, Plan, most_slots, plan
from predictor.limits import MAX_LENGTH, MAX_SMALL_CONCURRENCY, SMALL_MODEL_BYTES
from predictor.loading.device_memory import available_memory, model_bytes
from predictor.measurements.cache import NOWHERE, MeasurementCache
from predictor.measurements.key import measurement_key
from predictor.measurements.records import CostRecord
from predictor.text.checkpoint import Checkpoint
from predictor.text.prefill import most_prefill_tokens
from predictor.text.rope_scaling import unscaled_length

log = logging.getLogger(__name__)

ROW_LOGITS = 10
"""Copies of one row's logits in float32 that a step holds at once: the model's, and the sampler's picked, scaled,
sorted and masked ones, ids, probabilities and sums."""

TOKEN_ID = 8
"""Bytes of a token in the history of a row, which a repetition penalty looks at."""


def measure_cost(model: Any, length: int, prefill_tokens: int, process_bytes: int) -> Cost:
    """The cost of serving `model` with texts of up to `length` tokens.

    Keys and values are counted from a real forward, which knows every architecture better than its config does.
    `process_bytes` is what the process needs without the model; 0 on a GPU.
    """
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)  # one token: memory for more is not planned yet
    with torch.inference_mode():
        cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    # Other layer types keep a small state that does not grow.
    layers = [layer for layer in getattr(cache, "layers", ()) if getattr(layer, "keys", None) is not None]
    states = [states for layer in layers for states in (layer.keys, layer.values)]
    per_token = sum(s.shape[1] * s.shape[3] * s.element_size() for s in states)
    config = model.config.get_text_config()
    inner = max(_widest_layer(model), 4 * config.hidden_size)
    weights = model_bytes(model)
    # A prefill holds hidden states, queries, keys, values and the wide layer, each a few times.
    once = prefill_tokens * (8 * config.hidden_size + 3 * inner) * 4
    row = ROW_LOGITS * config.vocab_size * 4 + (8 * config.hidden_size + 3 * inner) * 4
    return Cost(weights, once + process_bytes, (per_token + TOKEN_ID) * length + row)


def _widest_layer(model: Any) -> int:
    """Features of the widest layer but the last. Configs differ: some have a width for each layer, some double it."""
    head = model.get_output_embeddings()
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    return max((layer.out_features for layer in linear), default=0)


def served_length(checkpoint: Checkpoint, max_length: int | None) -> int:
    """Most tokens of one text: `max_length`, or as many as the model attends to. Where nobody has asked for more, no
    more than leave the texts beside them as they are."""
    if max_length is not None:
        return min(checkpoint.context, max_length)
    length = min(checkpoint.context, MAX_LENGTH)
    unscaled = unscaled_length(checkpoint.model.config.get_text_config())
    if unscaled is None or unscaled >= length:
        return length
    log.warning(
        "texts have at most %d tokens: longer ones change the positions of those beside them; a larger --max-length "
        "serves them one at a time",
        unscaled,
    )
    return unscaled


def plan_slots(
    checkpoint: Checkpoint,
    max_length: int,
    max_concurrency: int | None,
    memory: int | None,
    prefill_tokens: int | None = None,
    cache: MeasurementCache = NOWHERE,
) -> Plan:
    """Slots for texts of up to `max_length` tokens, or of the model's context if that is shorter; `memory` in bytes.
    At most `max_concurrency`, as in EngineSettings; prompts come in parts of `prefill_tokens`, or of as many as
    TextBatch takes. What `cache` has is not measured again."""
    length = min(checkpoint.context, max_length)
    prefill_tokens = prefill_tokens or most_prefill_tokens(checkpoint.device)
    on_cpu = checkpoint.device.type == "cpu"
    key = measurement_key({"model": checkpoint.model}, length=length, prefill_tokens=prefill_tokens)
    known = cache.find(CostRecord, key)
    if known is None:
        known = CostRecord.of(measure_cost(checkpoint.model, length, prefill_tokens, PROCESS_BYTES if on_cpu else 0))
        cache.keep(known, key)
    cost = known.cost
    memory = available_memory(checkpoint.device) if memory is None else memory
    if max_concurrency is None and on_cpu and cost.weights < SMALL_MODEL_BYTES:
        max_concurrency = MAX_SMALL_CONCURRENCY
    most = most_slots(max_concurrency, checkpoint.device.type)
    return plan(cost, f"{length} tokens", most, memory, "give it more, or a smaller --max-length")
