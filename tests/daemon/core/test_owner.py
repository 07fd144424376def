"""The owner's side alone: who is drawn, what it does not believe, and what a large job costs."""

import time
from typing import Any

import pytest
from msgspec.structs import replace as changed

from daemon.core import owner as owner_file
from daemon.core.author import Author
from daemon.core.node import NodeCore
from daemon.core.states import ExecutionState, TaskState
from daemon.core.step import (
    Answered,
    ClaimHeard,
    GaveUp,
    Heard,
    News,
    Now,
    OpeningsHeard,
    Published,
    RenewalHeard,
    Resumed,
    SendAssign,
    Spread,
    Step,
    Woke,
)
from ledger.verdict import Operators, commit_digest
from nexapod.events import Event, make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.job import descriptor_hash
from nexapod.limits import LEASE_MS
from nexapod.messages import (
    AskGiveUp,
    AskOpen,
    AskRenew,
    Claim,
    Commit,
    CommitEntry,
    Done,
    Hidden,
    Kind,
    OpeningNote,
    Progress,
    Refused,
    RenewReply,
    Seal,
)
from tests.daemon.core.simulation import CAPACITY, NETID, job_of


def feed(number: int) -> bytes:
    return blob_id(b"feed %d" % number)


class Bench:
    """One owner with one job, and workers that exist only as what they say."""

    def __init__(self, operators: Operators = lambda commit: frozenset((commit.worker,)), **job: Any) -> None:
        key = Key.from_seed(blob_id(b"owner"))
        self.feed = make_genesis(key, NETID, blob_id(b"next")).id
        author = Author(key, NETID, self.feed, seq=0, head=self.feed)
        self.core = NodeCore(author, CAPACITY, lease_ms=LEASE_MS, operators=operators)
        self.ms = 0
        resolved = job_of(**job)
        step = self.tell(Published(resolved, descriptor_hash(resolved), blob_id(b"seed")))
        assert step.offer is not None
        self.offer = step.offer
        self.job = self.core.owner.book.jobs[self.offer]

    def tell(self, news: News, *, check: bool = True) -> Step:
        step = self.core.handle(news, Now(self.ms, self.ms))
        if check:
            self.core.check_invariants()
        return step

    def claim(self, *numbers: int, slots: int = 4) -> list[SendAssign]:
        """Workers claim; what is assigned to them at once, because claims have gathered before."""
        found = []
        for number in numbers:
            claim = Claim(feed(number), "x", slots, self.ms + 1, 120_000, self.offer)
            found += sent(self.tell(ClaimHeard(claim), check=False))
        return found

    def draw(self) -> list[SendAssign]:
        """Let the claims gather and take all assignments that follow."""
        self.ms += 1_000
        found = sent(self.tell(Woke()))
        while self.core.wake_at is not None and self.core.wake_at <= self.ms + 1:
            self.ms += 1
            found += sent(self.tell(Woke(), check=False))
        return found

    def commit(self, number: int, task: int = 0, round_: int = 0, root: bytes = b"root") -> tuple[Event, OpeningNote]:
        """The commit event of a worker, and what opens it."""
        nonce = blob_id(feed(number))[:16]
        hidden = Hidden(self.offer, task, round_, feed(number), "x", 1, blob_id(root), nonce)
        entry = CommitEntry(task, round_, commit_digest(NETID, hidden))
        event_id = blob_id(b"commit %d %d %d" % (number, task, round_))
        data = Commit(self.offer, blob_id(b"assignment"), (entry,))
        event = Event(event_id, feed(number), 1, b"", int(Kind.COMMIT), 0, data, b"", b"")
        return event, OpeningNote(task, round_, event_id, nonce, "x", 1, blob_id(root))

    def open(self, number: int, *notes: OpeningNote) -> Step:
        return self.tell(OpeningsHeard(feed(number), AskOpen(self.offer, notes)))


def sent(step: Step) -> list[SendAssign]:
    return [effect for effect in step.effects if isinstance(effect, SendAssign)]


def workers(assigned: list[SendAssign]) -> set[bytes]:
    return {effect.worker for effect in assigned}


# --- who is drawn -----------------------------------------------------------------------------------------------------
def test_claims_gather_before_the_first_draw() -> None:
    bench = Bench()
    bench.claim(1, 2)
    assert sent(bench.tell(Woke())) == []
    assert bench.core.wake_at == 250
    assert workers(bench.draw()) == {feed(1), feed(2)}


def test_the_owners_own_claim_counts_for_nothing() -> None:
    bench = Bench()
    bench.tell(ClaimHeard(Claim(bench.feed, "x", 4, 1, 120_000, bench.offer)))
    bench.claim(1)
    assert workers(bench.draw()) == {feed(1)}
    assert bench.feed not in bench.job.claims


