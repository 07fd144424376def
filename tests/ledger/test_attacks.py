"""The attacks on a ledger that docs/protocol names, each with a test that says what becomes of it."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ledger import replica as replica_module
from ledger.fold import Fold
from ledger.replica import Applied, Replica
from ledger.witness import due
from nexapod.events import Event, make_event, make_genesis, open_event
from nexapod.hashing import blob_id
from nexapod.identity import next_key_digest
from nexapod.limits import ORPHANS_MAX
from nexapod.messages import (
    Ack,
    Commit,
    Opening,
    Pay,
    Report,
    Seal,
    SealEntry,
    Settle,
    Settlement,
)
from tests.ledger.scribe import (
    CLASS,
    NETID,
    PRICE,
    Scribe,
    commit,
    everything,
    offer_of,
    seal,
    settle,
    settlement,
    walk,
)

RIGHT, WRONG = blob_id(b"right"), blob_id(b"wrong")
REMARK = Report(bytes(32), 0, "")
OTHER = Report(bytes(32), 1, "")
ELSEWHERE = blob_id(b"another network")


def take(replica: Replica, *events: Event) -> Applied:
    applied = replica.apply(replica.plan(events))
    replica.check_invariants()
    return applied


def holding(*scribes: Scribe) -> Replica:
    replica = Replica(NETID)
    take(replica, *everything(*scribes))
    return replica


# --- printing credit -------------------------------------------------------------------------------------------------
class Press:
    """A dishonest owner with an offer, and two workers it would like to pay."""

    def __init__(self) -> None:
        self.owner, self.ann, self.bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
        self.offer = self.owner.write(offer_of(lock=2 * PRICE))

    def agree(self, *workers: Scribe) -> Settlement:
        """The workers commit to the same result and the owner seals it."""
        results = [commit(worker, self.offer, RIGHT) for worker in workers]
        seal(self.owner, self.offer, results)
        return settlement(results, RIGHT)

    def print(self, *settlements: Settlement) -> None:
        settle(self.owner, self.offer, *settlements)


def without_a_quorum(press: Press) -> None:
    press.print(press.agree(press.ann))


def without_any_execution(press: Press) -> None:
    opening = Opening(bytes(32), bytes(16), CLASS, 1, None, PRICE)
    press.print(Settlement(0, RIGHT, (opening,)))


def with_commits_never_sealed(press: Press) -> None:
    press.print(settlement([commit(worker, press.offer, RIGHT) for worker in (press.ann, press.bob)], RIGHT))


def with_commits_sealed_afterwards(press: Press) -> None:
    results = [commit(worker, press.offer, RIGHT) for worker in (press.ann, press.bob)]
    press.print(settlement(results, RIGHT))
    seal(press.owner, press.offer, results)


def with_commits_of_another_offer(press: Press) -> None:
    other = press.owner.write(offer_of(job_id="other"))
    results = [commit(worker, other, RIGHT) for worker in (press.ann, press.bob)]
    seal(press.owner, press.offer, results)
    press.print(settlement(results, RIGHT))


def by_a_feed_that_does_not_judge(press: Press) -> None:
    settle(press.ann, press.offer, press.agree(press.ann, press.bob))


def to_itself(press: Press) -> None:
    press.print(press.agree(press.ann, press.owner))


def above_the_price(press: Press) -> None:
    entry = press.agree(press.ann, press.bob)
    press.print(replace(entry, openings=tuple(replace(o, amount=PRICE + 1) for o in entry.openings)))


def beyond_the_lock(press: Press) -> None:
    entry = press.agree(press.ann, press.bob, Scribe("cal"))
    press.print(entry)  # three times the price, and the lock is twice


def for_a_wrong_result(press: Press) -> None:
    results = [commit(press.ann, press.offer, RIGHT), commit(press.bob, press.offer, WRONG)]
    seal(press.owner, press.offer, results)
    entry = settlement(results, RIGHT)
    press.print(replace(entry, openings=tuple(replace(o, root=None, amount=PRICE) for o in entry.openings)))


PRESSES = [
    without_a_quorum,
    without_any_execution,
    with_commits_never_sealed,
    with_commits_sealed_afterwards,
    with_commits_of_another_offer,
    by_a_feed_that_does_not_judge,
    to_itself,
    above_the_price,
    beyond_the_lock,
    for_a_wrong_result,
]


@pytest.mark.parametrize("attempt", PRESSES, ids=lambda attempt: attempt.__name__)
def test_printing_credit(attempt: Callable[[Press], None]) -> None:
    press = Press()
    attempt(press)
    fold = Fold(NETID)
    fold.add(everything(press.owner, press.ann, press.bob, Scribe("cal")))
    fold.check_invariants()
    assert not any(fold.minted.values())
    assert not any(fold.net.values())
    assert not any(fold.earned.values())


def test_printing_credit_by_settling_twice() -> None:
    press = Press()
    entry = press.agree(press.ann, press.bob)
    press.print(entry)
    press.print(entry)
    press.print(entry, entry)
    fold = holding(press.owner, press.ann, press.bob).fold
    assert fold.minted == {press.owner.feed: 2 * PRICE}
    assert len([why for reasons in fold.faults.values() for why in reasons]) == 3


def test_sybil_inflation_prints_only_the_sybils_own_colour() -> None:
    honest, ann, bob = Scribe("honest"), Scribe("ann"), Scribe("bob")
    walk(honest, (ann, bob))
    before = holding(honest, ann, bob).fold
    sybils = [Scribe(f"sybil {i}") for i in range(12)]
    for sybil in sybils:
        walk(sybil, sybils[:3] if sybil not in sybils[:3] else sybils[3:6])
    fold = holding(honest, ann, bob, *sybils).fold
    assert len(fold.minted) == 13
    assert fold.minted[honest.feed] == before.minted[honest.feed]
    assert not any(fold.net.get((sybil.feed, honest.feed)) for sybil in sybils)
    assert not any(fold.earned.get((sybil.feed, honest.feed)) for sybil in sybils)


# --- replay ----------------------------------------------------------------------------------------------------------
def test_replay_across_networks() -> None:
    there, here = Scribe("ann", ELSEWHERE), Scribe("ann")
    there.write(REMARK)
    here.write(REMARK)
    replica = Replica(NETID)
    replayed = [open_event(event.raw, NETID) for event in there.events]
    applied = take(replica, *replayed)
    assert applied.stored == ()
    take(replica, *here.events)
    take(replica, *replayed)
    assert replica.heads[here.feed].id == here.events[-1].id
    assert not replica.forks
    assert replica.events == 2


def test_a_commit_of_another_network_does_not_open_here() -> None:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    offer = owner.write(offer_of())
    ann.netid = ELSEWHERE
    foreign = commit(ann, offer, RIGHT)
    ann.netid = NETID
    ann.events.pop()
    event = ann.write(foreign.commit.data)  # type: ignore[arg-type]
    results = [foreign._replace(commit=event), commit(bob, offer, RIGHT)]
    seal(owner, offer, results)
    settle(owner, offer, settlement(results, RIGHT))
    fold = holding(owner, ann, bob).fold
    assert not fold.minted
    assert "does not open" in str(fold.faults)


# --- forks and keys --------------------------------------------------------------------------------------------------
def test_equivocation_is_a_proof_that_stands_alone() -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    one, two = ann.write(REMARK), ann.rewrite(2, OTHER)
    replica = holding(ann)
    (fork,) = take(replica, two).forks
    assert (fork.kept, fork.other) == (one.id, two)
    stranger = Replica(NETID)  # has never heard of ann: her first events and the two envelopes are enough
    take(stranger, *(open_event(raw, NETID) for raw in (ann.events[0].raw, ann.events[1].raw, one.raw, two.raw)))
    assert stranger.forks.keys() == {ann.feed}
    assert take(stranger, ann.write(REMARK)).stored == ()


def test_nobody_can_be_framed_with_a_fork() -> None:
    ann, eve = Scribe("ann"), Scribe("eve")
    ann.write(REMARK)
    replica = holding(ann)
    for data in (OTHER, REMARK):
        forged = make_event(eve.key, NETID, feed=ann.feed, seq=1, prev=ann.feed, ts=1, data=data)
        assert take(replica, forged).forks == ()
    stretched = ann.events[1]._replace(signature=bytes(64), id=blob_id(b""))
    assert take(replica, stretched).forks == ()
    assert take(replica, ann.write(REMARK)).stored


def test_who_brings_anothers_forgery_in_good_faith_pays_nothing() -> None:
    """A forgery that waited here, or that only a victim of a fork takes for the truth, is not its bringer's fault."""
    ann, eve = Scribe("ann"), Scribe("eve")
    ann.write(REMARK)
    replica = Replica(NETID)
    take(replica, make_event(eve.key, NETID, feed=ann.feed, seq=2, prev=ann.events[1].id, ts=0, data=OTHER))
    plan = replica.plan(ann.events)
    assert plan.stored == tuple(ann.events)
    assert [error.cost for error in plan.refusals] == [0]
    replica.apply(plan)
    other = Scribe("ann")
    other.write(OTHER)
    beyond = other.write(REMARK)  # follows what this node does not have
    assert [error.cost for error in replica.plan([beyond]).refusals] == [0]
    false = make_event(eve.key, NETID, feed=ann.feed, seq=2, prev=other.feed, ts=0, data=OTHER)
    assert [error.cost for error in replica.plan([false]).refusals] == [10]


