"""A model that reasons, from a request to web through its predictor: a tiny one that thinks of the moon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from predictor.engine.engine_settings import EngineSettings
from predictor.text.transformers_engine import TransformersEngine
from tests.support.serving import serving
from tests.support.waiting import SECONDS, eventually
from web.app import create_app
from web.settings import Settings

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}!{% endif %}"
)
"""As Qwen3's, with a sign for the tiny one to tell the two by."""
THOUGHT, THOUGHTFUL, QUICK = "hm, the moon.", "hello moon", "hello world"
THINKING = {"enable_thinking": True}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersEngine]:
    """The real engine with a Llama of two layers that knows two texts by heart."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder: Path = tmp_path_factory.mktemp("thinker")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    backend.add_tokens(["<think>", "</think>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", chat_template=TEMPLATE)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=256,
    )
    model: Any = LlamaForCausalLM(config)
    texts = [
        f"[user]moon\n[assistant]!<think>\n{THOUGHT}\n</think>\n\n{THOUGHTFUL}</s>",
        f"[user]moon\n[assistant]<think>\n\n</think>\n\n{QUICK}</s>",
    ]
    lessons = [torch.tensor([backend.encode(text).ids]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other, minutes where others have the cores
    for _ in range(120):
        loss = sum(model(input_ids=lesson, labels=lesson).loss for lesson in lessons)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    model.generation_config = GenerationConfig(eos_token_id=256)
    model.save_pretrained(folder)
    engine = TransformersEngine(EngineSettings(model=str(folder), max_waiting=3))
    engine.load(lambda _phase: None)
    yield engine
    engine.close()


@pytest.fixture
async def predictor_url(thinker: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    from predictor.protocols.kserve_text import TextModel

    monkeypatch.setattr(thinker, "load", lambda _report: None)  # it is
    monkeypatch.setattr(thinker, "close", lambda: None)  # with the module
    model = TextModel("thinker", thinker)
    async with serving(model) as (_, url):
        await eventually(lambda: model.startup.ready)
        yield url


@pytest.fixture
async def client(predictor_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Of web."""
    async with httpx2.AsyncHTTPTransport(verify=False) as to_predictor:
        app = create_app(Settings.model_validate({"models": {"thinker": predictor_url}}), to_predictor)
        to_web = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=to_web, base_url="http://web.test", timeout=SECONDS) as client:
            yield client


@pytest.mark.parametrize(
    ("fields", "text", "reasoning"),
    [
        ({}, QUICK, None),
        ({"thinking": False}, QUICK, None),
        ({"thinking": True}, THOUGHTFUL, THOUGHT),
        ({"thinking": True, "stop": "m"}, "hello ", THOUGHT),
        ({"thinking": True, "max_tokens": 6}, "", "hm,"),
    ],
)
async def test_a_request_says_whether_to_think(
    client: httpx2.AsyncClient, fields: dict[str, Any], text: str, reasoning: str | None
) -> None:
    answer = await client.post("/generate", json={"prompt": "moon"} | fields)

    result = answer.json()
    assert (result["text"], result.get("reasoning_content")) == (text, reasoning)
    assert result["finish_reason"] == ("length" if "max_tokens" in fields else "stop")


async def test_a_stream_thinks_first(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/generate", json={"prompt": "moon", "thinking": True, "stream": True})

    events = [block.split("\n", 1) for block in answer.text.removesuffix("\n\n").split("\n\n")]
    named = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    order = [name for name, _ in named if name != "status"]
    assert order == sorted(order, key=["reasoning", "token", "result"].index)
    for event, whole in (("reasoning", THOUGHT), ("token", THOUGHTFUL)):
        assert "".join(data["text"] for name, data in named if name == event) == whole
    assert (named[-1][1]["text"], named[-1][1]["reasoning_content"]) == (THOUGHTFUL, THOUGHT)


async def test_openais_client_thinks_by_effort_and_by_template(predictor_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{predictor_url}/openai/v1", api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create
        body = {"model": "thinker", "messages": [{"role": "user", "content": "moon"}]}
        quick = (await create(**body)).choices[0].message
        by_effort = (await create(**body, reasoning_effort="high")).choices[0].message
        by_template = (await create(**body, extra_body={"chat_template_kwargs": THINKING})).choices[0].message

    assert (quick.content, hasattr(quick, "reasoning_content")) == (QUICK, False)
    for message in (by_effort, by_template):
        assert (message.content, message.reasoning_content) == (THOUGHTFUL, THOUGHT)