def test_claims_for_nothing_or_of_nothing_are_left_alone() -> None:
    bench = Bench()
    bench.claim(1, slots=0)
    bench.tell(ClaimHeard(Claim(feed(2), "x", 4, 1, 120_000, None)))
    bench.tell(ClaimHeard(Claim(feed(3), "x", 4, 1, 120_000, blob_id(b"?"))))
    assert bench.job.claims == {}


def test_whoever_says_it_lends_millions_is_not_drawn_for_everything() -> None:
    bench = Bench(tasks=300)
    bench.claim(1, slots=2**31 - 1)
    bench.claim(*range(2, 8), slots=64)
    tasks = [index for effect in bench.draw() if effect.worker == feed(1) for index in effect.assignment.tasks]
    assert len(tasks) < 200


def answers_for(*pairs: tuple[int, int]) -> Operators:
    wards = {feed(a): frozenset((feed(a), feed(b))) for a, b in pairs}
    return lambda commit: wards.get(commit.worker, frozenset((commit.worker,)))


def test_two_nodes_of_one_operator_do_not_share_a_task() -> None:
    bench = Bench(answers_for((1, 2)), redundancy={"mode": "operator"})
    bench.claim(1, 2)
    assert len(bench.draw()) == 1
    assert workers(bench.claim(3)) == {feed(3)}


def test_in_a_network_of_nodes_operators_do_not_matter() -> None:
    bench = Bench(answers_for((1, 2)))
    bench.claim(1, 2)
    assert workers(bench.draw()) == {feed(1), feed(2)}


def test_nodes_of_the_owners_operator_are_not_drawn_where_they_would_prove_nothing() -> None:
    bench = Bench(redundancy={"mode": "operator"})
    bench.core.owner._operators = lambda commit: (
        frozenset((commit.worker, bench.feed)) if commit.worker == feed(1) else frozenset((commit.worker,))
    )
    bench.claim(1, 2, 3)
    assert workers(bench.draw()) == {feed(2), feed(3)}


# --- what it does not believe -----------------------------------------------------------------------------------------
def sealed_pair(bench: Bench) -> list[tuple[Event, OpeningNote]]:
    bench.claim(1, 2)
    bench.draw()
    pair = [bench.commit(1), bench.commit(2)]
    steps = [bench.tell(Heard(event)) for event, _ in pair]
    assert [type(event.data) for event in steps[1].events] == [Seal]
    return pair


def test_an_opening_that_does_not_match_ends_its_execution() -> None:
    bench = Bench()
    (_, _), (_, right) = sealed_pair(bench)
    assert bench.open(2, changed(right, root=blob_id(b"changed my mind"))).reply == Done()
    assert bench.job.tasks[0].execution_of(feed(2), 0).state == ExecutionState.LOST  # type: ignore[union-attr]
    bench.open(2, right)
    assert bench.job.tasks[0].execution_of(feed(2), 0).state == ExecutionState.LOST  # type: ignore[union-attr]


def test_openings_of_others_and_of_nothing_are_refused() -> None:
    bench = Bench()
    (_, first), (_, second) = sealed_pair(bench)
    for number, note in ((2, first), (3, second), (2, changed(second, task=9)), (2, changed(second, round=1))):
        reply = bench.open(number, note).reply
        assert isinstance(reply, Refused)
        assert reply.reason == "unknown-commit"
    unknown = bench.tell(OpeningsHeard(feed(1), AskOpen(blob_id(b"?"), (first,)))).reply
    assert unknown == Refused("unknown-offer", "this node does not own that offer")
    assert bench.job.tasks[0].state == TaskState.RUNNING


def test_a_commit_of_somebody_not_assigned_is_not_sealed() -> None:
    bench = Bench()
    bench.claim(1, 2)
    bench.draw()
    for number, task, round_ in ((3, 0, 0), (1, 0, 1), (1, 5, 0)):
        assert bench.tell(Heard(bench.commit(number, task, round_)[0])).story == []


def test_renewals_name_what_is_not_wanted_any_more() -> None:
    bench = Bench(tasks=2)
    bench.claim(1, 2)
    bench.draw()

    def renew(number: int, *tasks: int) -> Any:
        entries = tuple(Progress(task, 0, 2, 300) for task in tasks)
        return bench.tell(RenewalHeard(feed(number), AskRenew(bench.offer, entries))).reply

    assert renew(1, 0, 1, 7) == RenewReply((7,))
    assert renew(3, 0) == RenewReply((0,))
    assert bench.job.progress[0, feed(1)] == 300
    bench.tell(GaveUp(feed(1), AskGiveUp(bench.offer, 0, 0, "engine", "broke")))
    assert renew(1, 0, 1) == RenewReply((0,))
    assert (0, feed(1)) not in bench.job.progress
    assert bench.tell(RenewalHeard(feed(1), AskRenew(blob_id(b"?"), (Progress(0, 0, 0, 0),)))).reply == RenewReply((0,))


