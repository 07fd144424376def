"""The rules of one feed: which event may follow which, and whose key signs it.

Knows sequence numbers, hash links, signatures and key rotation. Must never know what an event means to balances, nor
where events are kept.
"""

from collections.abc import Iterable
from typing import NamedTuple

from nexapod.errors import PeerError
from nexapod.events import Event
from nexapod.identity import next_key_digest
from nexapod.messages import Genesis, Rotate


class Head(NamedTuple):
    """How far a feed goes: the key that signs its next event, the digest of the key after that, and the last event.

    `key_since` is the seq of the genesis or rotation that brought in `key`.
    """

    key: bytes
    next_key_digest: bytes
    seq: int
    id: bytes
    key_since: int = 0


def extend(head: Head | None, event: Event) -> Head:
    """The head after `event`, which must directly follow `head` (None: must be a genesis) and be properly signed.

    Raises:
        PeerError: wrong seq or prev, a key that was never committed to (cost 10), or a false signature (cost 100).
        Source: docs/protocol, feeds.
    """
    after = link(head, event)
    if not event.signed_by(after.key):
        raise PeerError(f"event {event.id.hex()[:12]} has a false signature", section="feeds", cost=100)
    return after


def link(head: Head | None, event: Event) -> Head:
    """As `extend` without looking at the signature: for events this node verified before it stored them.

    Raises:
        PeerError: as in `extend`, less the signature.
    """
    if head is None:
        if not isinstance(event.data, Genesis):
            raise PeerError("a feed begins with its genesis", section="feeds")
        return Head(event.data.key, event.data.next_key_digest, 0, event.id)
    if event.seq != head.seq + 1:
        raise PeerError(f"seq {event.seq} does not follow {head.seq}", section="feeds")
    if event.prev != head.id:
        raise PeerError(f"event {event.seq} does not link to the one before it", section="feeds")
    if isinstance(event.data, Rotate):
        if next_key_digest(event.data.key) != head.next_key_digest:
            raise PeerError("the feed rotates to a key it never committed to", section="feeds")
        return Head(event.data.key, event.data.next_key_digest, event.seq, event.id, event.seq)
    return Head(head.key, head.next_key_digest, event.seq, event.id, head.key_since)


def verify_chain(head: Head | None, events: Iterable[Event]) -> Head | None:
    """The head after all `events` of one feed in order.

    Raises:
        PeerError: as in `extend`, for the first event that fails.
    """
    for event in events:
        head = extend(head, event)
    return head


def contradicts(head: Head, event: Event) -> bool:
    """Whether `event`, another one at a seq this feed already passed, is the author's own doing.

    True makes the two events a fork proof. A key that was rotated away proves nothing: whoever steals an old key can
    sign old sequence numbers, but can neither rewrite nor kill the feed.
    """
    if event.seq > head.seq:
        return False
    if isinstance(event.data, Rotate):
        committed = next_key_digest(event.data.key) == head.next_key_digest
        return event.seq > head.key_since and committed and event.signed_by(event.data.key)
    return event.seq > head.key_since and event.signed_by(head.key)
