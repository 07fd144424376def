"""Which events are certified: how far enough witnesses vouch for each feed.

Knows the witnesses' feeds, their acks and the threshold. Must never know signatures, balances or storage: an ack that
reaches this file stands in its witness's own verified feed.
"""

from bisect import insort
from collections.abc import Callable
from typing import TypeAlias

from nexapod.limits import FEEDS_MAX
from nexapod.messages import AckEntry

# Acks of events not known here yet, kept per witness and feed; the lowest is dropped. A witness acks ever higher
# heads, so the highest ones decide; more than one is kept only for witnesses that ack both sides of a fork.
_AHEAD_MAX = 16

IdAt: TypeAlias = Callable[[bytes, int], bytes | None]  # (feed, seq) -> event id in this node's chain


class Certificate:
    """Acks in, certified seq of each feed out; it only rises. Threshold 0: no witnesses, whatever is stored counts.

    `witnesses`: ids of their feeds. A key alone would not do: whoever steals one that was rotated away could open
    another feed with it.
    """

    def __init__(self, witnesses: frozenset[bytes], threshold: int) -> None:
        assert 0 <= threshold <= len(witnesses), "more acks asked for than there are witnesses"
        self.witnesses, self.threshold = witnesses, threshold
        self.provisional = threshold == 0
        self._seq: dict[bytes, int] = {}  # feed -> certified seq
        self._acked: dict[bytes, dict[bytes, int]] = {}  # feed -> witness -> highest acked seq of our chain
        # witness -> feed -> (seq, id) not known here yet; FEEDS_MAX feeds each, further ones are ignored: an honest
        # witness acks no more feeds than a node keeps, another one wastes only its own room
        self._ahead: dict[bytes, dict[bytes, list[tuple[int, bytes]]]] = {witness: {} for witness in witnesses}

    def certified(self, feed: bytes) -> int:
        """The last certified seq of `feed`, -1 when there is none."""
        return self._seq.get(feed, -1)

    def acked(self, witness: bytes, feed: bytes) -> int:
        """The highest seq of `feed` that one witness acked, as far as known here; -1 when none."""
        return self._acked.get(feed, {}).get(witness, -1)

    def awaited(self, feed: bytes) -> int:
        """The seq up to which `feed` will be certified once this node has its chain; -1 when none."""
        if self.provisional:
            return -1
        reached = (
            max(self.acked(witness, feed), *(seq for seq, _ in waiting.get(feed, ())), -1)
            for witness, waiting in self._ahead.items()
        )
        return sorted(reached, reverse=True)[self.threshold - 1]

    def ack(self, witness: bytes, entry: AckEntry, id_at: IdAt) -> None:
        """Take one entry of a witness's ack into account."""
        if witness not in self.witnesses:
            return
        known = id_at(entry.feed, entry.seq)
        if known == entry.event:
            self._raise(witness, entry.feed, entry.seq)
        elif known is None:
            waiting = self._ahead[witness]
            if entry.feed not in waiting and len(waiting) >= FEEDS_MAX:
                return
            ahead = waiting.setdefault(entry.feed, [])
            if (entry.seq, entry.event) not in ahead:
                insort(ahead, (entry.seq, entry.event))
            del ahead[:-_AHEAD_MAX]

    def grown(self, feed: bytes, seq: int, id_at: IdAt) -> None:
        """The chain of `feed` now reaches `seq`: acks that were ahead of it may count."""
        if self.provisional:
            self._seq[feed] = max(seq, self.certified(feed))
            return
        for witness, waiting in self._ahead.items():
            ahead = waiting.get(feed, [])
            for acked, event_id in ahead:
                if acked <= seq and id_at(feed, acked) == event_id:
                    self._raise(witness, feed, acked)
            beyond = [entry for entry in ahead if entry[0] > seq]
            if beyond:
                waiting[feed] = beyond
            else:
                waiting.pop(feed, None)

    def _raise(self, witness: bytes, feed: bytes, seq: int) -> None:
        acked = self._acked.setdefault(feed, {})
        acked[witness] = max(seq, acked.get(witness, -1))
        if not self.provisional and len(acked) >= self.threshold:
            reached = sorted(acked.values(), reverse=True)[self.threshold - 1]
            self._seq[feed] = max(reached, self.certified(feed))
