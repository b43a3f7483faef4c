"""A queue that is fair between those who wait in it, by what they take and not by how much they ask for.

It is deficit round robin: in each round every key may spend one unit of cost, and one whose next item costs more goes
into debt and sits out as many rounds. The rounds are counted and not walked: the round in which a key is due is the one
it joined in, and from then on what it has been served. So finding the next one looks at each key once, whatever things
cost. (A quantum of one unit makes this the same as start-time fair queueing.)
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Container, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Key, Item]):
    """Items of keys, such as the requests of callers, each with a positive cost. Those of one key come in the order in
    which they were put in.

    A key that has nothing in the queue keeps no credit, for it joins in the present round, but its debt until that is
    over: or who comes with one item at a time would always be first. Not thread-safe.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, OrderedDict[Item, float]] = {}  # of each key: item -> cost
        self._due: dict[Key, float] = {}  # the round in which each key that waits or is in debt is next
        self._round = 0.0
        self._count = 0

    def __len__(self) -> int:
        """From any thread."""
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """All items in the order in which they would be taken if no more came."""
        turns = [(self._due[key], turn, iter(items.items())) for turn, (key, items) in enumerate(self._waiting.items())]
        heapq.heapify(turns)
        while turns:
            due, turn, items = turns[0]
            for item, cost in items:
                yield item
                heapq.heapreplace(turns, (due + cost, turn, items))
                break
            else:
                heapq.heappop(turns)

    def put(self, key: Key, item: Item, cost: float = 1.0) -> None:
        self._join(key)
        self._waiting.setdefault(key, OrderedDict())[item] = cost
        self._count += 1

    def put_back(self, key: Key, item: Item, cost: float = 1.0) -> None:
        """Put in an item that was taken in vain: it is the key's first, and the key is not charged for it twice."""
        self._join(key)
        self._due[key] -= cost
        items = self._waiting.setdefault(key, OrderedDict())
        items[item] = cost
        items.move_to_end(item, last=False)
        self._count += 1

    def next_key(self, but_not: Container[Key] = ()) -> Key | None:
        """Whose turn it is, of other keys than these; None where nothing waits. Of several, who has waited longer.
        Where somebody could have been served and nothing waits, all debts are over."""
        if not self._waiting:
            self._due.clear()
        return min((key for key in self._waiting if key not in but_not), key=self._due.__getitem__, default=None)

    def items(self, key: Key) -> list[Item]:
        """What waits of a key."""
        return list(self._waiting.get(key, ()))

    def make_room(self, key: Key) -> Item | None:
        """For one more item of `key`, take out the last one of the key that has most of them. None where that one would
        not be left with more than `key`."""
        most = max(self._waiting, key=lambda each: len(self._waiting[each]), default=key)
        if len(self.items(key)) + 1 >= len(self.items(most)):
            return None
        last = next(reversed(self._waiting[most]))
        self.remove(most, last)
        return last

    def take(self, key: Key, item: Item | None = None) -> Item:
        """Take out an item of the key whose turn it is, the first one unless another is given, and charge the key."""
        items = self._waiting[key]
        item = next(iter(items)) if item is None else item
        self._round = max(self._round, self._due[key])
        self._due[key] += items[item]
        self.remove(key, item)
        return item

    def pop(self, but_not: Container[Key] = ()) -> Item | None:
        """Take out the next item of other keys than these; None where nothing waits."""
        key = self.next_key(but_not)
        return None if key is None else self.take(key)

    def remove(self, key: Key, item: Item) -> bool:
        """Take out an item that is not served; False where it is not in the queue."""
        items = self._waiting.get(key, OrderedDict())
        if item not in items:
            return False
        del items[item]
        self._count -= 1
        if not items:
            del self._waiting[key]
            self._due = {key: due for key, due in self._due.items() if key in self._waiting or due > self._round}
        return True

    def _join(self, key: Key) -> None:
        if key not in self._waiting:
            self._due[key] = max(self._due.get(key, self._round), self._round)
