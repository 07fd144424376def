"""Which events are certified: how far enough witnesses vouch for each feed.

Knows the witnesses' keys, their acks and the threshold. Must never know signatures, balances or storage: an ack that
reaches this file stands in its witness's own verified feed.
"""

from collections.abc import Callable
from typing import TypeAlias

from nexapod.messages import AckEntry

# Acks of events not known here yet, kept per witness and feed; the lowest is dropped. A witness acks ever higher
# heads, so the highest ones decide; more than one is kept only for witnesses that ack both sides of a fork.
_AHEAD_MAX = 16

IdAt: TypeAlias = Callable[[bytes, int], bytes | None]  # (feed, seq) -> event id in this node's chain


class Certificate:
    """Acks in, certified seq of each feed out; it only rises. Threshold 0: no witnesses, whatever is stored counts."""

    def __init__(self, witness_keys: frozenset[bytes], threshold: int) -> None:
        assert 0 <= threshold <= len(witness_keys), "more acks asked for than there are witnesses"
        self.witness_keys, self.threshold = witness_keys, threshold
        self.provisional = threshold == 0
        self._seq: dict[bytes, int] = {}  # feed -> certified seq
        self._acked: dict[bytes, dict[bytes, int]] = {}  # feed -> witness key -> highest acked seq of our chain
        self._ahead: dict[bytes, dict[bytes, list[tuple[int, bytes]]]] = {}  # the same, not known here yet

    def certified(self, feed: bytes) -> int:
        """The last certified seq of `feed`, -1 when there is none."""
        return self._seq.get(feed, -1)

    def acked(self, key: bytes, feed: bytes) -> int:
        """The highest seq of `feed` that one witness acked, as far as known here; -1 when none."""
        return self._acked.get(feed, {}).get(key, -1)

    def ack(self, key: bytes, entry: AckEntry, id_at: IdAt) -> None:
        """Take one entry of a witness's ack into account. A witness counts once by key, however many feeds it opens."""
        if key not in self.witness_keys:
            return
        known = id_at(entry.feed, entry.seq)
        if known is None:
            ahead = self._ahead.setdefault(entry.feed, {}).setdefault(key, [])
            ahead.append((entry.seq, entry.event))
            ahead.sort()
            del ahead[:-_AHEAD_MAX]
        elif known == entry.event:
            self._raise(key, entry.feed, entry.seq)

    def grown(self, feed: bytes, seq: int, id_at: IdAt) -> None:
        """The chain of `feed` now reaches `seq`: acks that were ahead of it may count."""
        if self.provisional:
            self._seq[feed] = max(seq, self.certified(feed))
            return
        waiting = self._ahead.get(feed)
        if waiting is None:
            return
        for key, ahead in list(waiting.items()):
            for acked, event_id in ahead:
                if acked <= seq and id_at(feed, acked) == event_id:
                    self._raise(key, feed, acked)
            waiting[key] = [entry for entry in ahead if entry[0] > seq]
            if not waiting[key]:
                del waiting[key]
        if not waiting:
            del self._ahead[feed]

    def _raise(self, key: bytes, feed: bytes, seq: int) -> None:
        acked = self._acked.setdefault(feed, {})
        acked[key] = max(seq, acked.get(key, -1))
        if not self.provisional and len(acked) >= self.threshold:
            reached = sorted(acked.values(), reverse=True)[self.threshold - 1]
            self._seq[feed] = max(reached, self.certified(feed))
