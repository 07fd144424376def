"""The rules of a settlement, one by one."""

from dataclasses import dataclass
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.verdict import (
    Agreed,
    Case,
    SealedCommit,
    Undecided,
    alone,
    award,
    check_settlement,
    check_void,
    evidence,
    note_opens,
    tally,
)
from nexapod.events import Event
from nexapod.hashing import blob_id
from nexapod.messages import Commit, Independence, Mode, Offer, Settlement, Verdict, Voided
from tests.ledger.scribe import NETID, PRICE, Result, Scribe, commit, offer_of, settlement

RIGHT, WRONG, OTHER = blob_id(b"right"), blob_id(b"wrong"), blob_id(b"other")


@dataclass
class Scene:
    """An owner, an offer, and workers that found something."""

    owner: Scribe
    offer: Event
    results: list[Result]

    @property
    def sealed(self) -> dict[bytes, SealedCommit]:
        found = {}
        for result in self.results:
            assert isinstance(result.commit.data, Commit)
            entry = result.commit.data.entries[0]
            found[result.commit.id] = SealedCommit(
                result.commit.id, result.worker.feed, entry.task, entry.round, entry.digest
            )
        return found

    def case(self, **changes: object) -> Case:
        assert isinstance(self.offer.data, Offer)
        case = Case(NETID, self.offer.id, self.offer.data, self.owner.feed, alone)
        return case._replace(**changes)

    def fault(self, entry: Settlement, left: int = 4 * PRICE, **changes: object) -> str | None:
        return check_settlement(self.case(**changes), self.sealed, entry, left)

    def opened(self) -> dict[bytes, tuple[SealedCommit, bytes]]:
        return {result.commit.id: (self.sealed[result.commit.id], result.root) for result in self.results}


def scene(*roots: bytes, own: bytes | None = None, **changes: object) -> Scene:
    owner = Scribe("owner")
    offer = owner.write(offer_of(**changes))
    results = [commit(Scribe(f"worker {i}"), offer, root) for i, root in enumerate(roots)]
    if own is not None:
        results.append(commit(owner, offer, own))
    return Scene(owner, offer, results)


# --- who agrees ------------------------------------------------------------------------------------------------------
def test_two_equal_roots_are_a_quorum_of_two() -> None:
    s = scene(RIGHT, WRONG, RIGHT)
    verdict = tally(s.case(), s.opened())
    assert isinstance(verdict, Agreed)
    assert verdict.root == RIGHT
    assert [c.id for c in verdict.commits] == sorted(r.commit.id for r in s.results if r.root == RIGHT)


def test_disagreement_is_undecided_and_grouped() -> None:
    s = scene(RIGHT, WRONG)
    verdict = tally(s.case(), s.opened())
    assert isinstance(verdict, Undecided)
    assert set(verdict.groups) == {RIGHT, WRONG}


def test_two_quorums_decide_nothing() -> None:
    s = scene(RIGHT, RIGHT, WRONG, WRONG)
    assert isinstance(tally(s.case(), s.opened()), Undecided)


def test_the_order_of_openings_does_not_matter() -> None:
    s = scene(RIGHT, WRONG, RIGHT)
    verdicts = {tally(s.case(), dict(order)) for order in permutations(s.opened().items())}  # type: ignore[type-var]
    assert len(verdicts) == 1


def test_the_owners_own_execution_is_no_witness() -> None:
    s = scene(RIGHT, own=RIGHT)
    assert isinstance(tally(s.case(), s.opened()), Undecided)


def test_a_single_node_settles_its_own_unverified_work() -> None:
    s = scene(own=RIGHT, quorum=1, replicas=1)
    assert isinstance(tally(s.case(), s.opened()), Agreed)


