"""The fair queue: everybody gets the same share, whoever asks for how much and in which pieces."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from wire.concurrency.fair_queue import FairQueue


def put(queue: FairQueue[str, str], *items: str, cost: float = 1.0) -> None:
    """Items are named by their key and a number."""
    for item in items:
        queue.put(item[0], item, cost)


def popped(queue: FairQueue[str, str], count: int | None = None) -> list[str]:
    found: list[str] = []
    while (count is None or len(found) < count) and (item := queue.pop()) is not None:
        found.append(item)
    return found


def test_the_items_of_one_key_come_in_their_order() -> None:
    queue = FairQueue[str, str]()
    put(queue, "a1", "a2", "a3")
    assert popped(queue) == ["a1", "a2", "a3"]
    assert queue.pop() is None
    assert len(queue) == 0


def test_keys_take_turns_however_many_items_each_has() -> None:
    queue = FairQueue[str, str]()
    put(queue, "a1", "a2", "a3", "a4", "b1", "c1", "b2")
    assert popped(queue) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_one_that_comes_to_a_long_queue_is_next() -> None:
    queue = FairQueue[str, str]()
    put(queue, *(f"a{number}" for number in range(200)))
    for _ in range(20):
        queue.pop()
        put(queue, "b")
        assert queue.pop() == "b"


def test_turns_are_by_cost() -> None:
    """Four of one cost what one of the other does."""
    queue = FairQueue[str, str]()
    for number in range(40):
        queue.put("a", f"a{number}", 4.0)
        queue.put("b", f"b{number}", 1.0)
    assert Counter(item[0] for item in popped(queue, 25)) == {"a": 5, "b": 20}


@pytest.mark.parametrize("seed", range(5))
def test_nobody_gets_more_than_one_item_ahead_of_its_share(seed: int) -> None:
    random = Random(seed)
    queue = FairQueue[str, str]()
    costs: dict[str, float] = {}
    for number in range(300):
        for key, largest in (("a", 1), ("b", 50), ("c", 3_000)):
            costs[f"{key}{number}"] = random.randint(1, largest)
            queue.put(key, f"{key}{number}", costs[f"{key}{number}"])
    served = dict.fromkeys("abc", 0.0)
    while min(len(queue.items(key)) for key in "abc"):
        item = queue.pop()
        assert item is not None
        served[item[0]] += costs[item]
        for key in "abc":
            for other in "abc":
                assert served[key] - served[other] <= {"a": 1, "b": 50, "c": 3_000}[key]


def test_one_that_leaves_keeps_no_credit() -> None:
    queue = FairQueue[str, str]()
    put(queue, "a1", "b1")
    popped(queue, 2)
    put(queue, *(f"a{number}" for number in range(10)))
    popped(queue, 5)
    put(queue, *(f"b{number}" for number in range(5)))
    assert popped(queue, 4) == ["b0", "a5", "b1", "a6"]


def test_one_that_comes_back_at_once_does_not_go_before_all_others() -> None:
    """With one item at a time, the next as soon as one is taken."""
    queue = FairQueue[str, str]()
    put(queue, *(f"a{number}" for number in range(10)))
    put(queue, "b")
    served = Counter[str]()
    for _ in range(12):
        item = queue.pop()
        assert item is not None
        served[item[0]] += 1
        if item == "b":
            put(queue, "b")
    assert served == {"a": 6, "b": 6}


def test_what_is_removed_is_not_charged() -> None:
    queue = FairQueue[str, str]()
    put(queue, *(f"a{number}" for number in range(100)), "b1", "b2")
    for number in range(99):
        assert queue.remove("a", f"a{number}")
    assert not queue.remove("a", "a0")
    assert not queue.remove("c", "c0")
    assert popped(queue) == ["a99", "b1", "b2"]


def test_what_is_put_back_is_first_and_not_charged_twice() -> None:
    queue = FairQueue[str, str]()
    put(queue, "a1", "a2", "b1", "b2")
    assert queue.pop() == "a1"
    queue.put_back("a", "a1")
    assert popped(queue) == ["a1", "b1", "a2", "b2"]
    queue.put_back("c", "c1", 5)
    assert popped(queue) == ["c1"]


def test_the_order_is_known_beforehand() -> None:
    random = Random(7)
    queue = FairQueue[str, str]()
    for number in range(300):
        key = random.choice("abbcccc")
        queue.put(key, f"{key}{number}", random.randint(1, 9))
        if random.random() < 0.4:
            queue.pop()
    expected = list(queue)
    assert len(expected) == len(queue)
    assert popped(queue) == expected
    assert list(queue) == []


def test_any_item_of_the_next_key_can_be_taken() -> None:
    queue = FairQueue[str, str]()
    put(queue, "a1", "a2", "b1")
    assert queue.next_key() == "a"
    assert queue.take("a", "a2") == "a2"
    assert (queue.next_key(), queue.items("a"), queue.items("c")) == ("b", ["a1"], [])


def test_room_is_made_by_who_has_most() -> None:
    queue = FairQueue[str, str]()
    assert queue.make_room("a") is None
    put(queue, "a1", "b1", "b2", "b3", "c1")
    assert queue.make_room("b") is None
    assert queue.make_room("a") == "b3"
    assert queue.make_room("a") is None  # it would have as many
    assert queue.make_room("d") == "b2"
    assert queue.make_room("d") is None
    assert popped(queue) == ["a1", "b1", "c1"]


def test_nothing_is_kept_of_keys_that_have_gone() -> None:
    queue = FairQueue[int, int]()
    for key in range(1_000):
        queue.put(key, key, 5)
        queue.put(key, -key - 1, 5)
        queue.remove(key, -key - 1)
        queue.pop()
    assert queue.pop() is None
    assert not vars(queue)["_due"]
    for key in range(1_000):
        queue.put(0, -key - 1)  # one that always waits
        queue.put(key, key)
        queue.pop()
        queue.pop()
    assert len(vars(queue)["_due"]) < 10
