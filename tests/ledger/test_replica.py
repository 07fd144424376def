"""How a batch of events changes what a node holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import replica as replica_module
from ledger.replica import Applied, Replica
from ledger.verdict import SealedCommit
from nexapod.events import Event, make_event, make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import next_key_digest
from nexapod.messages import Report, Vouch
from tests.ledger.scribe import NETID, Scribe, everything, walk

REMARK = Report(bytes(32), 0, "")
OTHER = Report(bytes(32), 1, "")


def take(replica: Replica, *events: Event) -> Applied:
    applied = replica.apply(replica.plan(events))
    replica.check_invariants()
    return applied


def long_feed(length: int = 5) -> Scribe:
    ann = Scribe("ann")
    for _ in range(length):
        ann.write(REMARK)
    return ann


def test_planning_changes_nothing() -> None:
    replica, ann = Replica(NETID), long_feed()
    replica.plan(ann.events)
    assert replica.events == 0
    assert replica.plan(ann.events).stored == tuple(ann.events)


def test_a_batch_in_any_order_is_stored_in_order() -> None:
    replica, ann = Replica(NETID), long_feed()
    applied = take(replica, *reversed(ann.events))
    assert applied.stored == applied.certified == applied.folded == tuple(ann.events)
    assert replica.provisional


def test_orphans_wait_for_their_predecessors() -> None:
    replica, ann = Replica(NETID), long_feed()
    assert take(replica, *ann.events[2:]).stored == ()
    assert replica.orphans == 4
    assert take(replica, ann.events[0]).stored == (ann.events[0],)
    assert take(replica, ann.events[1]).stored == tuple(ann.events[1:])
    assert replica.orphans == 0


def test_orphans_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "ORPHANS_MAX", 3)
    replica, ann = Replica(NETID), long_feed(6)
    for event in ann.events[2:]:
        take(replica, event)
    assert replica.orphans == 3
    assert take(replica, *ann.events[:2]).stored == tuple(ann.events[:2])  # 2 and 3 were dropped, 4 still waits
    assert take(replica, *ann.events[2:4]).stored == tuple(ann.events[2:])


def test_a_false_orphan_is_refused_when_its_turn_comes_and_does_not_stop_the_true_one() -> None:
    replica, ann = Replica(NETID), long_feed(2)
    forged = make_event(Scribe("eve").key, NETID, feed=ann.feed, seq=2, prev=ann.events[1].id, ts=0, data=OTHER)
    take(replica, forged, ann.events[2])
    plan = replica.plan(ann.events[:2])
    assert [error.cost for error in plan.refusals] == [0]  # not the doing of who brought its predecessor
    replica.apply(plan)
    replica.check_invariants()
    assert replica.heads[ann.feed].seq == 2
    assert replica.orphans == 0
    assert not replica.forks


def test_repeats_cost_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    replica, ann = Replica(NETID), long_feed()
    take(replica, *ann.events)
    monkeypatch.setattr(Event, "signed_by", lambda self, key: pytest.fail("a signature was checked"))
    assert take(replica, *ann.events, *ann.events).stored == ()


def test_two_events_at_one_place_prove_a_fork_and_stop_the_feed() -> None:
    replica, ann = Replica(NETID), long_feed(3)
    take(replica, *ann.events)
    other = ann.rewrite(2, OTHER)
    (fork,) = take(replica, other).forks
    assert (fork.feed, fork.seq, fork.kept, fork.other) == (ann.feed, 2, ann.events[2].id, other)
    plan = replica.plan([ann.write(REMARK)])
    assert not plan.stored
    assert "forked" in plan.refusals[0].what
    assert take(replica, other, ann.rewrite(1, OTHER)).forks == ()  # one proof is enough
    assert replica.forks[ann.feed] == fork


def test_a_fork_within_one_batch() -> None:
    replica, ann = Replica(NETID), long_feed(1)
    applied = take(replica, *ann.events, ann.rewrite(1, OTHER))
    assert applied.stored == tuple(ann.events)
    assert len(applied.forks) == 1


def test_anothers_signature_proves_no_fork() -> None:
    replica, ann = Replica(NETID), long_feed(1)
    take(replica, *ann.events)
    forged = make_event(Scribe("eve").key, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=OTHER)
    plan = replica.plan([forged])
    assert not plan.forks
    assert len(plan.refusals) == 1


def test_one_bad_event_does_not_spoil_the_batch() -> None:
    replica, ann, bob = Replica(NETID), long_feed(1), Scribe("bob")
    forged = make_event(bob.key, NETID, feed=ann.feed, seq=2, prev=ann.events[1].id, ts=0, data=OTHER)
    plan = replica.plan([forged, *ann.events, *bob.events])
    assert set(plan.stored) == {*ann.events, *bob.events}
    assert [error.cost for error in plan.refusals] == [100]


def test_feeds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "FEEDS_MAX", 2)
    replica = Replica(NETID)
    strangers = [Scribe(f"stranger {i}") for i in range(4)]
    plan = replica.plan(everything(*strangers))
    assert len(plan.stored) == 2
    assert len(plan.refusals) == 2
    replica.apply(plan)
    assert len(replica.plan(everything(*strangers)).refusals) == 2
    assert replica.plan([strangers[0].write(REMARK)]).stored or replica.plan([strangers[1].write(REMARK)]).stored


def test_own_disk_restores_the_same_state() -> None:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    live, again = Replica(NETID), Replica(NETID)
    take(live, *everything(owner, ann, bob))
    again.restore(everything(bob, ann, owner))
    again.check_invariants()
    assert again.fold.state_root() == live.fold.state_root()
    assert again.frontier_root() == live.frontier_root()
    assert again.heads == live.heads


def test_the_frontier_root_covers_uncertified_heads() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    empty = replica.frontier_root()
    take(replica, *ann.events)
    assert replica.frontier_root() != empty
    assert replica.fold.events == 0


def test_a_second_feed_of_a_witness_key_is_no_witness() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    genesis = make_genesis(wit.key, NETID, next_key_digest(blob_id(b"another next key")))
    second = Scribe("unused")
    second.key, second.feed, second.events = wit.key, genesis.id, [genesis]
    second.ack(ann.events[0])
    take(replica, *ann.events, *second.events)
    assert replica.certificate.certified(ann.feed) == -1
    take(replica, *wit.events, wit.ack(ann.events[0]))
    assert replica.certificate.certified(ann.feed) == 0


def test_operators_of_uncertified_vouches_are_known() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    ann.write(Vouch(wit.feed, ""))
    take(replica, *ann.events)
    assert replica.operators(SealedCommit(b"", ann.feed, 0, 0, b"")) == {ann.feed, wit.feed}


TOWN = [Scribe("owner"), Scribe("ann"), Scribe("bob")]
walk(TOWN[0], TOWN[1:])
walk(TOWN[1], (TOWN[0], TOWN[2]), job_id="back")
TOWN[2].rotate()
TOWN[2].write(REMARK)
ALL = everything(*TOWN)
WHOLE = Replica(NETID)
WHOLE.apply(WHOLE.plan(ALL))


@settings(max_examples=100)
@given(st.permutations(ALL), st.integers(1, len(ALL)))
def test_any_order_of_arrival_gives_the_same_replica(order: list[Event], size: int) -> None:
    replica = Replica(NETID)
    for start in range(0, len(order), size):
        take(replica, *order[start : start + size])
    assert replica.fold.state_root() == WHOLE.fold.state_root()
    assert replica.frontier_root() == WHOLE.frontier_root()
    assert replica.orphans == 0
