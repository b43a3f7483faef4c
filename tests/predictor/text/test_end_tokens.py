"""What ends a text: the generation config, the tokenizer and the model's config may each name tokens."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contract.texts.sampling import Sampling
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.generation import Completion
from predictor.engine.tasks import TextTask
from predictor.text.checkpoint import Checkpoint, load_checkpoint
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import recorded_tokens

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(file: Path, **changes: Any) -> None:
    """Set members of a JSON file; None takes one away."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def load(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None)


def add_special(folder: Path, *tokens: str, eos: str) -> list[int]:
    """Add special tokens to a folder's tokenizer; their ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.eos_token = eos
    tokenizer.save_pretrained(folder)
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(tokens))
    return ids


async def write(folder: Path) -> tuple[Completion, list[int]]:
    """What a model writes greedily, and the ids of its tokens."""
    engine = TransformersEngine(EngineSettings(model=str(folder)))
    await asyncio.to_thread(engine.load, lambda _phase: None)
    with recorded_tokens() as ids:
        generation = await engine.submit(TextTask("moon", Sampling(max_tokens=20, temperature=0)))
        completion = await generation.complete()
    engine.close()
    return completion, ids


async def test_a_fine_tune_for_chats_that_only_its_tokenizer_knows_of_ends_its_texts(folder: Path) -> None:
    """As with ChatML's <|im_end|>, where the generation config is still that of the base model."""
    from transformers import AutoTokenizer

    _, ids = await write(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = next(id for place, id in enumerate(ids) if place > 2 and id not in ids[:place] and id < len(tokenizer))
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.save_pretrained(folder)

    completion, shorter = await write(folder)

    assert shorter == ids[: ids.index(end) + 1]
    assert completion.end.finish_reason == "stop"
    assert completion.text == tokenizer.decode(shorter[:-1]).rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("generation", "tokenizer", "config", "expected"),
    [
        (1, "</s>", 1, {1}),
        ([1, 5], "</s>", None, {1, 5}),  # the config's class says 2, which is a word here
        (None, "</s>", 7, {1}),  # a word, too
        (5, "<|im_end|>", 1, {1, 5, "<|im_end|>"}),
        (5, "</s>", "<|eot|>", {1, 5, "<|eot|>"}),
        (5, "</s>", [1, "<|eot|>"], {1, 5, "<|eot|>"}),
    ],
)
def test_end_tokens_are_those_of_all_three_but_no_words_of_the_config(
    folder: Path, generation: Any, tokenizer: str, config: Any, expected: set[Any]
) -> None:
    ids = dict(zip(names := ["<|im_end|>", "<|eot|>"], add_special(folder, *names, eos=tokenizer), strict=True))

    def numbers(tokens: Any) -> Any:
        return [numbers(token) for token in tokens] if isinstance(tokens, list) else ids.get(tokens, tokens)

    rewrite(folder / "generation_config.json", eos_token_id=generation)
    rewrite(folder / "config.json", eos_token_id=numbers(config))

    assert load(folder).end_tokens == {numbers(token) for token in expected}


def test_a_model_without_any_end_goes_on(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    rewrite(folder / "generation_config.json", eos_token_id=None)
    rewrite(folder / "config.json", eos_token_id=7)

    assert load(folder).end_tokens == frozenset()
