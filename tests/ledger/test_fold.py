"""What certified events add up to."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.fold import Fold, Standing, references, spend
from ledger.verdict import SealedCommit
from nexapod.events import Event
from nexapod.hashing import blob_id
from nexapod.messages import (
    Burn,
    Close,
    Commit,
    Independence,
    Lock,
    Pay,
    Release,
    Report,
    Seal,
    SealEntry,
    Steward,
    Verdict,
    Void,
    Voided,
    Vouch,
)
from tests.ledger.scribe import (
    CLASS,
    JOB_SEED,
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


def folded(*scribes: Scribe) -> Fold:
    fold = Fold(NETID)
    fold.add(everything(*scribes))
    fold.check_invariants()
    return fold


def trio_of() -> tuple[Scribe, Scribe, Scribe]:
    return Scribe("owner"), Scribe("ann"), Scribe("bob")


# --- own colour ------------------------------------------------------------------------------------------------------
def test_verified_work_mints_the_owners_colour() -> None:
    owner, ann, bob = trio_of()
    walk(owner, (ann, bob))
    fold = folded(owner, ann, bob)
    assert fold.net == {(ann.feed, owner.feed): PRICE, (bob.feed, owner.feed): PRICE}
    assert fold.minted == {owner.feed: 2 * PRICE}
    assert fold.earned == {(ann.feed, owner.feed): PRICE, (bob.feed, owner.feed): PRICE}
    assert fold.reputation == {
        (ann.feed, owner.feed, CLASS): Standing(1, 0, 0),
        (bob.feed, owner.feed, CLASS): Standing(1, 0, 0),
    }
    assert not fold.faults
    assert not fold.overissue()


def test_nothing_exists_before_work_was_verified() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of())
    seal(owner, offer, [commit(ann, offer, RIGHT), commit(bob, offer, WRONG)])
    assert not any(folded(owner, ann, bob).net.values())


def test_wrong_results_are_remembered_by_class() -> None:
    owner, ann, bob = trio_of()
    eve, mal, far = Scribe("eve"), Scribe("mal"), Scribe("far")
    offer = owner.write(offer_of(executions_max=5))
    results = [
        commit(ann, offer, RIGHT),
        commit(bob, offer, RIGHT),
        commit(eve, offer, WRONG),
        commit(far, offer, blob_id(b"far"), cls="arm64"),
    ]
    seal(owner, offer, results)
    settle(owner, offer, settlement(results, RIGHT))
    fold = folded(owner, ann, bob, eve, mal, far)
    assert fold.reputation[eve.feed, owner.feed, CLASS] == Standing(0, 1, 0)
    assert (far.feed, owner.feed, "arm64") not in fold.reputation  # inconclusive: no one of its class was right


def test_the_same_wrong_value_twice_is_shared() -> None:
    owner, ann, bob = trio_of()
    cal, eve, mal = Scribe("cal"), Scribe("eve"), Scribe("mal")
    offer = owner.write(offer_of(executions_max=5, quorum=3, replicas=3))
    results = [commit(worker, offer, RIGHT) for worker in (ann, bob, cal)]
    results += [commit(worker, offer, WRONG) for worker in (eve, mal)]
    seal(owner, offer, results)
    settle(owner, offer, settlement(results, RIGHT))
    fold = folded(owner, ann, bob, cal, eve, mal)
    assert fold.reputation[eve.feed, owner.feed, CLASS] == Standing(0, 0, 1)
    assert fold.reputation[mal.feed, owner.feed, CLASS] == Standing(0, 0, 1)


# --- who may judge, and how often -------------------------------------------------------------------------------------
def faults_of(*scribes: Scribe) -> list[str]:
    return [why for reasons in folded(*scribes).faults.values() for why in reasons]


def test_only_the_owner_judges() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of())
    results = [commit(ann, offer, RIGHT), commit(bob, offer, RIGHT)]
    seal(ann, offer, results)
    settle(ann, offer, settlement(results, RIGHT))
    ann.write(Void(offer.id, (Voided(0, Verdict.CANCELLED, "", ()),)))
    ann.write(Close(offer.id, JOB_SEED))
    assert faults_of(owner, ann, bob) == ["this feed does not judge the offer"] * 4


def test_a_steward_judges_alone_once_it_accepted() -> None:
    owner, ann, bob = trio_of()
    steward = Scribe("steward")
    offer = owner.write(offer_of(steward=steward.feed))
    results = [commit(ann, offer, RIGHT), commit(bob, offer, RIGHT)]
    seal(steward, offer, results)
    steward.write(Steward(offer.id))
    seal(steward, offer, results)
    seal(owner, offer, results)
    settle(steward, offer, settlement(results, RIGHT))
    ann.write(Steward(offer.id))
    fold = folded(owner, ann, bob, steward)
    assert fold.net[ann.feed, owner.feed] == PRICE
    assert sorted(why for reasons in fold.faults.values() for why in reasons) == [
        "the offer names another steward",
        "this feed does not judge the offer",
        "this feed does not judge the offer",
    ]


def test_seals_are_bounded_and_final() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of(executions_max=2))
    first = commit(ann, offer, RIGHT)
    second = commit(bob, offer, RIGHT)
    third = commit(Scribe("cal"), offer, RIGHT, round_=1)
    seal(owner, offer, [first])
    seal(owner, offer, [second])  # round 0 again
    owner.write(Seal(offer.id, (SealEntry(0, 1, (first.commit.id,)),)))  # the same commit again
    owner.write(Seal(offer.id, (SealEntry(0, 1, (second.commit.id, second.commit.id)),)))
    owner.write(Seal(offer.id, (SealEntry(0, 1, (second.commit.id, third.commit.id)),)))
    owner.write(Seal(offer.id, (SealEntry(7, 0, (second.commit.id,)),)))
    assert faults_of(owner) == [
        "task 0: round 0 is sealed already",
        "task 0: a commit is sealed twice",
        "task 0: a commit is sealed twice",
        "task 0: more executions than the offer allows",
        "task 7: the offer has no such task",
    ]


def test_a_task_ends_once() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of())
    results = [commit(ann, offer, RIGHT), commit(bob, offer, RIGHT)]
    seal(owner, offer, results)
    settle(owner, offer, settlement(results, RIGHT))
    settle(owner, offer, settlement(results, RIGHT))
    owner.write(Void(offer.id, (Voided(0, Verdict.CANCELLED, "", ()),)))
    seal(owner, offer, [commit(Scribe("cal"), offer, RIGHT, round_=1)])
    assert faults_of(owner, ann, bob) == [
        "task 0: it has ended already",
        "task 0: it has ended already",
        "task 0: sealed after its end",
    ]
    assert folded(owner, ann, bob).net[ann.feed, owner.feed] == PRICE


def test_after_the_close_nothing_counts() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of())
    results = [commit(ann, offer, RIGHT), commit(bob, offer, RIGHT)]
    seal(owner, offer, results)
    owner.write(Close(offer.id, JOB_SEED))
    settle(owner, offer, settlement(results, RIGHT))
    owner.write(Close(offer.id, JOB_SEED))
    assert faults_of(owner, ann, bob) == ["the offer is closed"] * 2


def test_a_false_seed_is_shown_and_closes_all_the_same() -> None:
    owner = Scribe("owner")
    offer = owner.write(offer_of())
    owner.write(Close(offer.id, bytes(32)))
    fold = folded(owner)
    assert fold.faults[owner.events[-1].id] == ("the seed is not the one committed to",)
    assert not fold.offers[offer.id].open


def test_a_commit_with_two_digests_for_one_execution_is_not_sealed() -> None:
    owner, ann, bob = trio_of()
    offer = owner.write(offer_of())
    honest = commit(bob, offer, RIGHT)
    one, two = commit(Scribe("ann"), offer, RIGHT), commit(Scribe("ann"), offer, WRONG)
    assert isinstance(one.commit.data, Commit)
    assert isinstance(two.commit.data, Commit)
    both = ann.write(Commit(offer.id, bytes(32), one.commit.data.entries + two.commit.data.entries))
    result = one._replace(commit=both)
    seal(owner, offer, [honest, result])
    settle(owner, offer, settlement([honest, result], RIGHT))
    assert faults_of(owner, ann, bob) == ["task 0: an opening has no commit sealed for this task"]


def test_an_offer_that_contradicts_itself_is_closed_from_the_start() -> None:
    owner = Scribe("owner")
    offer = owner.write(offer_of(quorum=3, executions_max=2))
    fold = folded(owner)
    assert not fold.offers[offer.id].open
    assert fold.faults


# --- credits that exist -----------------------------------------------------------------------------------------------
def rich(ann: Scribe, bob: Scribe, mint: Scribe) -> bytes:
    """Ann and bob each hold PRICE of the mint's colour."""
    walk(mint, (ann, bob))
    return mint.feed


