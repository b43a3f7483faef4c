"""Which arguments of a denoiser are joined row by row, and which calls do not fit."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")


def call(*args: Any, **kwargs: Any) -> Any:
    from predictor.pictures.denoiser_call import DenoiserCall

    return DenoiserCall(args, kwargs)


def joined(*calls: Any) -> tuple[Any, Any]:
    """What the forward is called with; every call gets its own rows back."""
    seen: list[Any] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return (args[0] if args else kwargs["hidden_states"],)

    assert all(calls[0].fits(other) for other in calls[1:])
    answers = calls[0].compute_with(calls[1:], forward)
    for each, (answer,) in zip(calls, answers, strict=True):
        mine = each.args[0] if each.args else each.kwargs["hidden_states"]
        assert all(map(torch.equal, answer, mine))
    args, kwargs = seen[0]
    return args, kwargs


def test_positions_of_as_many_tokens_as_there_are_rows_are_no_rows() -> None:
    """Two rows for guidance, and a text of two tokens."""
    calls = [call(hidden_states=torch.randn(2, 4, 8), txt_ids=torch.ones(2, 3)) for _ in range(2)]

    _, kwargs = joined(*calls)

    assert kwargs["hidden_states"].shape == (4, 4, 8)
    assert kwargs["txt_ids"].shape == (2, 3)


def test_positions_of_each_row_are_rows() -> None:
    calls = [call(hidden_states=torch.randn(2, 4, 8), txt_ids=torch.ones(2, 5, 3)) for _ in range(2)]

    assert joined(*calls)[1]["txt_ids"].shape == (4, 5, 3)


def test_rows_may_be_counted_by_another_dimension_than_the_first() -> None:
    name = "encoder_hidden_states_llama3"
    calls = [call(hidden_states=torch.randn(2, 4, 8, 8), **{name: torch.randn(3, 2, 5, 8)}) for _ in range(2)]

    assert joined(*calls)[1][name].shape == (3, 4, 5, 8)


def test_a_mask_that_the_model_repeats_itself_has_no_rows() -> None:
    calls = [call(hidden_states=torch.randn(1, 4, 1, 8, 8), padding_mask=torch.zeros(1, 1, 64, 64)) for _ in range(2)]

    assert joined(*calls)[1]["padding_mask"].shape == (1, 1, 64, 64)


def test_a_list_has_a_tensor_for_each_row() -> None:
    texts = [torch.randn(3, 8), torch.randn(7, 8)]
    calls = [call([torch.randn(4, 1, 8, 8)], torch.ones(1), [text]) for text in texts]

    (latents, times, joined_texts), _ = joined(*calls)

    assert [len(latents), len(times)] == [2, 2]
    assert all(map(torch.equal, joined_texts, texts))
    assert not calls[0].fits(call([torch.randn(4, 1, 16, 8)], torch.ones(1), [texts[0]])), "of another size"


def test_texts_of_other_lengths_are_padded_where_the_model_has_a_mask() -> None:
    text, mask = "encoder_hidden_states", "encoder_hidden_states_mask"
    calls = [
        call(hidden_states=torch.randn(1, 4, 8), **{text: torch.randn(1, length, 8), mask: None}) for length in (3, 5)
    ]

    kwargs = joined(*calls)[1]

    assert kwargs[text].shape == (2, 5, 8)
    assert kwargs[mask].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    same = joined(calls[0], calls[0])[1]
    assert same[mask] is None, "without padding there is no mask: other kernels are faster"
    bare = [call(hidden_states=torch.randn(1, 4, 8), **{text: torch.randn(1, length, 8)}) for length in (3, 5)]
    assert not bare[0].fits(bare[1])


def test_an_object_that_may_keep_a_state_is_the_same_only_if_it_is_the_same() -> None:
    class Cache:
        def __repr__(self) -> str:
            return "Cache()"

    latents, cache = torch.randn(1, 4, 8), Cache()
    assert call(hidden_states=latents, cache=cache).fits(call(hidden_states=latents, cache=cache))
    assert not call(hidden_states=latents, cache=cache).fits(call(hidden_states=latents, cache=Cache()))
    assert not call(hidden_states=latents, scale=1.0).fits(call(hidden_states=latents, scale=2.0))
