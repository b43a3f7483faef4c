"""The floor of a cold start: import, load, make one token or one step, and no server. Written as everybody writes it.

`python -m scripts.benchmarks.cold.floor text MODEL cpu` (or image, or another device) prints one line of JSON: seconds
of time.monotonic at the end of each phase.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

PROMPT = "写一首关于春雨的诗"


def text(model: str, device: str) -> dict[str, float]:
    import torch

    at = {"import torch": time.monotonic()}
    from transformers import AutoModelForCausalLM, AutoTokenizer

    at["import transformers"] = time.monotonic()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    at["tokenizer"] = time.monotonic()
    writer: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    at["weights"] = time.monotonic()
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": PROMPT}]
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    else:
        inputs = tokenizer(PROMPT, return_tensors="pt")
    written = writer.generate(**inputs.to(device), max_new_tokens=1)
    assert isinstance(tokenizer.decode(written[0]), str)
    at["first token"] = time.monotonic()
    return at


def picture(model: str, device: str) -> dict[str, float]:
    import torch

    at = {"import torch": time.monotonic()}
    from diffusers import DiffusionPipeline

    at["import diffusers"] = time.monotonic()
    painter: Any = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, use_safetensors=True)
    painter.to(device)
    at["weights"] = time.monotonic()
    assert painter(PROMPT, num_inference_steps=1).images[0].width
    at["first token"] = time.monotonic()
    return at


if __name__ == "__main__":
    print(json.dumps({"text": text, "image": picture}[sys.argv[1]](*sys.argv[2:])))