def test_pay_and_burn_move_and_destroy() -> None:
    mint, ann, bob = trio_of()
    colour = rich(ann, bob, mint)
    ann.write(Pay(bob.feed, colour, 300))
    bob.write(Burn(colour, 100))
    fold = folded(mint, ann, bob)
    assert fold.net[ann.feed, colour] == PRICE - 300
    assert fold.net[bob.feed, colour] == PRICE + 200
    assert fold.burned == {colour: 100}


def test_an_overdraft_is_visible() -> None:
    mint, ann, bob = trio_of()
    colour = rich(ann, bob, mint)
    ann.write(Pay(bob.feed, colour, PRICE + 5))
    assert folded(mint, ann, bob).overissue() == {(ann.feed, colour): 5}


def test_an_offer_in_a_foreign_colour_pays_from_its_lock_and_returns_the_rest() -> None:
    mint, ann, bob = trio_of()
    colour = rich(ann, bob, mint)
    cal, dan = Scribe("cal"), Scribe("dan")
    price = PRICE // 4
    offer = ann.write(offer_of(colour=colour, price=price, job_id="second"))
    fold = folded(mint, ann, bob)
    assert fold.net[ann.feed, colour] == 0
    assert fold.locked().get(colour, 0) == PRICE
    results = [commit(cal, offer, RIGHT), commit(dan, offer, RIGHT)]
    seal(ann, offer, results)
    settle(ann, offer, settlement(results, RIGHT, price))
    ann.write(Close(offer.id, JOB_SEED))
    fold = folded(mint, ann, bob, cal, dan)
    assert fold.net[cal.feed, colour] == price
    assert fold.net[ann.feed, colour] == PRICE - 2 * price
    assert fold.locked().get(colour, 0) == 0
    assert fold.minted == {colour: 2 * PRICE}
    assert fold.earned[cal.feed, ann.feed] == price


