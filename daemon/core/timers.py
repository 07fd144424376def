"""Moments to come back to, by key.

Knows keys and monotonic milliseconds. Must never know what is due: its caller does.
"""

import heapq
from typing import Generic, TypeVar

K = TypeVar("K")
_SLACK = 16  # outdated entries that are not worth sweeping out


class Timers(Generic[K]):
    """At most one moment per key. Setting, dropping and taking what is due cost little however many there are."""

    def __init__(self) -> None:
        self._at: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []  # every key of `_at`, no later than its moment; swept when mostly outdated
        self._queued: dict[K, int] = {}  # key -> its earliest entry in the heap

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def at(self, key: K) -> int | None:
        """The moment set for a key."""
        return self._at.get(key)

    def set(self, key: K, at_ms: int) -> None:
        """Set the moment of a key, or move it."""
        self._at[key] = at_ms
        if key not in self._queued or at_ms < self._queued[key]:
            self._queued[key] = at_ms
            heapq.heappush(self._heap, (at_ms, key))
            if len(self._heap) > 2 * len(self._at) + _SLACK:
                self._sweep()

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._at.pop(key, None)

    def clear(self) -> None:
        """Forget all keys."""
        self._at, self._heap, self._queued = {}, [], {}

    def due(self, now_ms: int) -> list[K]:
        """Keys whose moment has come, in order; they are forgotten."""
        found = []
        while (first := self._settle_first()) is not None and first[0] <= now_ms:
            heapq.heappop(self._heap)
            del self._queued[first[1]]
            del self._at[first[1]]
            found.append(first[1])
        return found

    @property
    def next_at(self) -> int | None:
        """The earliest moment, None when there is none."""
        first = self._settle_first()
        return None if first is None else first[0]

    def _settle_first(self) -> tuple[int, K] | None:
        """Put outdated entries right until the first one stands for a key's very moment."""
        while self._heap:
            at, key = self._heap[0]
            wanted = self._at.get(key)
            if self._queued.get(key) == at and wanted == at:
                return at, key
            heapq.heappop(self._heap)
            if self._queued.get(key) != at:
                continue  # a later entry of a key that was set earlier since
            del self._queued[key]
            if wanted is not None:
                self._queued[key] = wanted
                heapq.heappush(self._heap, (wanted, key))
        return None

    def _sweep(self) -> None:
        self._queued = dict(self._at)
        self._heap = [(at, key) for key, at in self._at.items()]
        heapq.heapify(self._heap)
