"""Which event may follow which in one feed."""

from typing import Any

import pytest

from ledger.chain import Head, contradicts, extend, link, verify_chain
from nexapod.errors import PeerError
from nexapod.events import Event, make_event
from nexapod.hashing import blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.messages import Report, Rotate
from tests.ledger.scribe import NETID, Scribe

REMARK = Report(bytes(32), 0, "a remark")


def refused(head: Head | None, event: Event) -> PeerError:
    with pytest.raises(PeerError) as caught:
        extend(head, event)
    return caught.value


def test_a_feed_of_several_events_and_two_rotations_verifies() -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    ann.rotate()
    ann.write(REMARK)
    ann.rotate()
    last = ann.write(REMARK)
    head = verify_chain(None, ann.events)
    assert head is not None
    assert (head.seq, head.id, head.key, head.key_since) == (5, last.id, ann.key.public, 4)


def test_a_feed_begins_with_its_genesis_only() -> None:
    ann = Scribe("ann")
    first = ann.write(REMARK)
    assert "genesis" in refused(None, first).what


@pytest.mark.parametrize("change", [{"seq": 3}, {"seq": 1, "prev": bytes(32)}])
def test_seq_and_prev_must_follow(change: dict[str, Any]) -> None:
    ann = Scribe("ann")
    head = verify_chain(None, ann.events)
    where: dict[str, Any] = {"seq": 1, "prev": ann.feed} | change
    assert refused(head, make_event(ann.key, NETID, feed=ann.feed, ts=0, data=REMARK, **where)).cost == 10


def test_a_false_signature_costs_everything() -> None:
    ann, bob = Scribe("ann"), Scribe("bob")
    head = verify_chain(None, ann.events)
    forged = make_event(bob.key, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=REMARK)
    assert refused(head, forged).cost == 100
    assert link(head, forged).seq == 1  # the rules without the signature


def test_a_genesis_signed_by_another_key_is_refused() -> None:
    genesis = Scribe("ann").events[0]
    other = Scribe("bob").events[0]
    assert refused(None, genesis._replace(signature=other.signature)).cost == 100


def test_a_rotation_to_a_key_never_committed_to_is_refused() -> None:
    ann = Scribe("ann")
    head = verify_chain(None, ann.events)
    thief = Key.from_seed(blob_id(b"thief"))
    data = Rotate(thief.public, next_key_digest(thief.public))
    for key in (thief, ann.key):
        stolen = make_event(key, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=data)
        assert "never committed" in refused(head, stolen).what


def test_a_rotation_must_be_signed_by_the_new_key() -> None:
    ann = Scribe("ann")
    old, head = ann.key, verify_chain(None, ann.events)
    rotate = ann.rotate()
    assert rotate.data is not None
    by_old = make_event(old, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=rotate.data)
    assert refused(head, by_old).cost == 100


def test_the_old_key_cannot_continue_after_a_rotation() -> None:
    ann = Scribe("ann")
    old = ann.key
    last = ann.rotate()
    head = verify_chain(None, ann.events)
    event = make_event(old, NETID, feed=ann.feed, seq=2, prev=last.id, ts=0, data=REMARK)
    assert refused(head, event).cost == 100


def test_contradiction_counts_only_by_the_key_in_force() -> None:
    ann = Scribe("ann")
    old = ann.key
    ann.write(REMARK)
    ann.rotate()
    ann.write(REMARK)
    head = verify_chain(None, ann.events)
    assert head is not None
    other = Report(bytes(32), 1, "the opposite")
    assert contradicts(head, ann.rewrite(3, other))
    by_old = make_event(old, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=other)
    assert not contradicts(head, by_old)
    stranger = Scribe("bob")
    by_stranger = make_event(stranger.key, NETID, feed=ann.feed, seq=3, prev=ann.events[2].id, ts=0, data=other)
    assert not contradicts(head, by_stranger)
    beyond = make_event(ann.key, NETID, feed=ann.feed, seq=4, prev=ann.events[3].id, ts=0, data=other)
    assert not contradicts(head, beyond)


def test_a_rotation_beside_an_event_of_the_old_key_is_a_contradiction() -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    head = verify_chain(None, ann.events)
    assert head is not None
    twin = Scribe("ann")
    assert contradicts(head, twin.rotate())