def test_a_sponsors_lock_is_shared_among_those_who_agreed() -> None:
    mint, ann, bob = trio_of()
    colour = rich(ann, bob, mint)
    cal, dan, eve = Scribe("cal"), Scribe("dan"), Scribe("eve")
    owner = Scribe("another owner")
    offer = owner.write(offer_of())
    lock = ann.write(Lock(offer.id, colour, 101))
    results = [commit(cal, offer, RIGHT), commit(dan, offer, RIGHT), commit(eve, offer, WRONG)]
    seal(owner, offer, results)
    event = settle(owner, offer, settlement(results, RIGHT))
    ann.write(Release(lock.id, event.id))
    ann.write(Release(lock.id, None))
    bob.write(Release(lock.id, None))
    fold = folded(mint, ann, bob, owner, cal, dan, eve)
    assert fold.net[cal.feed, colour] == fold.net[dan.feed, colour] == 50
    assert fold.net[eve.feed, colour] == 0
    assert fold.net[ann.feed, colour] == PRICE - 100
    assert sorted(why for reasons in fold.faults.values() for why in reasons) == ["this feed has no such lock"] * 2


def test_a_lock_taken_back_or_released_against_another_job() -> None:
    mint, ann, bob = trio_of()
    colour = rich(ann, bob, mint)
    lock = ann.write(Lock(bytes(32), colour, 100))
    ann.write(Release(lock.id, next(e.id for e in mint.events if e.kind == 14)))
    assert folded(mint, ann, bob).locked().get(colour, 0) == 100
    ann.write(Release(lock.id, None))
    fold = folded(mint, ann, bob)
    assert fold.locked().get(colour, 0) == 0
    assert fold.net[ann.feed, colour] == PRICE
    assert [why for reasons in fold.faults.values() for why in reasons] == [
        "the settle does not concern the locked offer"
    ]


# --- operators --------------------------------------------------------------------------------------------------------
def vouched_walk(vouch: Callable[[Scribe, Scribe, Scribe], None], after: bool) -> Fold:
    owner, ann, bob = trio_of()
    if not after:
        vouch(owner, ann, bob)
    walk(owner, (ann, bob), independence=Independence.OPERATOR)
    if after:
        vouch(owner, ann, bob)
    return folded(owner, ann, bob)


