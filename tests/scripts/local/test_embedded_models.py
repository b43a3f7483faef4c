"""Which of the embedded models of texts a prompt goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.local.embedded_models import EMBEDDED, VERSE
from scripts.project import ROOT
from web.setting_values import ServedModel


@pytest.fixture(scope="module")
def poet() -> ServedModel:
    return ServedModel(match=VERSE)


@pytest.mark.parametrize(
    "prompt",
    [
        "写一首关于CPU的现代诗",
        "春雨",
        "请介绍一下杭州",
        "你好",
        "床前明月光，疑是地上霜",
        "秋 autumn",
        "Translate 你好 into English",
        "Write a short poem about autumn",
        "POEMS ABOUT RAIN",
        "a haiku about a frog",
        "Write me a sonnet, please.",
        "some verses on the moon",
        "a poem's first line",
        "Four lines that rhyme",
        "a limerick about a cat\nwith a hat",
        "an ode to the sea",
        "Write a ballad of the west wind",
        "Answer as a poet would: what is rain?",
        "un poem scurt",
        "write an article about poetry slams",  # a list of words knows no more
    ],
)
def test_what_the_poet_is_asked(poet: ServedModel, prompt: str) -> None:
    assert poet.matches(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "Hello!",
        "Write a short story about a dog",
        "What is the capital of France?",
        "Explain how the universe began",
        "Reverse a list in Python",
        "How do I start a node server?",
        "Write an essay about autumn",
        "A diverse and versed team",
        "Tell me about the code of Hammurabi",
        "Schreibe eine Geschichte",
        "Once upon a time",
        "Poe's raven",
        "1 + 1 = ?",
        "Summarize: rain fell all night.",
        "，。！",
        "",
    ],
)
def test_what_the_poet_is_not_asked(poet: ServedModel, prompt: str) -> None:
    assert not poet.matches(prompt)


def test_each_embedded_model_is_there() -> None:
    assert all(Path(ROOT / "models" / model.name / "MODEL_CARD.md").is_file() for model in EMBEDDED)
    assert {model.name: model.choice for model in EMBEDDED} == {"poet": {"match": VERSE}, "painter": {}, "writer": {}}
