"""What a witness acknowledges."""

from ledger.replica import Replica
from ledger.witness import due
from nexapod.encoding import encode
from nexapod.events import Event
from nexapod.hashing import blob_id
from nexapod.limits import ENTRIES_MAX, EVENT_BYTES_MAX
from nexapod.messages import Ack, AckEntry, Pay, Report
from tests.ledger.scribe import NETID, PRICE, Scribe, everything, walk

REMARK = Report(bytes(32), 0, "")


def town(*witnesses: Scribe, threshold: int = 1) -> Replica:
    return Replica(NETID, frozenset(w.feed for w in witnesses), threshold)


def take(replica: Replica, *events: Event) -> None:
    plan = replica.plan(events)
    assert not plan.refusals
    replica.apply(plan)
    replica.check_invariants()


def acknowledge(replica: Replica, witness: Scribe) -> tuple[AckEntry, ...]:
    """Let the witness ack what is due, as often as something is."""
    said: tuple[AckEntry, ...] = ()
    for _ in range(10):
        entries = due(replica, witness.feed)
        if not entries:
            return said
        said += entries
        event = witness.ack(*(by_id(replica, entry) for entry in entries))
        take(replica, event)
    raise AssertionError("it never ends")


def by_id(replica: Replica, entry: AckEntry) -> Event:
    event_id = replica.id_at(entry.feed, entry.seq)
    assert event_id == entry.event
    return Event(entry.event, entry.feed, entry.seq, b"", 0, 0, None, b"", b"")


def test_a_lab_certifies_everything_and_then_rests() -> None:
    wit, owner, ann, bob = Scribe("wit"), Scribe("owner"), Scribe("ann"), Scribe("bob")
    replica = town(wit)
    walk(owner, (ann, bob))
    take(replica, *everything(wit, owner, ann, bob))
    assert replica.fold.events == 0
    acknowledge(replica, wit)
    for scribe in (owner, ann, bob):
        assert replica.certificate.certified(scribe.feed) == scribe.events[-1].seq
    assert replica.fold.net[ann.feed, owner.feed] == PRICE
    assert due(replica, wit.feed) == ()


def test_three_witnesses_do_not_ack_each_others_acks_for_ever() -> None:
    witnesses = [Scribe(f"wit {i}") for i in range(3)]
    ann = Scribe("ann")
    replica = town(*witnesses, threshold=2)
    take(replica, *everything(*witnesses, ann))
    turns = 0
    while any(due(replica, witness.feed) for witness in witnesses):
        turns += 1
        assert turns < 5, "it does not end"
        for witness in witnesses:
            entries = due(replica, witness.feed)
            if entries:
                take(replica, witness.ack(*(by_id(replica, entry) for entry in entries)))
    assert replica.certificate.certified(ann.feed) == 0
    take(replica, ann.write(REMARK))
    assert all(any(entry.feed == ann.feed for entry in due(replica, w.feed)) for w in witnesses)


def test_only_a_witness_has_anything_due() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    replica = town(wit)
    take(replica, *everything(wit, ann))
    assert due(replica, ann.feed) == ()
    assert due(replica, bytes(32)) == ()
    assert due(replica, wit.feed)
    assert due(Replica(NETID), wit.feed) == ()


def test_what_rests_on_unknown_events_waits() -> None:
    wit, owner, ann, bob = Scribe("wit"), Scribe("owner"), Scribe("ann"), Scribe("bob")
    replica = town(wit)
    settle = walk(owner, (ann, bob))
    take(replica, *everything(wit, owner, ann))
    acknowledge(replica, wit)
    assert replica.certificate.certified(owner.feed) == settle.seq - 1
    take(replica, *bob.events)
    acknowledge(replica, wit)
    assert replica.certificate.certified(owner.feed) == owner.events[-1].seq
    assert replica.fold.parked_feeds() == []


def test_an_uncovered_spend_is_not_acknowledged() -> None:
    wit, mint, ann, bob = Scribe("wit"), Scribe("mint"), Scribe("ann"), Scribe("bob")
    replica = town(wit)
    walk(mint, (ann, bob))
    ann.write(Pay(bob.feed, mint.feed, PRICE - 1))
    covered = ann.write(Pay(bob.feed, mint.feed, 1))
    ann.write(Pay(bob.feed, mint.feed, 1))
    take(replica, *everything(wit, mint, ann, bob))
    acknowledge(replica, wit)
    assert replica.certificate.certified(ann.feed) == covered.seq
    assert replica.fold.overissue() == {}
    bob.write(Pay(ann.feed, mint.feed, 1))
    take(replica, bob.events[-1])
    acknowledge(replica, wit)
    assert replica.certificate.certified(ann.feed) == covered.seq + 1


def test_a_forked_feed_is_not_acknowledged_beyond_its_certified_prefix() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    replica = town(wit)
    take(replica, *everything(wit, ann))
    acknowledge(replica, wit)
    take(replica, ann.write(REMARK))
    take(replica, ann.rewrite(1, Report(bytes(32), 1, "")))
    assert all(entry.feed != ann.feed for entry in acknowledge(replica, wit))
    assert replica.certificate.certified(ann.feed) == 0


def test_more_feeds_than_one_event_holds_take_several() -> None:
    wit = Scribe("wit")
    replica = town(wit)
    crowd = [Scribe(f"node {i}") for i in range(ENTRIES_MAX + 10)]
    owner = Scribe("owner")
    walk(owner, crowd[:3])
    take(replica, *everything(wit, owner, *crowd))
    assert len(due(replica, wit.feed)) <= ENTRIES_MAX
    acknowledge(replica, wit)
    assert all(replica.certificate.certified(s.feed) == s.events[-1].seq for s in (owner, *crowd))


def test_the_longest_ack_fits_one_event() -> None:
    entry = AckEntry(b"f" * 32, 2**63 - 1, b"e" * 32)
    assert len(encode(Ack((entry,) * ENTRIES_MAX))) + 300 < EVENT_BYTES_MAX


def test_entries_are_in_feed_order() -> None:
    wit = Scribe("wit")
    replica = town(wit)
    take(replica, *everything(wit, *(Scribe(f"node {i}") for i in range(20))))
    feeds = [entry.feed for entry in due(replica, wit.feed)]
    assert feeds == sorted(feeds)
    assert blob_id(b"") not in feeds