def test_rewriting_history_with_an_old_key() -> None:
    ann = Scribe("ann")
    stolen = ann.key
    ann.write(Pay(bytes(32), ann.feed, 5))
    ann.rotate()
    ann.write(REMARK)
    replica = holding(ann)
    head, state = replica.heads[ann.feed], replica.fold.state_root()
    for seq, prev in ((1, ann.feed), (2, ann.events[1].id), (3, ann.events[2].id), (4, ann.events[3].id)):
        forged = make_event(stolen, NETID, feed=ann.feed, seq=seq, prev=prev, ts=0, data=OTHER)
        assert take(replica, forged).stored == ()
    assert not replica.forks  # the thief can neither rewrite nor kill the feed
    assert (replica.heads[ann.feed], replica.fold.state_root()) == (head, state)
    assert take(replica, ann.write(REMARK)).stored


def test_an_old_key_of_a_witness_certifies_nothing() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    stolen = wit.key
    wit.rotate()
    genesis = make_genesis(stolen, NETID, next_key_digest(b"k" * 32))
    thief = Scribe("thief")
    thief.key, thief.feed, thief.events = stolen, genesis.id, [genesis]
    thief.ack(ann.events[0])
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    take(replica, *everything(wit, ann, thief))
    assert replica.certificate.certified(ann.feed) == -1
    take(replica, wit.ack(ann.events[0]))
    assert replica.certificate.certified(ann.feed) == 0


