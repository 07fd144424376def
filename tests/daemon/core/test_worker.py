"""The worker's side alone: offers, assignments, and what it never does for ever."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as changed

from daemon.core import worker as worker_file
from daemon.core.author import Author
from daemon.core.duties import DAY_MS, DUTY_PREFIX
from daemon.core.matching import terms_of
from daemon.core.node import NodeCore
from daemon.core.states import DutyState
from daemon.core.step import (
    Answered,
    AssignmentHeard,
    CapacityChanged,
    DescriptorHeld,
    FetchDescriptor,
    Heard,
    News,
    Now,
    PeerCame,
    Progressed,
    Resumed,
    Run,
    RunBroke,
    RunEnded,
    SendClaim,
    SendGiveUp,
    SendOpen,
    SendRenew,
    Step,
    StopRun,
    Woke,
)
from daemon.core.worker import DUTIES_PER_SLOT, RETENTION_DAYS, plain
from nexapod.encoding import check_text, decode, encode
from nexapod.events import Event, make_event, make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.job import Resolved
from nexapod.limits import CLAIM_VALID_MS, LEASE_MS, NOTE_CHARS_MAX
from nexapod.messages import (
    AskGiveUp,
    Assignment,
    Close,
    Commit,
    Done,
    EventData,
    Refused,
    RenewReply,
    Seal,
    SealEntry,
)
from tests.daemon.core.simulation import CAPACITY, NETID, job_of

SEED = blob_id(b"seed")


class Pen:
    """An owner as its events look to a worker."""

    def __init__(self, name: str) -> None:
        self.key = Key.from_seed(blob_id(name.encode()))
        self.head = make_genesis(self.key, NETID, blob_id(b"next"))
        self.feed = self.head.id

    def write(self, data: EventData) -> Event:
        before = self.head
        self.head = make_event(self.key, NETID, feed=self.feed, seq=before.seq + 1, prev=before.id, ts=0, data=data)
        return self.head

    def offer(self, job: Resolved, **changes: Any) -> Event:
        return self.write(changed(terms_of(job, blob_id(b"descriptor"), SEED), **changes))


class Bench:
    """One worker at `ms`, and the owner it knows."""

    def __init__(self, **capacity: Any) -> None:
        key = Key.from_seed(blob_id(b"worker"))
        self.feed = make_genesis(key, NETID, blob_id(b"next")).id
        self.core = NodeCore(
            Author(key, NETID, self.feed, seq=0, head=self.feed),
            replace(CAPACITY, **capacity),
            lease_ms=LEASE_MS,
            operators=lambda commit: frozenset((commit.worker,)),
        )
        self.ms = 1_000
        self.owner = Pen("owner")
        self.offer = b""
        self.job = job_of(tasks=20)
        self.facts: dict[bytes, bytes] = {}

    def tell(self, news: News) -> Step:
        step = self.core.handle(news, Now(self.ms, self.ms))
        self.core.check_invariants()
        for fact, raw in step.facts.items():
            if raw is None:
                del self.facts[fact]
            else:
                self.facts[fact] = raw
        return step

    def know(self, **changes: Any) -> Step:
        """Hear an offer and hold its descriptor."""
        event = self.owner.offer(self.job, **changes)
        self.offer = event.id
        self.tell(Heard(event))
        return self.tell(DescriptorHeld(self.offer, self.job, True))

    def assign(self, *tasks: int, lease_ms: int = LEASE_MS, round_: int = 0, **changes: Any) -> Step:
        assignment = Assignment(self.owner.feed, self.feed, self.offer, round_, lease_ms, tasks)
        return self.tell(AssignmentHeard(changed(assignment, **changes), blob_id(b"digest")))

    def wake(self) -> Step:
        """Sleep until it wants to be woken."""
        assert self.core.wake_at is not None
        self.ms = max(self.ms, self.core.wake_at)
        return self.tell(Woke())

    def duty_states(self) -> list[DutyState]:
        return [duty.state for duty in self.core.worker.duties.all()]


def sent(step: Step, kind: type) -> list[Any]:
    return [effect for effect in step.effects if isinstance(effect, kind)]


# --- offers -----------------------------------------------------------------------------------------------------------
def test_an_offer_that_fits_is_claimed_and_claimed_again() -> None:
    bench = Bench()
    (claim,) = sent(bench.know(), SendClaim)
    assert (claim.owner, claim.claim.offer, claim.claim.slots) == (bench.owner.feed, bench.offer, 4)
    at = bench.ms
    (again,) = sent(bench.wake(), SendClaim)
    assert bench.ms == at + CLAIM_VALID_MS // 3
    assert again.claim.seq > claim.claim.seq


def test_an_offer_that_contradicts_its_descriptor_is_not_claimed() -> None:
    bench = Bench()
    assert sent(bench.know(price=0), SendClaim) == []
    assert bench.core.worker.offers[bench.offer].reasons[0].code == "terms"


def test_an_owner_that_comes_is_told_at_once() -> None:
    bench = Bench()
    bench.know()
    assert len(sent(bench.tell(PeerCame(bench.owner.feed)), SendClaim)) == 1
    assert sent(bench.tell(PeerCame(blob_id(b"somebody else"))), SendClaim) == []


def test_a_descriptor_that_never_came_is_asked_for_again_when_its_owner_comes() -> None:
    bench = Bench()
    step = bench.tell(Heard(bench.owner.offer(bench.job)))
    assert len(sent(step, FetchDescriptor)) == 1
    assert sent(bench.tell(PeerCame(bench.owner.feed)), FetchDescriptor) == []
    bench.ms += worker_file.FETCH_AGAIN_MS
    assert len(sent(bench.tell(PeerCame(bench.owner.feed)), FetchDescriptor)) == 1
    assert sent(bench.tell(PeerCame(bench.owner.feed)), FetchDescriptor) == []


def test_one_owner_cannot_crowd_the_table_of_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "OFFERS_OPEN_MAX", 6)
    bench = Bench()
    bench.know()
    bench.assign(0)
    for _ in range(10):
        bench.tell(Heard(bench.owner.offer(bench.job)))
    offers = bench.core.worker.offers
    assert len(offers) == 6
    others = [Pen(f"other{number}") for number in range(9)]
    for other in others:
        bench.tell(Heard(other.offer(bench.job)))
    assert len(offers) == 6
    assert bench.offer in offers  # it has a duty
    assert sum(seen.owner == bench.owner.feed for seen in offers.values()) == 1
    bench.tell(Heard(bench.owner.write(Close(bench.offer, SEED))))
    assert bench.offer not in offers


# --- assignments ------------------------------------------------------------------------------------------------------
def test_why_an_assignment_is_refused() -> None:
    bench = Bench()
    assert bench.assign(0, offer=blob_id(b"?")).reply == Refused(
        "unknown-offer", "no open offer of that owner is known here"
    )
    bench.tell(Heard(event := bench.owner.offer(bench.job)))
    bench.offer = event.id
    assert bench.assign(0).reply == Refused("fetching", "the descriptor is not here yet")
    bench.tell(DescriptorHeld(bench.offer, bench.job, True))
    refused = {
        "not-me": bench.assign(0, worker=blob_id(b"?")),
        "unknown-offer": bench.assign(0, owner=blob_id(b"?")),
        "no-such-task": bench.assign(20),
        "busy": bench.assign(0, 1, 2, 3, 4),
    }
    for code, step in refused.items():
        assert isinstance(step.reply, Refused)
        assert step.reply.reason == code
        assert step.facts == {}
    assert bench.assign(0, 1, 2, 3).reply == Done()
    assert bench.assign(0, 1, 2, 3).reply == Done()  # the same again
    assert bench.duty_states() == [DutyState.RUNNING, DutyState.RUNNING, DutyState.ASSIGNED, DutyState.ASSIGNED]
    other_round = bench.assign(0, round_=1).reply
    assert isinstance(other_round, Refused)
    assert other_round.reason == "already-mine"


def test_a_refusal_fits_a_message_whatever_it_says() -> None:
    bench = Bench()
    bench.job = changed(bench.job, image="x" * 500)
    bench.offer = (event := bench.owner.offer(bench.job)).id
    bench.tell(Heard(event))
    bench.tell(DescriptorHeld(bench.offer, bench.job, False))
    reply = bench.assign(0).reply
    assert isinstance(reply, Refused)
    assert decode(encode(reply), Refused, size_max=1_000) == reply


def test_what_owners_never_end_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "DUTIES_PER_OWNER_MAX", 3)
    bench = Bench()
    bench.know()
    assert bench.assign(0, 1, 2).reply == Done()
    for task in range(3):
        bench.tell(RunEnded((bench.offer, task, 0), blob_id(b"r"), 0, 1))
    refused = bench.assign(3).reply
    assert refused == Refused("unsettled", "too much is not settled yet")


@pytest.mark.parametrize("lease_ms", [0, 1, 2**63 - 1])
def test_no_lease_makes_the_node_spin(lease_ms: int) -> None:
    bench = Bench()
    bench.know()
    bench.assign(0, lease_ms=lease_ms)
    start = bench.ms
    for _ in range(20):
        bench.wake()
        assert bench.core.wake_at is not None
        assert bench.core.wake_at > bench.ms
    assert bench.ms - start >= 20 * 100


# --- running ----------------------------------------------------------------------------------------------------------
def committed(bench: Bench, task: int = 0) -> Event:
    bench.know()
    bench.assign(task)
    (event,) = bench.tell(RunEnded((bench.offer, task, 0), blob_id(b"result"), 0, 5)).events
    assert isinstance(event.data, Commit)
    return event


def test_no_more_tasks_run_than_there_are_slots() -> None:
    bench = Bench()
    bench.know()
    step = bench.assign(0, 1, 2, 3)
    assert [run.execution[1] for run in sent(step, Run)] == [0, 1]
    step = bench.tell(RunEnded((bench.offer, 1, 0), blob_id(b"r"), 0, 1))
    assert [run.execution[1] for run in sent(step, Run)] == [2]


def test_fewer_slots_than_running_tasks_stop_nothing() -> None:
    bench = Bench()
    bench.know()
    bench.assign(0, 1, 2, 3)
    step = bench.tell(CapacityChanged(replace(CAPACITY, slots=1)))
    assert sent(step, StopRun) == []
    assert bench.duty_states().count(DutyState.RUNNING) == 2
    step = bench.tell(RunEnded((bench.offer, 0, 0), blob_id(b"r"), 0, 1))
    assert sent(step, Run) == []


def test_a_paused_node_runs_on_and_begins_nothing() -> None:
    bench = Bench()
    bench.know()
    bench.assign(0, 1, 2)
    step = bench.tell(CapacityChanged(replace(CAPACITY, willing=False)))
    (gave_up,) = sent(step, SendGiveUp)
    assert gave_up.ask == AskGiveUp(bench.offer, 2, 0, "not-working", "this node takes no work")
    step = bench.tell(RunEnded((bench.offer, 0, 0), blob_id(b"r"), 0, 1))
    assert len(step.events) == 1
    assert sent(step, Run) == []
    assert sent(bench.tell(CapacityChanged(CAPACITY)), SendClaim)


def test_a_broken_run_is_handed_back_in_words_that_fit() -> None:
    bench = Bench()
    bench.know()
    bench.assign(0)
    step = bench.tell(RunBroke((bench.offer, 0, 0), "engine", "e\u0301\n\x1b[2J" + "long " * 100))
    (gave_up,) = sent(step, SendGiveUp)
    assert decode(encode(gave_up.ask), AskGiveUp, size_max=2_000) == gave_up.ask
    assert bench.duty_states() == []
    assert bench.facts == {}


def test_a_renewal_tells_progress_and_may_end_the_run() -> None:
    bench = Bench()
    bench.know()
    bench.assign(0)
    bench.tell(Progressed((bench.offer, 0, 0), 2, 500))
    (renewal,) = sent(bench.wake(), SendRenew)
    assert [(entry.task, entry.state, entry.permille) for entry in renewal.entries] == [(0, 2, 500)]
    assert bench.ms == 1_000 + LEASE_MS // 3
    step = bench.tell(Answered(renewal, RenewReply((0,))))
    assert [stop.execution for stop in sent(step, StopRun)] == [(bench.offer, 0, 0)]
    assert bench.facts == {}


def test_an_opening_is_repeated_with_growing_pauses_until_it_is_taken() -> None:
    bench = Bench()
    commit = committed(bench)
    step = bench.tell(Heard(bench.owner.write(Seal(bench.offer, (SealEntry(0, 0, (commit.id,)),)))))
    (opening,) = sent(step, SendOpen)
    pauses = []
    for _ in range(10):
        at = bench.ms
        bench.tell(Answered(opening, None))
        while not (again := sent(bench.wake(), SendOpen)):
            pass
        assert again == [opening]
        pauses.append(bench.ms - at)
    assert pauses == [*worker_file.OPEN_AGAIN_MS, *worker_file.OPEN_AGAIN_MS[-1:] * 2]
    bench.tell(Answered(opening, Done()))
    bench.tell(Answered(opening, None))
    assert bench.duty_states() == [DutyState.OPENED]


def test_a_seal_of_a_stranger_or_without_the_commit_opens_nothing() -> None:
    bench = Bench()
    commit = committed(bench)
    entry = SealEntry(0, 0, (commit.id,))
    for event in (
        Pen("stranger").write(Seal(bench.offer, (entry,))),
        bench.owner.write(Seal(bench.offer, (SealEntry(0, 0, (blob_id(b"other"),)),))),
        bench.owner.write(Seal(bench.offer, (SealEntry(0, 1, (commit.id,)),))),
    ):
        assert bench.tell(Heard(event)).effects == []
    assert bench.tell(Heard(Pen("stranger").write(Close(bench.offer, SEED)))).facts == {}
    assert bench.duty_states() == [DutyState.COMMITTED]


# --- after a restart --------------------------------------------------------------------------------------------------
def restarted(bench: Bench) -> Bench:
    after = Bench()
    after.owner, after.offer, after.facts = bench.owner, bench.offer, dict(bench.facts)
    after.core.restore(bench.facts)
    return after


def test_what_ran_is_run_again_after_a_restart() -> None:
    bench = Bench()
    bench.know()
    bench.assign(0, 1, 2)
    offer = bench.owner.head
    after = restarted(bench)
    after.tell(Heard(offer))
    after.tell(Resumed())
    assert after.duty_states() == [DutyState.ASSIGNED] * 3
    step = after.tell(DescriptorHeld(bench.offer, bench.job, True))
    assert [run.execution[1] for run in sent(step, Run)] == [0, 1]


def test_duties_of_offers_that_are_over_are_let_go_of() -> None:
    bench = Bench()
    committed(bench)
    assert [key for key in bench.facts if key.startswith(DUTY_PREFIX)]
    after = restarted(bench)
    after.tell(Resumed())  # the shell told no open offer
    assert after.duty_states() == []
    assert after.facts == {}
    assert after.core.wake_at is None


def test_results_of_an_owner_that_is_gone_are_abandoned_one_day() -> None:
    bench = Bench()
    commit = committed(bench)
    bench.tell(Heard(bench.owner.write(Seal(bench.offer, (SealEntry(0, 0, (commit.id,)),)))))
    for day in range(RETENTION_DAYS):
        bench.ms += DAY_MS
        assert bench.tell(Woke()).story == [], day
    bench.ms += DAY_MS
    (line,) = bench.tell(Woke()).story
    assert (line.step, line.text) == ("abandoned", "its owner did not end it within 30 days")
    assert bench.facts == {}


def test_a_slot_has_one_task_ready() -> None:
    assert DUTIES_PER_SLOT == 2


def test_plain_text() -> None:
    assert plain("a\n\tb  c\x1b[0m") == "a b c [0m"
    assert plain("e\u0301") == "é"
    assert len(plain("x" * 1_000)) == NOTE_CHARS_MAX
    for text in ("\u202e\u200b", "a\u0301\ud800", "🙂" * 300, "\u1100\u1161" * 200):
        check_text(plain(text))
