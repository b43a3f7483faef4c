"""Architectures with something of their own: each text in a batch is what `generate` writes alone."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.problems import ProblemError
from contract.texts.sampling import Sampling
from predictor.engine.tasks import TextTask
from predictor.text.batch import TextBatch
from predictor.text.batch_check import solo_prefill_tokens, why_not_batched
from predictor.text.checkpoint import load_checkpoint
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.single_text_batch import SoloBatch
from predictor.text.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow

LAYERS = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
SHARED = LAYERS | {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 400,
    "hidden_size_per_layer_input": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,  # or a random model repeats its last token
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3n": ("Gemma3nText", SHARED | {"intermediate_size": [48, 48, 64, 64], "laurel_rank": 4}),
    "gemma4": ("Gemma4Text", SHARED | {"intermediate_size": 48, "global_head_dim": 16, "use_double_wide_mlp": True}),
}


FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [4.0, 5.0, 6.0, 8.0]}
SCALED: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": (
        "Phi3",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 160, "original_max_position_embeddings": 40}
        | {"rope_parameters": {"rope_type": "longrope", "rope_theta": 100.0, **FACTORS}},
    ),
    "dynamic": (
        "Llama",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 40}
        | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}},
    ),
    "dynamic in some layers": (
        "Gemma3Text",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 40, "sliding_window": 6, "tie_word_embeddings": False}
        | {"layer_types": ["sliding_attention", "full_attention"] * 2}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
    ),
}
"""Position embeddings that change at 40 tokens, by the longest text of a forward."""


async def write(engine: TransformersEngine, prompt: str, tokens: int) -> str:
    generation = await engine.submit(TextTask(prompt, Sampling(max_tokens=tokens, temperature=0)))
    return (await generation.complete()).text.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("family", FAMILIES)
async def test_rows_that_leave_in_the_middle_change_no_text(start_random: Any, written_alone: Any, family: str) -> None:
    engine = await start_random(*FAMILIES[family], max_concurrency=3)
    assert engine.core.batch.slots == 3
    assert not isinstance(engine.core.batch, SoloBatch)
    trials = [("hello moon", 5), ("sun " * 20, 30), ("hello sun and moon", 20), ("moon", 9), ("world", 25)]

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    assert texts == [written_alone(engine, *trial) for trial in trials]
    assert len(set(texts)) == 5
    assert engine.alive


@pytest.mark.parametrize("family", SCALED)
async def test_a_short_text_beside_a_long_one_has_its_own_positions(
    start_random: Any, written_alone: Any, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    caplog.set_level("INFO")
    engine = await start_random(*SCALED[family], max_concurrency=3)
    assert engine.core.batch.slots == 3
    trials = [("hello moon", 18), ("moon " * 10, 60), ("world", 12)]

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    room = [40 - len(engine.core.checkpoint.encode(prompt).ids) for prompt, _ in trials]
    assert texts == [
        written_alone(engine, prompt, min(tokens, left)) for (prompt, tokens), left in zip(trials, room, strict=True)
    ]
    assert len(set(texts)) == 3
    said = [record.message for record in caplog.records if "texts have at most 40 tokens" in record.message]
    assert len(said) == 1
    with pytest.raises(ProblemError, match="a context of 40 is served"):
        await write(engine, "moon " * 50, 3)


@pytest.mark.parametrize("family", SCALED)
async def test_longer_texts_are_served_one_at_a_time_where_they_are_asked_for(
    start_random: Any, written_alone: Any, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    engine = await start_random(*SCALED[family], max_concurrency=3, max_length=120)
    trials = [("hello moon", 18), ("moon " * 50, 30), ("moon " * 43, 20), ("hello sun", 60), ("moon " * 30, 20)]

    texts = [await write(engine, *trial) for trial in trials]

    for text, trial in zip(texts, trials, strict=True):
        written_alone(engine, "hello", 1)  # or transformers goes on with the scaling of the text before
        assert text == written_alone(engine, *trial)
    assert len(set(texts)) == 5
    assert [record.message for record in caplog.records if "one text at a time" in record.message] == [
        f"one text at a time, because {engine.settings.model} cannot be batched: texts of more than 40 tokens change "
        "the positions of all texts beside them (with --max-length 40 they share a batch)"
    ]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("Mpt", {"n_layers": 2, "n_heads": 4, "max_seq_len": 100}),
        (
            "GPTNeo",
            {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 100},
        ),
    ],
)
async def test_no_text_attends_to_more_keys_than_a_text_may_have(
    start_random: Any, written_alone: Any, architecture: str, config: dict[str, Any]
) -> None:
    """These have a table of biases, or a window, that is counted from the end of the keys."""
    engine = await start_random(architecture, config, max_concurrency=3, max_length=100)
    assert not isinstance(engine.core.batch, SoloBatch)
    trials = [("hello moon", 70), ("moon " * 60, 30), ("world", 90)]

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    assert texts == [written_alone(engine, *trial) for trial in trials]


async def test_a_window_that_goes_by_the_longest_text_is_for_one_text_at_a_time(
    start_random: Any, written_alone: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-Neo takes a text for as long as the longest beside it, and hides its beginning from its local layers."""
    config = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 12}
    trials = [("hello moon", 25), ("moon " * 20, 30), ("world", 20)]
    for max_length, batched in ((12, True), (128, False)):
        caplog.clear()
        engine = await start_random("GPTNeo", config, max_concurrency=3, max_length=max_length)
        assert isinstance(engine.core.batch, SoloBatch) is not batched
        said = "more than 12 tokens hide the beginning of all texts beside them"
        assert (said in caplog.text) is not batched

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    assert texts == [written_alone(engine, *trial) for trial in trials]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("load_format", ["safetensors", "runai_streamer"])
def test_a_model_that_sees_and_hears_is_loaded_for_texts_alone_where_it_lacks_a_package(
    tiny_model: Path, tmp_path: Path, load_format: Any
) -> None:
    """Gemma 3n needs timm for pictures."""
    import transformers
    from safetensors.torch import save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "gemma3n"))
    (folder / "model.safetensors").unlink()
    config = {"vocab_size": 400, "hidden_size": 32, "pad_token_id": 2, **FAMILIES["gemma3n"][1]}
    text = transformers.Gemma3nTextConfig(**config | {"tie_word_embeddings": True})
    model = transformers.AutoModelForCausalLM.from_config(text)
    transformers.Gemma3nConfig(text_config=text.to_dict()).save_pretrained(folder)
    tensors = {
        name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(
        tensors | {"model.vision_tower.weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"}
    )

    loaded = load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None, load_format).model

    assert type(loaded) is type(model)
    for (name, tensor), expected in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name


