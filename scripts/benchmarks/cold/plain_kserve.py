"""A plain KServe custom predictor, written the way that KServe's documentation shows: the model is loaded, then served.

`python -m scripts.benchmarks.cold.plain_kserve --model_path MODEL --model_name m --http_port 8080`
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import uvicorn
from kserve import Model, ModelServer, model_server
from transformers import AutoModelForCausalLM, AutoTokenizer


class Poet(Model):  # type: ignore[misc]  # kserve is not typed
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.path = path
        self.ready = False
        self.load()

    def load(self) -> bool:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(self.path, dtype=torch.float32)
        self.ready = True
        return self.ready

    def predict(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        texts = []
        for instance in payload["instances"]:
            inputs = self.tokenizer(instance["prompt"], return_tensors="pt", return_token_type_ids=False)
            written = self.model.generate(**inputs, max_new_tokens=instance["max_tokens"])
            texts.append(self.tokenizer.decode(written[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        return {"predictions": texts}


class LocalConfig(uvicorn.Config):
    """KServe listens on every address, which a benchmark need not."""

    def __init__(self, app: Any, *, host: str, **options: Any) -> None:
        super().__init__(app, host="127.0.0.1", **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_path", required=True)
    arguments, _ = parser.parse_known_args()
    uvicorn.Config = LocalConfig  # type: ignore[misc,assignment]
    ModelServer().start([Poet(arguments.model_name, arguments.model_path)])
