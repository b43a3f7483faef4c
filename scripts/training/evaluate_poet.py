"""Measure the poet: whole poems, topics shown, copying, perplexity and speed.

Usage::

    python -m scripts.training.evaluate_poet --model models/poet

The model is loaded only through transformers' public interface, and samples with its own generation_config. The corpus
(fetched by ``npm pack``, or ``--corpus TARBALL``) is needed for the two figures that compare with training poems and
held-out poems; ``--no-corpus`` leaves those out.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.progress import tracked
from scripts.project import ROOT
from scripts.training.poet.evaluation_prompts import ENGLISH_TOPICS, PROMPTS, TOPICS


def is_poem(text: str) -> bool:
    """4 or 8 lines, all of 5 or all of 7 characters, comma and full stop in turn, and nothing else."""
    lines = text.split("\n")
    if len(lines) not in (4, 8):
        return False
    width = len(lines[0]) - 1
    return width in (5, 7) and all(
        len(line) == width + 1
        and line[-1] == "，。"[number % 2]
        and all("\u4e00" <= char <= "\u9fff" for char in line[:-1])
        for number, line in enumerate(lines)
    )


class Poet:
    """The model behind its chat template."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(self, request: str, **settings: Any) -> tuple[str, int]:
        """The answer to one request, and how many tokens it took."""
        messages = [{"role": "user", "content": request}]
        inputs = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = self.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(output, skip_special_tokens=True), len(output)


def measure_poems(poet: Poet, rounds: int, couplets: set[tuple[str, str]] | None) -> None:
    """Default sampling on the prompts: whole poems, repeated lines, lines copied from the corpus."""
    texts = []
    for seed in tracked(range(rounds), "seeds"):
        torch.manual_seed(1000 + seed)
        texts += [poet.generate(prompt)[0] for prompt in PROMPTS]
    whole = [text for text in texts if is_poem(text)]
    lines = [[line[:-1] for line in text.split("\n")] for text in whole]
    repeated = sum(len(set(poem)) < len(poem) for poem in lines)
    count = len(texts)
    print(f"whole poems: {100 * len(whole) / count:.1f} % of {count} ({len(PROMPTS)} prompts, {rounds} seeds)")
    print(f"with a line twice: {100 * repeated / count:.1f} %")
    if couplets is not None:
        copied = sum(any(pair in couplets for pair in pairwise(poem)) for poem in lines)
        known = {line for pair in couplets for line in pair}
        single = sum(line in known for poem in lines for line in poem) / max(1, sum(map(len, lines)))
        print(f"with two consecutive lines of one training poem: {100 * copied / count:.1f} %")
        print(f"single lines that occur in a training poem: {100 * single:.1f} %")
    for text in [text for text in texts if not is_poem(text)][:3]:
        print("not a whole poem:", repr(text))


def measure_topics(poet: Poet, topics: dict[str, str], seeds: int, request: str) -> None:
    """How often the topic's character occurs in the poem."""
    shown: dict[str, int] = {}
    for topic, chars in tracked(topics.items(), "topics"):
        for seed in range(seeds):
            torch.manual_seed(2000 + 100 * len(request) + seed)
            text = poet.generate(request.format(topic))[0]
            shown[topic] = shown.get(topic, 0) + any(char in text for char in chars)
    share = 100 * sum(shown.values()) / (seeds * len(topics))
    weak = {topic: f"{n}/{seeds}" for topic, n in shown.items() if n < 0.8 * seeds}
    asked = f"{request!r}, {len(topics)} topics, {seeds} seeds"
    print(f"topic shown: {share:.1f} % ({asked}); below 80 %: {weak or 'none'}")


def perplexities(tokenizer: Any, model: Any, poems: list[Any]) -> dict[str, float]:
    """Of poems given only their form: over the verse's `characters`, and over `all`, line ends and the end as well."""
    losses = {"characters": 0.0, "all": 0.0}
    counts = {"characters": 0, "all": 0}
    unknown = tokenizer.unk_token_id
    for poem in poems:
        ids = tokenizer(f"<{poem.form}>{poem.text}").input_ids
        if unknown in ids:
            continue
        # The tokenizer ends every line with its own line break; the poem's last line has none.
        ids[-1:] = [tokenizer.convert_tokens_to_ids("。"), tokenizer.eos_token_id]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logits = model(tokens).logits[0, 1:-1].float()
        targets = tokens[0, 2:]
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        width = len(poem.lines[0]) + 1
        is_char = (torch.arange(len(each)) + 1) % width != 0
        is_char[-1] = False
        losses["characters"] += each[is_char].sum().item()
        counts["characters"] += int(is_char.sum())
        losses["all"] += each.sum().item()
        counts["all"] += len(each)
    return {kind: math.exp(losses[kind] / counts[kind]) for kind in losses}


def measure_perplexity(poet: Poet, poems: list[Any]) -> None:
    """Held-out perplexity given only the form."""
    found = perplexities(poet.tokenizer, poet.model, poems)
    print(
        f"held-out perplexity given the form: {found['characters']:.1f} per character, "
        f"{found['all']:.1f} per token with line ends and end of poem ({len(poems)} poems)"
    )


def measure_speed(poet: Poet, poems: int = 20) -> None:
    """Tokens a second of generate() alone, on one core, with the model's own sampling."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    poet.generate("月")
    tokens, start = 0, time.perf_counter()
    for _ in tracked(range(poems), "poems"):
        tokens += poet.generate("写一首七律，月")[1]
    elapsed = time.perf_counter() - start
    torch.set_num_threads(threads)
    print(f"speed on one core: {tokens / elapsed:.0f} tokens/s, {elapsed / poems * 1000:.0f} ms for an eight-line poem")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the poet.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "poet")
    parser.add_argument("--corpus", type=Path, help="tarball of the npm package, instead of fetching it")
    parser.add_argument("--no-corpus", action="store_true", help="leave out what needs the corpus")
    parser.add_argument("--rounds", type=int, default=3, help="seeds for each of the 60 prompts")
    parser.add_argument("--seeds", type=int, default=6, help="seeds for each topic")
    parser.add_argument("--samples", type=int, default=8, help="poems to print")
    args = parser.parse_args()
    size = sum(path.stat().st_size for path in args.model.iterdir())
    start = time.perf_counter()
    poet = Poet(args.model)
    first = time.perf_counter() - start
    start = time.perf_counter()
    poet = Poet(args.model)
    again = time.perf_counter() - start
    print(f"loaded in {again:.2f} s ({first:.2f} s with transformers' lazy imports); folder {size / 1e6:.1f} MB")
    parameters = sum(parameter.numel() for parameter in poet.model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(poet.tokenizer)} tokens")
    measure_speed(poet)
    couplets = None
    if not args.no_corpus:
        from scripts.training.poet.corpus import fetch, load_poems, split  # needs opencc, unlike the rest

        train, held = split(load_poems(fetch(args.corpus)))
        couplets = {pair for poem in train for pair in pairwise(poem.lines)}
        measure_perplexity(poet, held)
    measure_poems(poet, args.rounds, couplets)
    measure_topics(poet, TOPICS, args.seeds, "{}")
    measure_topics(poet, TOPICS, args.seeds, "写一首关于{}的诗")
    measure_topics(poet, ENGLISH_TOPICS, args.seeds, "Write a short poem about {}")
    for seed, prompt in enumerate(PROMPTS[: args.samples]):
        torch.manual_seed(seed)
        print(f"\n[{prompt}]\n{poet.generate(prompt)[0]}")


if __name__ == "__main__":
    main()
