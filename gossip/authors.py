"""How much each author and each neighbour may say: token buckets in bounded tables.

Knows keys, counts and seconds handed to it. Must never know what was said.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from nexapod.limits import PEERS_MAX


class Rate(NamedTuple):
    """What may pass in a second and at once: batches, the messages in them, and their bytes."""

    batches: float
    messages: float
    size: float


AUTHOR_PER_S = Rate(25, 1_000, 256 * 1024)  # a node coalesces to five batches a second on each of four topics
AUTHOR_AT_ONCE = Rate(200, 16_384, 4 * 1024 * 1024)  # a replay after a reconnect comes at once
# Keys cost nothing, so authors alone bound nothing: all that comes through one neighbour is bounded as well.
NEIGHBOUR_PER_S = Rate(200, 8_000, 2 * 1024 * 1024)
NEIGHBOUR_AT_ONCE = Rate(1_600, 131_072, 16 * 1024 * 1024)
AUTHORS_MAX = 4096  # the author silent for longest is forgotten and starts over with a full bucket
NEIGHBOURS_MAX = 2 * PEERS_MAX  # likewise


@dataclass(slots=True)
class _Bucket:
    """Tokens left, by what was passed at `at`."""

    left: Rate
    at: float

    def fill(self, per_s: Rate, full: Rate, now: float) -> None:
        elapsed = max(0.0, now - self.at)
        self.left = Rate(
            *(min(top, have + elapsed * more) for have, more, top in zip(self.left, per_s, full, strict=True))
        )
        self.at = now

    def holds(self, cost: Rate) -> bool:
        return all(have >= price for have, price in zip(self.left, cost, strict=True))

    def pay(self, cost: Rate) -> None:
        self.left = Rate(*(have - price for have, price in zip(self.left, cost, strict=True)))


class _Buckets:
    """Buckets of one kind by key; a new one is full."""

    def __init__(self, per_s: Rate, full: Rate, most: int) -> None:
        self._per_s, self._full, self._most = per_s, full, most
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def get(self, key: bytes, now: float) -> _Bucket:
        bucket = self._buckets.pop(key, None) or _Bucket(self._full, now)
        bucket.fill(self._per_s, self._full, now)
        self._buckets[key] = bucket  # newest last
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket


class Authors:
    """Decides whether one more batch passes.

    An author has one bucket for each neighbour its batches come through: a neighbour that repeats old words of an
    author uses up what it may pass on of that author, and no more.
    """

    def __init__(self) -> None:
        self._authors = _Buckets(AUTHOR_PER_S, AUTHOR_AT_ONCE, AUTHORS_MAX)
        self._neighbours = _Buckets(NEIGHBOUR_PER_S, NEIGHBOUR_AT_ONCE, NEIGHBOURS_MAX)

    def __len__(self) -> int:
        return len(self._authors) + len(self._neighbours)

    def allow(self, author: bytes, neighbour: bytes, messages: int, size: int, now: float) -> bool:
        """Whether a batch of so many messages and bytes passes; if so it is paid for."""
        cost = Rate(1, messages, size)
        through = self._neighbours.get(neighbour, now)
        if not through.holds(cost):
            return False  # before a stranger's key is written down
        said = self._authors.get(author + neighbour, now)
        if not said.holds(cost):
            return False
        through.pay(cost)
        said.pay(cost)
        return True