def test_a_witness_that_acknowledges_both_sides_certifies_neither_alone() -> None:
    witnesses, ann = [Scribe(f"wit {i}") for i in range(3)], Scribe("ann")
    one, two = ann.write(REMARK), ann.rewrite(1, OTHER)
    liar, honest = witnesses[0], witnesses[1]
    liar.ack(one)
    liar.ack(two)
    feeds = frozenset(scribe.feed for scribe in witnesses)
    for side in (one, two):
        replica = Replica(NETID, feeds, 2)
        take(replica, *everything(*witnesses), ann.events[0], side)
        assert replica.certificate.certified(ann.feed) == -1
    honest.ack(one)
    replica = Replica(NETID, feeds, 2)
    take(replica, *everything(*witnesses), *ann.events, two)
    assert replica.certificate.certified(ann.feed) == 1
    assert replica.fold.certified[ann.feed] == (1, one.id)


def test_retroactive_self_fork_undoes_no_payment() -> None:
    wit, mint, ann, bob, shop = (Scribe(name) for name in ("wit", "mint", "ann", "bob", "shop"))
    walk(mint, (ann, bob))
    paid = ann.write(Pay(shop.feed, mint.feed, PRICE))
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    take(replica, *everything(wit, mint, ann, bob, shop))
    while entries := due(replica, wit.feed):
        take(replica, wit.write(Ack(entries)))
    state = replica.fold.state_root()
    assert replica.fold.net[shop.feed, mint.feed] == PRICE
    for seq in (paid.seq, 1):
        take(replica, ann.rewrite(seq, REMARK))
    assert replica.forks.keys() == {ann.feed}
    assert replica.fold.state_root() == state


