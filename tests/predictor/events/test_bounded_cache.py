"""A cache in memory that is bounded in number, size and age. Number and age: see test_deduplication."""

from __future__ import annotations

from predictor.events.bounded_cache import BoundedCache


def test_a_value_that_is_replaced_counts_once_and_one_above_the_bound_is_not_kept() -> None:
    cache: BoundedCache[str, int] = BoundedCache(number=10, size=10, seconds=100)
    cache.put("a", 1, 6)
    cache.put("a", 2, 6)
    cache.put("b", 3, 4)
    assert (cache.get("a"), cache.get("b")) == (2, 3)

    cache.put("c", 4, 11)
    assert [cache.get(key) for key in "abc"] == [None] * 3