def test_one_operator_counts_once_where_operators_are_asked_for() -> None:
    s = scene(RIGHT, RIGHT, independence=Independence.OPERATOR)
    first, second = (r.worker.feed for r in s.results)
    linked = {first: frozenset((first, second))}
    case = s.case(operators=lambda c: linked.get(c.worker, frozenset()))
    assert isinstance(tally(case, s.opened()), Undecided)
    assert isinstance(tally(s.case(), s.opened()), Agreed)


def test_vouching_for_honest_workers_does_not_weaken_them() -> None:
    s = scene(RIGHT, RIGHT, RIGHT, independence=Independence.OPERATOR)
    feeds = frozenset(r.worker.feed for r in s.results)
    griefer = s.results[0].worker.feed
    case = s.case(operators=lambda c: feeds if c.worker == griefer else frozenset())
    assert isinstance(tally(case, s.opened()), Agreed)


def test_an_operator_owning_owner_and_worker_earns_nothing() -> None:
    s = scene(RIGHT, RIGHT, RIGHT, independence=Independence.OPERATOR)
    mine = s.results[0].worker.feed
    case = s.case(operators=lambda c: frozenset((mine,)) if c.worker == s.owner.feed else frozenset())
    fault = check_settlement(case, s.sealed, settlement(s.results, RIGHT), 4 * PRICE)
    assert fault == "the owner pays its own execution"


# --- settlements -----------------------------------------------------------------------------------------------------
def test_an_honest_settlement_is_valid() -> None:
    s = scene(RIGHT, WRONG, RIGHT)
    assert s.fault(settlement(s.results, RIGHT)) is None


def test_what_award_writes_is_valid_and_private_openings_open() -> None:
    for s in (scene(RIGHT, WRONG, RIGHT), scene(RIGHT, RIGHT, own=RIGHT), scene(own=RIGHT, quorum=1, replicas=1)):
        noted = {r.commit.id: (s.sealed[r.commit.id], r.note()) for r in s.results}
        assert all(note_opens(s.case(), sealed, note) for sealed, note in noted.values())
        verdict = tally(s.case(), s.opened())
        assert isinstance(verdict, Agreed)
        for left in (0, 1, PRICE, 4 * PRICE):
            assert s.fault(award(s.case(), verdict, noted, left), left) is None


def test_a_private_opening_of_another_round_does_not_open() -> None:
    s = scene(RIGHT)
    result = s.results[0]
    assert not note_opens(s.case(), s.sealed[result.commit.id], replace(result.note(), round=1))
    assert not note_opens(s.case(), s.sealed[result.commit.id], replace(result.note(), root=WRONG))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"root": WRONG}, "an opening does not open its commit"),
        ({"root": OTHER}, "an opening does not open its commit"),
        ({"nonce": bytes(16)}, "an opening does not open its commit"),
        ({"work": 1}, "an opening does not open its commit"),
        ({"numeric_class": "arm64"}, "an opening does not open its commit"),
        ({"commit": bytes(32)}, "an opening has no commit sealed for this task"),
        ({"amount": PRICE - 1}, "agreeing executions are paid differently"),
    ],
)
def test_one_changed_opening_spoils_the_settlement(changes: dict[str, object], fault: str) -> None:
    s = scene(RIGHT, RIGHT)
    entry = settlement(s.results, RIGHT)
    assert s.fault(replace(entry, openings=(replace(entry.openings[0], **changes), entry.openings[1]))) == fault


def test_a_settlement_on_a_root_without_quorum_is_refused() -> None:
    s = scene(RIGHT, WRONG)
    assert s.fault(settlement(s.results, RIGHT)) == "no quorum of independent executions agrees"
    both = scene(RIGHT, RIGHT, WRONG)
    assert both.fault(settlement(both.results, WRONG)) == "the quorum agrees on another root"


def test_openings_are_in_order_and_unique() -> None:
    s = scene(RIGHT, RIGHT)
    entry = settlement(s.results, RIGHT)
    for openings in (entry.openings[::-1], (entry.openings[0], *entry.openings)):
        assert s.fault(replace(entry, openings=openings)) == "openings are not in commit-id order"


