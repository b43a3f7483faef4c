"""A GGUF file behind the real server: converted at the first start, and the same model at the next one."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from predictor.plan_command import print_plan
from tests.predictor.loading.gguf.tiny_files import random_model, write_gguf

pytestmark = pytest.mark.slow


def test_a_file_is_converted_at_the_first_start_and_answers_as_transformers_does(
    start_predictor: Any, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "it.gguf", random_model(), "Q8_0")
    flags = ("--model", str(file), "--cache-folder", str(tmp_path / "cache"), "--log-level", "info")
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "temperature": 0}
    answers = []
    for expected in (True, False):
        predictor = start_predictor(*flags)
        predictor.wait_ready()
        answer = httpx2.post(f"{predictor.url}/openai/v1/chat/completions", json=asked, timeout=60).json()
        answers.append((answer["choices"][0]["message"]["content"], answer["system_fingerprint"]))
        metrics = set(re.findall(r'phase="([^"]*GGUF[^"]*)"', httpx2.get(f"{predictor.url}/metrics").text))
        assert predictor.end(signal.SIGTERM) == 0
        assert metrics == {"reading the GGUF file's header", *(["converting the GGUF file"] if expected else [])}
        assert ("converting the GGUF file took" in predictor.log()) is expected
    assert answers[0] == answers[1]
    (folder,) = (path for path in (tmp_path / "cache" / "gguf").iterdir() if path.is_dir())
    assert answers[0][0] == transformers_answer(folder)


def transformers_answer(folder: Path) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    turns = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(written, skip_special_tokens=True))


def test_a_plan_counts_the_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_gguf(tmp_path / "it.gguf", random_model())
    flags = ["--model", str(file), "--cache-folder", str(tmp_path / "cache"), "--save"]
    assert print_plan(flags) == 0
    printed = capsys.readouterr().out
    line = re.search(r"converts the GGUF file, in (\d+) MiB of memory, to (\d+) MiB in a cache", printed)
    assert line
    assert 768 < int(line[1]) < 4096
    assert int(line[2]) == 1
    assert f"requests: {{memory: {line[1]}Mi}}" in printed, "that of a tiny model is less"
    (record,) = (tmp_path / "cache" / "gguf").glob("*/conversion.json")
    assert json.loads(record.read_text())["peak_bytes"] > 2**28