# --- copying and omission --------------------------------------------------------------------------------------------
def test_a_copied_commit_does_not_open_for_the_copier() -> None:
    owner, ann, bob, eve = Scribe("owner"), Scribe("ann"), Scribe("bob"), Scribe("eve")
    offer = owner.write(offer_of())
    honest = commit(ann, offer, RIGHT)
    assert isinstance(honest.commit.data, Commit)
    copied = eve.write(Commit(offer.id, bytes(32), honest.commit.data.entries))
    copy = honest._replace(worker=eve, commit=copied)
    seal(owner, offer, [honest, copy])
    settle(owner, offer, settlement([honest, copy], RIGHT))
    assert not holding(owner, ann, bob, eve).fold.minted


def test_a_commit_copied_within_a_seal_does_not_count_twice() -> None:
    owner, ann = Scribe("owner"), Scribe("ann")
    offer = owner.write(offer_of())
    result = commit(ann, offer, RIGHT)
    owner.write(Seal(offer.id, (SealEntry(0, 0, (result.commit.id,)), SealEntry(0, 1, (result.commit.id,)))))
    settle(owner, offer, settlement([result], RIGHT))
    assert not holding(owner, ann).fold.minted


def test_an_omitted_commit_is_not_paid_and_stays_visible() -> None:
    owner, ann, bob, cal = Scribe("owner"), Scribe("ann"), Scribe("bob"), Scribe("cal")
    offer = owner.write(offer_of())
    results = [commit(worker, offer, RIGHT) for worker in (ann, bob, cal)]
    seal(owner, offer, results[:2])
    settle(owner, offer, settlement(results, RIGHT))  # names what it did not seal
    settle(owner, offer, settlement(results[:2], RIGHT))
    replica = holding(owner, ann, bob, cal)
    assert replica.fold.net[cal.feed, owner.feed] == 0
    assert replica.fold.minted == {owner.feed: 2 * PRICE}
    assert replica.where[results[2].commit.id] == (cal.feed, 1)


# --- clocks ----------------------------------------------------------------------------------------------------------
def test_no_clock_decides_anything() -> None:
    def told(*clock: int) -> Fold:
        owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
        offer = owner.write(offer_of(), ts=clock[0])
        results = [commit(worker, offer, RIGHT) for worker in (ann, bob)]
        seal(owner, offer, results)
        owner.write(Settle(offer.id, (settlement(results, RIGHT),)), ts=clock[1])
        ann.write(Pay(bob.feed, owner.feed, 5), ts=clock[2])
        return holding(owner, ann, bob).fold

    honest = told(1, 2, 3)
    for clock in ((0, 0, 0), (2**63 - 1, 0, 2**62), (2**63 - 1, 2**63 - 1, 2**63 - 1)):
        fold = told(*clock)
        assert (fold.net, fold.minted, fold.earned) == (honest.net, honest.minted, honest.earned)
        assert fold.reputation == honest.reputation


