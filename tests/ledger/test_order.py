"""Causes before effects."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.order import causal, names
from nexapod.events import Event
from nexapod.messages import Lock, Release, Reveal, Steward
from tests.ledger.scribe import Scribe, everything, walk

OWNER, ANN, BOB = Scribe("owner"), Scribe("ann"), Scribe("bob")
SETTLE = walk(OWNER, (ANN, BOB))
walk(BOB, (OWNER, ANN), job_id="second")
LOCK = ANN.write(Lock(SETTLE.data.offer, OWNER.feed, 1))  # type: ignore[union-attr]
ANN.write(Release(LOCK.id, SETTLE.id))
ALL = everything(OWNER, ANN, BOB)


@given(st.permutations(ALL))
def test_causes_come_first_and_the_order_is_one(events: list[Event]) -> None:
    ordered = causal(events)
    assert ordered == causal(ALL)
    place = {event.id: i for i, event in enumerate(ordered)}
    assert len(place) == len(ALL)
    for event in ordered:
        for cause in (event.prev, *names(event.data)):
            assert not cause or place[cause] < place[event.id]


@given(st.sets(st.sampled_from(ALL)))
def test_parts_are_ordered_too(events: set[Event]) -> None:
    ordered = causal(events)
    assert set(ordered) == events
    for feed in {event.feed for event in events}:
        seqs = [event.seq for event in ordered if event.feed == feed]
        assert seqs == sorted(seqs)


def test_what_an_event_names() -> None:
    opening = SETTLE.data.entries[0].openings[0]  # type: ignore[union-attr]
    assert names(Reveal(b"o" * 32, 0, opening)) == (b"o" * 32, opening.commit)
    assert names(Release(b"l" * 32, None)) == (b"l" * 32,)
    assert names(Steward(b"o" * 32)) == (b"o" * 32,)
    assert names(None) == ()
