"""What two nodes say to find out which events the other lacks.

Knows heads, pages and wants. Must never know connections, storage or what events mean. Gossip may lose anything:
repeating this exchange with enough neighbours brings every event, and every proof of a fork, to everyone.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Container, Mapping

from ledger.chain import Head
from nexapod.encoding import encode
from nexapod.hashing import Tag, tagged
from nexapod.limits import FEEDS_MAX, FRONTIER_PER_PAGE
from nexapod.messages import AskEvents, AskFrontier, FrontierReply
from nexapod.messages import Head as HeadNote

# Stands for the event id of a head: this side can prove that the feed forked at that seq, and will when asked for it.
FORKED = bytes(32)


class Frontier:
    """The heads of all feeds in id order, with one hash of them that is cheap to keep while heads move."""

    def __init__(self) -> None:
        self._feeds: list[bytes] = []  # in order
        self._notes: dict[bytes, HeadNote] = {}
        self._leaves: dict[bytes, bytes] = {}  # feed -> leaf hash
        self._levels: list[list[bytes]] | None = None  # of the Merkle tree, leaves first; None: a feed came since

    def move(self, feed: bytes, seq: int, event: bytes) -> None:
        """The chain of `feed` now ends with this event."""
        self._set(HeadNote(feed, seq, event), seq)

    def fork(self, feed: bytes, seq: int, certified: int) -> None:
        """`feed` is proven to have forked at `seq`; two nodes agree about it when its certified part is the same."""
        self._set(HeadNote(feed, seq, FORKED), certified + 1)

    def _set(self, note: HeadNote, mark: int) -> None:
        leaf = hashlib.sha256(b"\0" + encode((note.feed, mark, note.event))).digest()
        if note.feed not in self._notes:
            insort(self._feeds, note.feed)
            self._levels = None
        self._notes[note.feed], self._leaves[note.feed] = note, leaf
        if self._levels is not None:
            self._climb(self._levels, bisect_left(self._feeds, note.feed), leaf)

    def _climb(self, levels: list[list[bytes]], at: int, node: bytes) -> None:
        for level in levels:
            level[at] = node
            left = at & ~1
            node = _join(level, left)
            at //= 2

    def root(self) -> bytes:
        """One hash of all heads, certified or not: equal roots have nothing to tell each other. RFC 6962 hashing."""
        if self._levels is None:
            level = [self._leaves[feed] for feed in self._feeds]
            self._levels = [level]
            while len(level) > 1:
                level = [_join(level, left) for left in range(0, len(level), 2)]
                self._levels.append(level)
        top = self._levels[-1]
        return tagged(Tag.FRONTIER, top[0] if top else hashlib.sha256(b"").digest())

    def page(self, after: bytes, limit: int = FRONTIER_PER_PAGE) -> FrontierReply:
        """The heads of the feeds after `after` in id order, as many as a reply may hold."""
        start = bisect_right(self._feeds, after)
        chosen = self._feeds[start : start + limit]
        return FrontierReply(tuple(self._notes[feed] for feed in chosen), start + limit < len(self._feeds))

    def answer(self, ask: AskFrontier) -> FrontierReply:
        """The reply to a frontier question: empty when both sides know the same."""
        return FrontierReply((), False) if ask.root == self.root() else self.page(ask.after)


def _join(level: list[bytes], left: int) -> bytes:
    """The node over the one at even index `left` and its neighbour; a last one without neighbour rises as it is."""
    if left + 1 == len(level):
        return level[left]
    return hashlib.sha256(b"\1" + level[left] + level[left + 1]).digest()


def wants(
    mine: Mapping[bytes, Head], reply: FrontierReply, unwanted: Container[bytes] = (), forked: Container[bytes] = ()
) -> list[AskEvents]:
    """What to ask the other side for, in feed order.

    `unwanted`: feeds known here of which nothing more is taken; `forked`: those whose fork is proven here already.

    A known feed is asked for from its last known event on, not after it: when the other side has another event there,
    the answer is the proof of a fork. Nothing new is asked for that would be refused.
    """
    asks = []
    room = FEEDS_MAX - len(mine)
    for note in reply.heads:
        head = mine.get(note.feed)
        if head is None:
            if room > 0:
                asks.append(AskEvents(note.feed, 0))
            room -= 1
        elif note.feed in unwanted:
            continue
        elif note.event == FORKED and note.feed not in forked:
            asks.append(AskEvents(note.feed, min(note.seq, head.seq)))
        elif note.event == FORKED or note.seq > head.seq or (note.seq == head.seq and note.event != head.id):
            asks.append(AskEvents(note.feed, head.seq))
    return asks