def test_amounts_are_bounded_by_price_and_lock() -> None:
    s = scene(RIGHT, RIGHT)
    assert s.fault(settlement(s.results, RIGHT, PRICE + 1)) == "more is paid than the offer's price"
    assert s.fault(settlement(s.results, RIGHT), 2 * PRICE - 1) == "more is paid than is left of the lock"
    assert s.fault(settlement(s.results, RIGHT), 2 * PRICE) is None


def test_a_disagreeing_execution_earns_nothing() -> None:
    s = scene(RIGHT, RIGHT, WRONG)
    entry = settlement(s.results, RIGHT)
    openings = tuple(replace(opening, amount=PRICE) for opening in entry.openings)
    assert s.fault(replace(entry, openings=openings)) == "an execution that disagrees is paid"


def test_self_pay_is_refused() -> None:
    s = scene(RIGHT, RIGHT, own=RIGHT)
    assert s.fault(settlement(s.results, RIGHT)) == "the owner pays its own execution"


def test_the_stewards_own_execution_earns_nothing() -> None:
    steward = Scribe("worker 0")
    s = scene(RIGHT, RIGHT, RIGHT, steward=steward.feed)
    assert s.fault(settlement(s.results, RIGHT)) == "the owner pays its own execution"


def test_unverified_work_earns_nothing() -> None:
    s = scene(RIGHT, quorum=1, replicas=1)
    assert s.fault(settlement(s.results, RIGHT)) == "an unverified result pays nothing"
    assert s.fault(settlement(s.results, RIGHT, 0)) is None


def test_a_worker_is_paid_once_for_a_task() -> None:
    s = scene(RIGHT, RIGHT)
    s.results.append(commit(s.results[0].worker, s.offer, RIGHT, round_=1))
    assert s.fault(settlement(s.results, RIGHT)) == "a worker is paid twice for one task"


def test_a_worker_alone_is_no_quorum_however_often_it_commits() -> None:
    s = scene(RIGHT)
    s.results.append(commit(s.results[0].worker, s.offer, RIGHT, round_=1))
    assert s.fault(settlement(s.results, RIGHT)) == "no quorum of independent executions agrees"


def test_a_task_beyond_the_offer_and_an_unknown_mode_are_refused() -> None:
    s = scene(RIGHT, RIGHT)
    assert s.fault(replace(settlement(s.results, RIGHT), task=1)) == "the offer has no such task"
    t = scene(RIGHT, RIGHT, mode=Mode.TOLERANCE)
    assert "tolerance" in (t.fault(settlement(t.results, RIGHT)) or "")


def test_an_opening_for_another_network_does_not_open() -> None:
    s = scene(RIGHT, RIGHT)
    assert s.fault(settlement(s.results, RIGHT), netid=blob_id(b"elsewhere")) == "an opening does not open its commit"


# --- voids -----------------------------------------------------------------------------------------------------------
def void(s: Scene, verdict: Verdict) -> Voided:
    noted = {r.commit.id: (s.sealed[r.commit.id], r.note()) for r in s.results}
    return Voided(0, verdict, "a reason", evidence(noted))


def test_a_failure_needs_a_quorum_that_failed_alike() -> None:
    s = scene(RIGHT, RIGHT)
    assert check_void(s.case(), s.sealed, void(s, Verdict.FAILED)) is None
    t = scene(RIGHT, WRONG)
    assert check_void(t.case(), t.sealed, void(t, Verdict.FAILED)) == "no quorum of independent executions failed alike"
    assert check_void(t.case(), t.sealed, void(t, Verdict.DISPUTED)) is None