def test_a_worker_that_cannot_be_reached_costs_no_attempt() -> None:
    bench = Bench()
    bench.claim(1, 2)
    for effect in bench.draw():
        step = bench.tell(Answered(effect, None))
        assert [line.text for line in step.story if line.step == "refuse"] == ["could not be reached"]
        assert bench.tell(Answered(effect, Done())).story == []
    assert bench.job.tasks[0].executions == []
    assert len(bench.draw()) == 0  # put off
    bench.ms += 2_000
    assert len(bench.draw()) == 2


@pytest.mark.parametrize("how", ["commit", "renewal"])
def test_a_worker_whose_yes_was_lost_is_believed_while_its_place_is_free(how: str) -> None:
    bench = Bench()
    bench.claim(1, 2)
    for effect in bench.draw():
        bench.tell(Answered(effect, None))
    task = bench.job.tasks[0]
    assert task.executions == []
    for number in (1, 2):
        if how == "renewal":
            entries = (Progress(0, 0, 2, 100),)
            assert bench.tell(RenewalHeard(feed(number), AskRenew(bench.offer, entries))).reply == RenewReply(())
        bench.tell(Heard(bench.commit(number)[0]))
    # Both bound themselves to the task that the owner thought they had never heard of: it is sealed, not drawn again.
    assert {execution.state for execution in task.executions} == {ExecutionState.SEALED}
    assert task.state == TaskState.RUNNING
    assert [line.text for line in bench.tell(Heard(bench.commit(3)[0])).story] == []


def test_a_worker_that_said_no_is_not_believed_later() -> None:
    bench = Bench()
    bench.claim(1, 2)
    for effect in bench.draw():
        bench.tell(Answered(effect, Refused("busy", "no room")))
    assert bench.tell(Heard(bench.commit(1)[0])).story == []
    assert bench.job.tasks[0].executions == []


def test_a_busy_worker_is_asked_for_half_as_much_each_time() -> None:
    bench = Bench(tasks=8)
    bench.claim(1, slots=8)
    asked = []
    for _ in range(4):
        (effect,) = bench.draw()
        asked.append(len(effect.assignment.tasks))
        bench.tell(Answered(effect, Refused("busy", "room for 1 more tasks now")))
        bench.ms += 15_000
    (effect,) = bench.draw()
    step = bench.tell(Answered(effect, Done()))
    asked += [len(effect.assignment.tasks), *(len(effect.assignment.tasks) for effect in sent(step))]
    assert asked == [8, 4, 2, 1, 1]
    bench.claim(1, slots=8)
    assert len(sent(bench.tell(Heard(bench.commit(1, effect.assignment.tasks[0])[0])))[0].assignment.tasks) == 2


def test_after_a_restart_what_may_not_have_been_sent_is_sent_again() -> None:
    bench = Bench()
    bench.claim(1, 2)
    first, second = bench.draw()
    bench.tell(Answered(first, Done()))
    step = bench.tell(Resumed())
    assert sent(step) == [second]
    assert [type(effect) for effect in step.effects] == [Spread, SendAssign]


# --- what a large job costs -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("claimants", "slots"), [(8, 4), (100, 4)])
def test_news_about_one_task_costs_little_however_many_there_are(claimants: int, slots: int) -> None:
    """Counted in seconds of this processor, with a lot of room: a walk over all tasks would take a hundred times it."""
    bench = Bench(tasks=10_000)
    bench.claim(*range(claimants), slots=slots)
    todo = [(effect, index) for effect in bench.draw() for index in effect.assignment.tasks]
    steps = 0
    begun = time.process_time()
    while steps < 300:
        effect, index = todo.pop(0)
        number = next(number for number in range(claimants) if feed(number) == effect.worker)
        event, _ = bench.commit(number, index)
        step = bench.tell(Heard(event), check=False)
        todo += [(effect, index) for effect in sent(step) for index in effect.assignment.tasks]
        steps += 1
    assert (time.process_time() - begun) / steps < 0.02
    bench.core.check_invariants()


def test_a_draw_among_many_is_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_file, "SCORES_PER_STEP", 50)
    bench = Bench(tasks=40)
    bench.claim(*range(20))
    bench.ms += 1_000
    first = bench.tell(Woke())
    assert sum(len(effect.assignment.tasks) for effect in sent(first)) == 6
    assert bench.core.wake_at == bench.ms + 1
    steps = 1
    while bench.core.wake_at == bench.ms + 1:
        bench.ms += 1
        bench.tell(Woke())
        steps += 1
    assert sum(len(task.executions) for task in bench.job.tasks) == 80
    assert steps < 20