VOUCHES: dict[str, Callable[[Scribe, Scribe, Scribe], object]] = {
    "one worker for the other": lambda owner, ann, bob: ann.write(Vouch(bob.feed, "mine")),
    "both for a third": lambda owner, ann, bob: [w.write(Vouch(bytes(32), "")) for w in (ann, bob)],
    "the owner for a worker": lambda owner, ann, bob: owner.write(Vouch(ann.feed, "")),
    "a worker for the owner": lambda owner, ann, bob: ann.write(Vouch(owner.feed, "")),
}


@pytest.mark.parametrize("name", VOUCHES)
def test_declared_operators_are_one_execution(name: str) -> None:
    def vouch(owner: Scribe, ann: Scribe, bob: Scribe) -> None:
        VOUCHES[name](owner, ann, bob)

    before, later = vouched_walk(vouch, after=False), vouched_walk(vouch, after=True)
    assert [why for reasons in before.faults.values() for why in reasons] == [
        "task 0: no quorum of independent executions agrees"
    ]
    assert not later.faults  # what is said later changes no verdict


def test_operators_known_now() -> None:
    ann = Scribe("ann")
    for i in range(70):
        ann.write(Vouch(bytes((i,)) * 32, ""))
    fold = folded(ann)
    assert len(fold.operators(SealedCommit(b"", ann.feed, 0, 0, b""))) == 65  # 64 wards and itself


# --- waiting ----------------------------------------------------------------------------------------------------------
def test_a_settle_waits_for_the_commits_it_names() -> None:
    owner, ann, bob = trio_of()
    event = walk(owner, (ann, bob))
    fold = Fold(NETID)
    done = fold.add([*owner.events, *ann.events])
    assert event not in done
    assert fold.parked_feeds() == [owner.feed]
    assert fold.parked(owner.feed)[0] == event
    fold.check_invariants()
    done = fold.add(bob.events)
    assert done.index(event) > done.index(bob.events[-1])
    assert fold.parked_feeds() == []
    assert fold.state_root() == folded(owner, ann, bob).state_root()


def test_repeats_change_nothing_and_a_gap_is_a_defect() -> None:
    owner, ann, bob = trio_of()
    walk(owner, (ann, bob))
    fold = folded(owner, ann, bob)
    root = fold.state_root()
    assert fold.add(everything(owner, ann, bob)) == []
    assert fold.state_root() == root
    with pytest.raises(AssertionError):
        Fold(NETID).add([owner.events[1]])


def test_references_and_spends() -> None:
    ann = Scribe("ann")
    pay = ann.write(Pay(bytes(32), b"c" * 32, 5))
    assert spend(pay) == (b"c" * 32, 5)
    assert spend(ann.write(offer_of())) is None
    assert spend(ann.write(offer_of(colour=ann.feed))) is None
    assert spend(ann.write(offer_of(colour=b"c" * 32))) == (b"c" * 32, 4 * PRICE)
    assert references(ann.write(Steward(b"o" * 32)).data) == (b"o" * 32,)
    assert references(pay.data) == ()
    assert references(None) == ()


def test_a_steward_that_judges_before_it_accepts_leaves_no_trace_of_arrival() -> None:
    owner, steward = Scribe("owner"), Scribe("steward")
    offer = owner.write(offer_of(steward=steward.feed))
    steward.write(Close(offer.id, JOB_SEED))
    early, late = folded(owner, steward), folded(steward, owner)
    assert early.faults == late.faults
    assert early.state_root() == late.state_root()


