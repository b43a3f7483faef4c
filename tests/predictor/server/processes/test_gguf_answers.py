"""The file of the writer, served: its answers are those of `generate` with the folder that it was converted to."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.embedded_weights import fetch_writer

pytestmark = pytest.mark.nightly

TOPICS = ["the sea", "Paris", "bicycles", "breakfast", "Mars", "plants", "the number 1234", "rain", "the sky", "tea"]
ASKED = (
    "Write one sentence about {}.",
    "Explain {} to a child.",
    "Give me three facts about {}.",
    "What is special about {}?",
    "Write a short story about {}.",
)
PROMPTS = [asked.format(topic) for topic in TOPICS for asked in ASKED]
TOKENS = 32


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def answers(start_predictor: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """To all prompts, greedy, eight at once."""
    file = tmp_path_factory.mktemp("writer") / "writer.gguf"  # without the generation config of the writer
    shutil.copyfile(fetch_writer(), file)
    flags = ("--dtype", "float32", "--max-length", "512", "--cache-folder", str(cache))
    predictor = start_predictor("--model", str(file), *flags)
    predictor.wait_ready()

    def ask(prompt: str) -> str:
        turns = [{"role": "user", "content": prompt}]
        body = {"model": "tiny", "messages": turns, "max_tokens": TOKENS, "temperature": 0}
        answer = httpx2.post(f"{predictor.url}/openai/v1/chat/completions", json=body, timeout=600)
        return str(answer.json()["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(ask, PROMPTS))


def test_the_answers_are_those_of_generate(answers: list[str], cache: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = next(path.parent for path in (cache / "gguf").glob("*/config.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = []
    for prompt in PROMPTS:
        turns = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False)[0, ids["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(written, skip_special_tokens=True))
    assert answers == expected


def test_what_its_file_says_came_over(answers: list[str], cache: Path) -> None:
    folder = next(path.parent for path in (cache / "gguf").glob("*/config.json"))
    config = json.loads((folder / "config.json").read_text())
    assert (config["max_position_embeddings"], config["dtype"]) == (8192, "bfloat16")
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 100_000.0}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|endoftext|>", "<|im_end|>"]