SIZES: dict[str, Any] = {
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "word_embed_proj_dim"], 32),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "decoder_ffn_dim", "n_inner"], 48),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"], 4),
    **dict.fromkeys(["num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"], 4),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len"], 128),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "decoder_attention_heads"], 4),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank"], 16),
    **dict.fromkeys(["head_dim", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], 8),
    **dict.fromkeys(["attention_chunk_size", "state_size"], 8),
    **dict.fromkeys(["initializer_range", "init_std"], 0.3),
    **dict.fromkeys(["num_key_value_heads", "num_experts_per_tok"], 2),
    **dict.fromkeys(["n_group", "topk_group", "eos_token_id"], 1),
    **dict.fromkeys(["vocab_size", "vocab_size_per_layer_input"], 60),
    **{"sliding_window": 6, "rotary_dim": 4, "bos_token_id": 0, "pad_token_id": None},
}
"""Of a tiny model of any architecture, by whatever names its config has for them."""

TOGETHER = """
afmoe apertus arcee aria_text axk1 beam biogpt bitnet codegen cohere cohere2 cohere2_moe ctrl cwm deepseek_v2
deepseek_v3 diffllama doge ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon flex_olmo flint gemma gemma2 gemma3_text
gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese
gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe
hy_v3 hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna lfm2 llama mellum mimo_v2_flash minicpm3
minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mpt nanochat nemotron olmo olmo2 olmo3 olmoe opt
persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma
xglm youtu
"""
ALONE = """
bailing_hybrid bloom deepseek_v32 deepseek_v4 falcon_mamba glm_moe_dsa hy_v4 inkling2_text inkling_text jamba lfm3
llama4_text mamba minimax olmo_hybrid openai-gpt qwen3_5_moe_text qwen3_5_text qwen3_next recurrent_gemma rwkv trocr
"""


class Compared(TextBatch):
    """Compares every logit that it goes by with those of a copy of the model, which is told the whole text at once."""

    plain: Any
    compared = 0

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        for number, (row, said) in enumerate(zip(rows, logits, strict=True)):
            drafted = row.tokens + self._draft[:number]  # a draft is of one row, which stands here for each token of it
            alone = self.plain(input_ids=torch.tensor([drafted]), use_cache=False).logits[0, -1]
            off = (said - alone).norm() / (alone - alone.mean()).norm()
            assert off < 0.01, f"after {len(row.tokens)} tokens"
            self.compared += 1
        return super().choose(rows, logits, sampler)


class ComparedSolo(Compared, SoloBatch):
    """One row at a time."""


def text_row(chance: random.Random) -> TextRow:
    """A prompt of up to 30 random tokens, and up to 18 more after it."""
    left = [chance.randint(1, 18)]

    def write(_: int) -> bool:
        left[0] -= 1
        return not left[0]

    prompt = [chance.randrange(60) for _ in range(chance.randint(1, 30))]
    return TextRow(prompt, RowSampling(1.0, 0, 1.0, 0.0, 1.0, random.Random(chance.random())), write)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*TOGETHER.split(), *ALONE.split()])
def test_each_architecture_writes_in_a_batch_or_one_at_a_time_what_its_plain_model_says(name: str) -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = CONFIG_MAPPING[name]
    names = {field.name for field in dataclasses.fields(kind)}
    sizes = {field: size for field, size in SIZES.items() if field in names}
    if "kv_lora_rank" in names:
        sizes["num_key_value_heads"] = 4
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes)).eval()
    obstacle = why_not_batched(model, 48)
    assert (obstacle is None) == (name in TOGETHER.split()), obstacle
    if obstacle is None:
        batch: Compared = Compared(model, slots=4, length=48, prefill_tokens=8)
    else:
        batch = ComparedSolo(model, 48, 5 if solo_prefill_tokens(model, 8192) < 8192 else 48)
    batch.plain = copy.deepcopy(model)
    chance = random.Random(3)

    for _ in range(60):
        action = chance.random()
        if action < 0.3 and len(batch) < batch.slots:
            batch.join(text_row(chance))
        elif action < 0.36 and len(batch):
            batch.remove(chance.choice([*batch.running, *batch.joining]))
        elif len(batch):
            for row in batch.step():
                batch.remove(row)

    assert batch.compared > 5
