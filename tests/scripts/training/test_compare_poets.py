"""The blind comparison of two poets hides who wrote which, and is fair and repeatable."""

from __future__ import annotations

import pytest
import torch

from scripts.training import compare_poets


def random_poem(name: str) -> compare_poets.Write:
    """A poet whose poem shows its name and the random number it drew."""
    return lambda prompt: f"{name} {prompt} {torch.rand(1).item()}"


POETS = {name: random_poem(name) for name in ("old", "new")}
PROMPTS = [f"prompt {number}" for number in range(50)]


def test_the_key_names_the_poet_of_each_a_and_both_sides_come_up() -> None:
    found, key = compare_poets.pairs(PROMPTS, POETS, 3)
    assert [pair["prompt"] for pair in found] == PROMPTS
    assert [pair["a"].split()[0] for pair in found] == key
    for pair in found:
        assert {pair["a"].split()[0], pair["b"].split()[0]} == {"old", "new"}
    assert 10 < key.count("old") < 40


def test_both_poets_draw_the_same_random_numbers_and_each_pair_others() -> None:
    found, _ = compare_poets.pairs(PROMPTS, POETS, 3)
    draws = [{pair["a"].split()[-1], pair["b"].split()[-1]} for pair in found]
    assert all(len(draw) == 1 for draw in draws)
    assert len(set.union(*draws)) == len(PROMPTS)


def test_the_same_seed_gives_the_same_pairs() -> None:
    assert compare_poets.pairs(PROMPTS, POETS, 3) == compare_poets.pairs(PROMPTS, POETS, 3)
    assert compare_poets.pairs(PROMPTS, POETS, 3) != compare_poets.pairs(PROMPTS, POETS, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["m", "n", "--count", "61"], "--count must be 1 to 60, not 61"), (["m", "m"], "the two folders must differ")],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compare_poets", *arguments, "--pairs", "p", "--key", "k"])
    with pytest.raises(SystemExit):
        compare_poets.main()
    assert message in capsys.readouterr().err
