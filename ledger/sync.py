"""What two nodes say to find out which events the other lacks.

Knows heads, pages and wants. Must never know connections, storage or what events mean. Gossip may lose anything:
repeating this exchange with enough neighbours brings every event to everyone.
"""

from bisect import bisect_right
from collections.abc import Container, Mapping

from ledger.chain import Head
from nexapod.encoding import encode
from nexapod.hashing import Tag, merkle_root, tagged
from nexapod.limits import FRONTIER_PER_PAGE
from nexapod.messages import AskEvents, AskFrontier, FrontierReply
from nexapod.messages import Head as HeadNote


def frontier_root(heads: Mapping[bytes, Head]) -> bytes:
    """One hash of all heads, certified or not."""
    leaves = [encode((feed, heads[feed].seq, heads[feed].id)) for feed in sorted(heads)]
    return tagged(Tag.FRONTIER, merkle_root(leaves))


def page(heads: Mapping[bytes, Head], after: bytes, limit: int = FRONTIER_PER_PAGE) -> FrontierReply:
    """The heads of the feeds after `after` in id order, as many as a reply may hold."""
    feeds = sorted(heads)
    start = bisect_right(feeds, after) if after else 0
    chosen = feeds[start : start + limit]
    notes = tuple(HeadNote(feed, heads[feed].seq, heads[feed].id) for feed in chosen)
    return FrontierReply(notes, start + limit < len(feeds))


def answer(heads: Mapping[bytes, Head], root: bytes, ask: AskFrontier) -> FrontierReply:
    """The reply to a frontier question: empty when both sides know the same. `root`: frontier_root of `heads`."""
    return FrontierReply((), False) if ask.root == root else page(heads, ask.after)


def wants(mine: Mapping[bytes, Head], reply: FrontierReply, forked: Container[bytes] = ()) -> list[AskEvents]:
    """What to ask the other side for, in feed order.

    A known feed is asked for from its last known event on, not after it: when the other side has another event there,
    the answer is the proof of a fork.
    """
    asks = []
    for note in reply.heads:
        head = mine.get(note.feed)
        if head is None:
            asks.append(AskEvents(note.feed, 0))
        elif note.feed not in forked and (note.seq > head.seq or (note.seq == head.seq and note.event != head.id)):
            asks.append(AskEvents(note.feed, head.seq))
    return asks