# --- the same for any order -------------------------------------------------------------------------------------------
def village() -> list[Scribe]:
    """Several feeds that concern each other in every way the fold knows, valid and not."""
    mint, ann, bob, cal = Scribe("mint"), Scribe("ann"), Scribe("bob"), Scribe("cal")
    steward = Scribe("steward")
    walk(mint, (ann, bob), independence=Independence.OPERATOR)
    ann.write(Vouch(cal.feed, "my second machine"))
    colour = mint.feed
    offer = ann.write(offer_of(colour=colour, price=PRICE // 4, job_id="two", independence=Independence.OPERATOR))
    lock = cal.write(Lock(offer.id, colour, 7))
    results = [commit(worker, offer, RIGHT) for worker in (bob, cal)]
    seal(ann, offer, results)
    settle(ann, offer, settlement(results, RIGHT, 5))  # invalid: cal answers to ann
    results.append(commit(mint, offer, RIGHT, round_=1))
    seal(ann, offer, results[2:])
    paid = [results[0], results[2]]
    event = settle(ann, offer, settlement(paid, RIGHT, 5))
    cal.write(Release(lock.id, event.id))
    by_steward = bob.write(offer_of(steward=steward.feed, job_id="three", tasks=2))
    steward.write(Steward(by_steward.id))
    more = [commit(worker, by_steward, root) for worker, root in ((ann, RIGHT), (mint, RIGHT), (cal, WRONG))]
    seal(steward, by_steward, more)
    settle(steward, by_steward, settlement(more, RIGHT))
    steward.write(Void(by_steward.id, (Voided(1, Verdict.UNSERVED, "nobody came", ()),)))
    bob.write(Pay(cal.feed, colour, 11))
    cal.write(Burn(colour, 3))
    cal.write(Pay(ann.feed, colour, 10**9))  # an overdraft
    mint.write(Report(ann.feed, 1, "friendly"))
    mint.write(Vouch(ann.feed, "too late to matter"))
    steward.write(Close(by_steward.id, bytes(32)))
    return [mint, ann, bob, cal, steward]


VILLAGE = village()
WHOLE = folded(*VILLAGE)


def test_the_village_has_some_of_everything() -> None:
    kinds = {event.kind for event in everything(*VILLAGE)}
    assert {0, 2, 10, 11, 12, 13, 14, 15, 16, 30, 31, 32, 33, 50} <= kinds
    assert WHOLE.faults
    assert WHOLE.overissue()
    assert WHOLE.parked_feeds() == []
    assert len(WHOLE.offers) == 3


@st.composite
def interleavings(draw: st.DrawFn) -> list[list[Event]]:
    """All events of the village: feeds interleaved in any way, some delivered again, in batches of any size."""
    remaining = [list(scribe.events) for scribe in VILLAGE]
    order: list[Event] = []
    while any(remaining):
        feed = draw(st.sampled_from([events for events in remaining if events]))
        order += [feed.pop(0) for _ in range(min(len(feed), draw(st.integers(1, 6))))]
        if draw(st.booleans()):
            order.append(draw(st.sampled_from(order)))
    size = draw(st.integers(1, len(order)))
    return [order[start : start + size] for start in range(0, len(order), size)]


@settings(max_examples=150)
@given(interleavings())
def test_any_order_batching_and_repetition_gives_the_same_root(batches: list[list[Event]]) -> None:
    fold = Fold(NETID)
    done: list[Event] = []
    for batch in batches:
        done += fold.add(batch)
        fold.check_invariants()
    assert fold.state_root() == WHOLE.state_root()
    assert fold.frontier_root() == WHOLE.frontier_root()
    assert sorted(event.id for event in done) == sorted(event.id for event in everything(*VILLAGE))
    place = {event.id: i for i, event in enumerate(done)}
    assert all(place[cause] < place[event.id] for event in done for cause in references(event.data) if cause in place)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 100), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_any_certified_prefix_gives_one_root(cuts: list[int], random: object) -> None:
    prefixes = [scribe.events[: 1 + cut * len(scribe.events) // 100] for scribe, cut in zip(VILLAGE, cuts, strict=True)]
    roots = set()
    for _ in range(2):
        queues = [list(events) for events in prefixes]
        fold = Fold(NETID)
        while any(queues):
            queue = random.choice([q for q in queues if q])  # type: ignore[attr-defined]
            fold.add([queue.pop(0)])
        fold.check_invariants()
        roots.add((fold.state_root(), fold.frontier_root()))
    assert len(roots) == 1


def test_no_timestamp_leaves_a_trace() -> None:
    def two(ts: int) -> Fold:
        ann, bob = Scribe("ann"), Scribe("bob")
        ann.write(Pay(bob.feed, ann.feed, 5), ts=ts)
        return folded(ann, bob)

    early, late = two(0), two(2**62)
    assert early.net == late.net
    assert early.faults == late.faults