# --- standing still --------------------------------------------------------------------------------------------------
def stuck(name: str) -> Scribe:
    """A feed that settles with a commit that never comes."""
    eve = Scribe(name)
    offer = eve.write(offer_of())
    settle(eve, offer, Settlement(0, RIGHT, (Opening(blob_id(name.encode()), bytes(16), CLASS, 1, None, 0),)))
    return eve


def test_a_missing_dependency_parks_its_own_feed_only() -> None:
    eve, owner, ann, bob = stuck("eve"), Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    eve.write(Pay(ann.feed, eve.feed, 5))
    replica = holding(eve, owner, ann, bob)
    assert replica.fold.parked_feeds() == [eve.feed]
    assert [event.seq for event in replica.unfolded()] == [2, 3]
    assert replica.fold.net[ann.feed, owner.feed] == PRICE
    assert replica.fold.net[ann.feed, eve.feed] == 0


def test_who_names_only_what_is_firm_cannot_be_lured_into_a_standstill() -> None:
    eve, owner, ann, bob = stuck("eve"), Scribe("owner"), Scribe("ann"), Scribe("bob")
    offer = owner.write(offer_of())
    bait, *honest = (commit(worker, offer, RIGHT) for worker in (eve, ann, bob))
    replica = holding(eve, owner, ann, bob)
    assert [replica.firm(result.commit.id) for result in (bait, *honest)] == [False, True, True]
    seal(owner, offer, honest)
    settle(owner, offer, settlement(honest, RIGHT))
    take(replica, *owner.events)
    assert replica.fold.parked_feeds() == [eve.feed]
    assert replica.fold.net[ann.feed, owner.feed] == PRICE


def test_feeds_that_stand_still_take_bounded_room_and_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "UNFOLDED_BYTES_MAX", 50_000)
    replica = Replica(NETID)
    eves = [stuck(f"eve {i}") for i in range(5)]
    for eve in eves:
        for _ in range(300):
            eve.write(Report(eve.feed, 0, "x" * 200))
        plan = replica.plan(eve.events)
        assert all(error.cost == 0 for error in plan.refusals)
        replica.apply(plan)
    replica.check_invariants()
    assert sum(len(event.raw) for event in replica.unfolded()) <= 50_000
    assert replica.unwanted() <= {eve.feed for eve in eves}
    assert replica.unwanted()
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    for scribe in (ann, bob, owner):
        assert take(replica, *scribe.events).folded == tuple(scribe.events)


def test_the_own_feed_is_never_refused_for_want_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "UNFOLDED_BYTES_MAX", 1_000)
    monkeypatch.setattr(replica_module, "FEEDS_MAX", 0)
    wit, own = Scribe("wit"), Scribe("own")
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    for _ in range(100):
        own.write(REMARK)
    plan = replica.plan(own.events, bounded=False)
    assert plan.stored == tuple(own.events)
    assert replica.plan(own.events).stored == ()


def test_a_witness_is_not_held_up_by_a_feed_that_cannot_be_acknowledged() -> None:
    wit, eve, owner, ann, bob = Scribe("wit"), stuck("eve"), Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    replica = Replica(NETID, frozenset((wit.feed,)), 1)
    take(replica, *everything(wit, eve, owner, ann, bob))
    while entries := due(replica, wit.feed):
        take(replica, wit.write(Ack(entries)))
    assert replica.certificate.certified(eve.feed) == 1
    assert replica.certificate.certified(owner.feed) == owner.events[-1].seq
    assert replica.fold.parked_feeds() == []


# --- floods ------------------------------------------------------------------------------------------
def test_a_flood_of_orphans_is_bounded() -> None:
    replica, eve = Replica(NETID), Scribe("eve")
    place = {"feed": blob_id(b""), "seq": 7, "prev": bytes(32)}
    flood = [make_event(eve.key, NETID, ts=n, data=REMARK, **place) for n in range(ORPHANS_MAX + 100)]  # type: ignore[arg-type]
    replica.apply(replica.plan(flood))
    assert replica.orphans == ORPHANS_MAX
    assert replica.events == 0
    replica.check_invariants()