def test_other_voids_need_no_openings_but_given_ones_must_open() -> None:
    s = scene(RIGHT)
    for verdict in (Verdict.DISPUTED, Verdict.UNSERVED, Verdict.CANCELLED):
        assert check_void(s.case(), s.sealed, Voided(0, verdict, "", ())) is None
    entry = void(s, Verdict.DISPUTED)
    forged = replace(entry, openings=(replace(entry.openings[0], root=WRONG),))
    assert check_void(s.case(), s.sealed, forged) == "an opening does not open its commit"
    paid = replace(entry, openings=(replace(entry.openings[0], amount=1),))
    assert check_void(s.case(), s.sealed, paid) == "a void pays"
    rootless = replace(entry, openings=(replace(entry.openings[0], root=None),))
    assert check_void(s.case(), s.sealed, rootless) == "an opening names no root"


# --- whatever the executions ------------------------------------------------------------------------------------------
@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any task with one to five executions, perhaps one of them the owner's own."""
    roots = draw(st.lists(st.sampled_from((RIGHT, RIGHT, WRONG, OTHER)), min_size=1, max_size=5))
    quorum = draw(st.integers(1, 3))
    independence = draw(st.sampled_from(tuple(Independence)))
    own = draw(st.sampled_from((None, None, RIGHT)))
    return scene(*roots, own=own, quorum=quorum, executions_max=6, independence=independence)


def awarded(s: Scene, left: int) -> Settlement | None:
    noted = {r.commit.id: (s.sealed[r.commit.id], r.note()) for r in s.results}
    verdict = tally(s.case(), s.opened())
    return award(s.case(), verdict, noted, left) if isinstance(verdict, Agreed) else None


LEFT = st.sampled_from((0, 1, PRICE - 1, PRICE, 3 * PRICE, 6 * PRICE, 2**63 - 1))


@given(scenes(), LEFT)
def test_what_an_honest_owner_awards_is_always_valid(s: Scene, left: int) -> None:
    entry = awarded(s, left)
    if entry is not None:
        assert s.fault(entry, left) is None
        assert sum(opening.amount for opening in entry.openings) <= left


FIELDS: dict[str, st.SearchStrategy[object]] = {
    "commit": st.just(bytes(32)),
    "nonce": st.binary(min_size=16, max_size=16),
    "numeric_class": st.sampled_from(("", "arm64")),
    "work": st.integers(0, 2**63 - 1),
    "root": st.sampled_from((None, RIGHT, WRONG, OTHER)),
    "amount": st.sampled_from((0, 1, PRICE - 1, PRICE, PRICE + 1, 2**63 - 1)),
}


@st.composite
def changed(draw: st.DrawFn, entry: Settlement) -> Settlement:
    """The settlement with one field of it, or of one opening, put to another value."""
    openings = entry.openings
    match draw(st.sampled_from(("task", "root", "drop", "repeat", "opening", "opening"))):
        case "task":
            return replace(entry, task=draw(st.integers(0, 3)))
        case "root":
            return replace(entry, root=draw(st.sampled_from((RIGHT, WRONG, OTHER, bytes(32)))))
        case "drop":
            at = draw(st.integers(0, len(openings) - 1))
            return replace(entry, openings=openings[:at] + openings[at + 1 :])
        case "repeat":
            at = draw(st.integers(0, len(openings) - 1))
            return replace(entry, openings=(*openings[: at + 1], *openings[at:]))
    at, name = draw(st.integers(0, len(openings) - 1)), draw(st.sampled_from(sorted(FIELDS)))
    other = replace(openings[at], **{name: draw(FIELDS[name])})
    return replace(entry, openings=(*openings[:at], other, *openings[at + 1 :]))


@given(scenes(), LEFT, st.data())
def test_no_single_change_makes_a_settlement_pay_more(s: Scene, left: int, data: st.DataObject) -> None:
    entry = awarded(s, left)
    if entry is None:
        return
    false = data.draw(changed(entry))
    if s.fault(false, left) is None:
        paid = {opening.commit: opening.amount for opening in entry.openings}
        assert all(opening.amount <= paid[opening.commit] for opening in false.openings)
        assert (false.task, false.root) == (entry.task, entry.root)
