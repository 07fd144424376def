"""What a witness may acknowledge now.

Knows when a feed's head deserves an ack: new, every event it rests on acknowledged too, every spend covered, no fork.
Must never know keys or signing: the ack is an event of the witness's own feed, written elsewhere.
"""

from collections.abc import Iterable, Sequence

from ledger.fold import references, spend
from ledger.replica import Replica
from nexapod.events import Event
from nexapod.limits import ENTRIES_MAX
from nexapod.messages import Ack, AckEntry, Checkpoint

_STRIDE = 512  # events one ack moves a feed on at most, so that nobody's long feed holds the witness up


def due(replica: Replica, me: bytes) -> tuple[AckEntry, ...]:
    """The heads that the witness with feed `me` should acknowledge now, in feed order; empty when there are none.

    The entries are safe only once the events are synced to disk, which holds for everything in a replica. Feeds of
    witnesses that hold nothing but new acks are no reason to ack: acks of acks would never end.
    """
    certificate = replica.certificate
    if me not in certificate.witnesses or replica.provisional:
        return ()
    base = {feed: max(certificate.certified(feed), certificate.acked(me, feed)) for feed in replica.tails}
    moved = sorted(feed for feed in replica.tails if feed not in replica.forks and base[feed] < replica.heads[feed].seq)
    reach = {feed: _covered(replica, feed, base[feed] + _STRIDE) for feed in moved}
    fresh = [feed for feed, seq in reach.items() if seq > base[feed]]
    # In chunks, so that what one event can hold is closed in itself; events name each other without circles, so
    # while anything is due some chunk has something to give.
    for start in range(0, len(fresh), ENTRIES_MAX):
        targets = _closed(replica, base, {feed: reach[feed] for feed in fresh[start : start + ENTRIES_MAX]})
        if any(_matters(replica, feed, base[feed], seq) for feed, seq in targets.items()):
            return tuple(AckEntry(feed, seq, _id(replica, feed, seq)) for feed, seq in targets.items())
    return ()


def _covered(replica: Replica, feed: bytes, last: int) -> int:
    """The last seq of a feed, `last` at most, up to which every spend is covered by certified credit."""
    spent: dict[bytes, int] = {}
    for event in (*replica.fold.parked(feed), *replica.tails[feed]):
        if event.seq > last:
            return last
        match spend(event):
            case (colour, amount) if amount:
                spent[colour] = spent.get(colour, 0) + amount
                if spent[colour] > replica.fold.net.get((feed, colour), 0):
                    return event.seq - 1
            case _:
                pass
    return replica.heads[feed].seq


def _closed(replica: Replica, base: dict[bytes, int], targets: dict[bytes, int]) -> dict[bytes, int]:
    """The targets lowered until every event named within them is certified, acked before, or within them too."""
    lowered = True
    while lowered:
        lowered = False
        for feed, target in list(targets.items()):
            for event in _between(replica.tails[feed], base[feed], target):
                if all(_within(replica, base, targets, event_id) for event_id in references(event.data)):
                    continue
                lowered = True
                if event.seq - 1 > base[feed]:
                    targets[feed] = event.seq - 1
                else:
                    del targets[feed]
                break
    return targets


def _within(replica: Replica, base: dict[bytes, int], targets: dict[bytes, int], event_id: bytes) -> bool:
    at = replica.where.get(event_id)
    if at is None:
        return False
    feed, seq = at
    return seq <= max(replica.certificate.certified(feed), base.get(feed, -1), targets.get(feed, -1))


def _matters(replica: Replica, feed: bytes, base: int, target: int) -> bool:
    if feed not in replica.certificate.witnesses:
        return True
    return any(not isinstance(event.data, Ack | Checkpoint) for event in _between(replica.tails[feed], base, target))


def _between(tail: Sequence[Event], base: int, target: int) -> Iterable[Event]:
    first = tail[0].seq
    return tail[max(0, base + 1 - first) : target + 1 - first]


def _id(replica: Replica, feed: bytes, seq: int) -> bytes:
    event_id = replica.id_at(feed, seq)
    assert event_id is not None
    return event_id
