"""The worker's side of a job: look at offers, claim, run what is assigned, commit, and open once sealed.

Knows the offers others made, what this node lends, and its own duties. Must never know how a task is run or how a
message travels. A duty is on disk before it is promised; a commit before it is sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from daemon.core.author import Author, in_events
from daemon.core.duties import Duties, Duty
from daemon.core.matching import Reason, reasons_against
from daemon.core.states import DutyState
from daemon.core.step import (
    Answered,
    AssignmentHeard,
    Capacity,
    DescriptorHeld,
    ExecutionKey,
    FetchDescriptor,
    Now,
    Progressed,
    Run,
    RunBroke,
    RunEnded,
    SendClaim,
    SendGiveUp,
    SendOpen,
    SendRenew,
    Step,
    StopRun,
)
from ledger.verdict import commit_digest
from nexapod.events import Event
from nexapod.job import Resolved
from nexapod.limits import CLAIM_VALID_MS, ENTRIES_MAX, EXECUTIONS_HELD_MAX, NOTE_CHARS_MAX, OFFERS_OPEN_MAX
from nexapod.messages import (
    AskGiveUp,
    Claim,
    Close,
    Commit,
    CommitEntry,
    Done,
    Hidden,
    Offer,
    OpeningNote,
    Progress,
    Refused,
    RenewReply,
    Seal,
    Settle,
    Void,
)

T = TypeVar("T")
DUTIES_PER_SLOT = 2  # one running, one ready to start: a slot never waits for a round trip
OPEN_AGAIN_MS = (500, 1_000, 2_000, 4_000, 8_000, 15_000)  # pauses between attempts to hand over an opening


@dataclass(slots=True)
class SeenOffer:
    """Another node's open offer, and what this node thinks of it. `claim_due`: monotonic ms; None: no claim wanted."""

    owner: bytes
    offer: Offer
    descriptor: Resolved | None = None
    image_here: bool = False
    reasons: tuple[Reason, ...] = (Reason("fetching", "the descriptor is not here yet"),)
    claim_due: int | None = None


class Worker:
    """What this node does for others."""

    def __init__(self, author: Author, duties: Duties, capacity: Capacity) -> None:
        self._author, self.duties, self.capacity = author, duties, capacity
        self.offers: dict[bytes, SeenOffer] = {}  # OFFERS_OPEN_MAX; later ones wait until the node hears them again
        self._claim_seq = 0
        self._new_results: list[Duty] = []
        self.wake_at: int | None = None

    # --- offers ----------------------------------------------------------------------------------------------------
    def offered(self, event: Event, step: Step) -> None:
        """A new offer: look at its descriptor."""
        assert isinstance(event.data, Offer)
        if event.id in self.offers or len(self.offers) >= OFFERS_OPEN_MAX:
            return
        self.offers[event.id] = SeenOffer(event.feed, event.data)
        step.effects.append(FetchDescriptor(event.id, event.feed, event.data.descriptor))

    def descriptor_held(self, news: DescriptorHeld) -> None:
        """Now it can be said whether this node would run it."""
        seen = self.offers.get(news.offer)
        if seen is not None:
            seen.descriptor, seen.image_here = news.descriptor, news.image_here
            self._consider(seen)

    def capacity_changed(self, capacity: Capacity) -> None:
        """Look at every offer again."""
        self.capacity = capacity
        for seen in self.offers.values():
            self._consider(seen)

    def peer_came(self, feed: bytes) -> None:
        """An owner is reachable again: claims, renewals and openings go out at once."""
        for seen in self.offers.values():
            if seen.owner == feed and seen.claim_due is not None:
                seen.claim_due = 0
        for duty in self.duties.all():
            if duty.owner == feed:
                self.duties.due_now(duty)

    def _consider(self, seen: SeenOffer) -> None:
        if seen.descriptor is None:
            return
        seen.reasons = reasons_against(seen.descriptor, self.capacity, image_here=seen.image_here)
        seen.claim_due = None if seen.reasons else 0

    # --- assignments -----------------------------------------------------------------------------------------------
    def assigned(self, news: AssignmentHeard, step: Step, now: Now) -> None:
        """Take on tasks, or say why not. An assignment taken twice is taken once."""
        assignment = news.assignment
        seen = self.offers.get(assignment.offer)
        refusal = self._refusal(news, seen)
        if refusal is not None or seen is None:
            step.reply = refusal
            return
        step.reply = Done()
        for task in assignment.tasks:
            key = (assignment.offer, task, assignment.round)
            if self.duties.of_task(assignment.offer, task) is None:
                duty = Duty(
                    assignment.offer, task, assignment.round, assignment.owner, news.digest, assignment.lease_ms
                )
                self.duties.take(key, duty, now)

    def _refusal(self, news: AssignmentHeard, seen: SeenOffer | None) -> Refused | None:
        assignment = news.assignment
        if seen is None or seen.owner != assignment.owner:
            return Refused("unknown-offer", "no open offer of that owner is known here")
        if assignment.worker != self._author.feed:
            return Refused("not-me", "the assignment names another worker")
        if seen.reasons:
            return Refused(seen.reasons[0].code, seen.reasons[0].detail)
        new = [task for task in assignment.tasks if self.duties.of_task(assignment.offer, task) is None]
        for task in set(assignment.tasks) - set(new):
            if self.duties.get((assignment.offer, task, assignment.round)) is None:
                return Refused("already-mine", f"task {task} is a duty of another round here")
        if any(task >= seen.offer.tasks for task in assignment.tasks):
            return Refused("no-such-task", "the offer has fewer tasks")
        room = min(self.capacity.slots * DUTIES_PER_SLOT, EXECUTIONS_HELD_MAX) - self.duties.unfinished()
        if len(new) > room:
            return Refused("busy", f"room for {max(room, 0)} more tasks now")
        return None

    # --- running ---------------------------------------------------------------------------------------------------
    def progressed(self, news: Progressed) -> None:
        """Note where an execution is; the next renewal tells the owner."""
        if self.duties.get(news.execution) is not None:
            self.duties.progress[news.execution] = (news.state, news.permille)

    def run_ended(self, news: RunEnded, step: Step, now: Now) -> None:
        """The result is on disk: hide it in a commit."""
        duty = self.duties.get(news.execution)
        if duty is None or duty.state != DutyState.RUNNING:
            return
        duty.root, duty.exit_code, duty.work = news.root, news.exit_code, news.work
        duty.numeric_class = self.capacity.numeric_class
        self._new_results.append(duty)

    def run_broke(self, news: RunBroke, step: Step) -> None:
        """Nothing came of it that could be a result: hand the task back."""
        duty = self.duties.get(news.execution)
        if duty is None or duty.state != DutyState.RUNNING:
            return
        self.duties.drop(duty.key)
        ask = AskGiveUp(duty.offer, duty.task, duty.round, news.reason, _plain(news.detail))
        step.effects.append(SendGiveUp(duty.owner, ask))

    # --- what owners did -------------------------------------------------------------------------------------------
    def sealed(self, event: Event, step: Step, now: Now) -> None:
        """The owner closed a commit set; if ours is in it, the opening may go out."""
        assert isinstance(event.data, Seal)
        for entry in event.data.entries:
            duty = self.duties.get((event.data.offer, entry.task, entry.round))
            if duty and duty.owner == event.feed and duty.state == DutyState.COMMITTED and duty.commit in entry.commits:
                duty.move(DutyState.SEALED)
                self.duties.due_now(duty)

    def ended(self, event: Event, step: Step) -> None:
        """The owner settled or voided tasks, or closed the job: those duties are done."""
        assert isinstance(event.data, Settle | Void | Close)
        offer = event.data.offer
        seen = self.offers.get(offer)
        if seen is None or seen.owner != event.feed:
            return
        if isinstance(event.data, Close):
            del self.offers[offer]
            tasks = None
        else:
            tasks = {entry.task for entry in event.data.entries}
        for duty in self.duties.of_offer(offer):
            if tasks is None or duty.task in tasks:
                self._drop(duty, step)

    def answered(self, news: Answered, step: Step, now: Now) -> None:
        """What owners replied."""
        match news.effect:
            case SendOpen(_, offer, entries):
                for note in entries:
                    duty = self.duties.get((offer, note.task, note.round))
                    if duty is None or duty.state != DutyState.SEALED:
                        continue
                    if isinstance(news.reply, Done):
                        duty.move(DutyState.OPENED)
                    else:
                        pause = OPEN_AGAIN_MS[min(duty.open_tries, len(OPEN_AGAIN_MS) - 1)]
                        duty.open_tries += 1
                        self.duties.due_at(duty, now.mono_ms + pause)
            case SendRenew(_, offer, _):
                if isinstance(news.reply, RenewReply):
                    for task in news.reply.lost:
                        duty = self.duties.of_task(offer, task)
                        if duty and duty.state in (DutyState.ASSIGNED, DutyState.RUNNING):
                            self._drop(duty, step)
            case SendClaim() | SendGiveUp() | _:
                pass  # a claim is renewed anyway; a task not handed back is lost to its lease

    def _drop(self, duty: Duty, step: Step) -> None:
        if duty.state == DutyState.RUNNING:
            step.effects.append(StopRun(duty.key))
        self.duties.drop(duty.key)

    # --- what follows ----------------------------------------------------------------------------------------------
    def resume(self) -> None:
        """After a restart nothing runs any more: what ran is run again."""
        for duty in self.duties.all():
            if duty.state == DutyState.RUNNING:
                duty.move(DutyState.ASSIGNED)

    def advance(self, step: Step, now: Now) -> None:
        """Commit new results, start what has a slot, and send what is due."""
        self.wake_at = None
        self._commit(step, now)
        self._start(step)
        self._claim(step, now)
        self._renew(step, now)
        self._open(step, now)
        self.duties.record(step)

    def _commit(self, step: Step, now: Now) -> None:
        groups: dict[tuple[bytes, bytes], list[Duty]] = {}
        for duty in self._new_results:
            if self.duties.get(duty.key) is duty:
                groups.setdefault((duty.offer, duty.assignment), []).append(duty)
        self._new_results = []
        for (offer, assignment), duties in groups.items():
            by_task = {duty.task: duty for duty in duties}
            entries = [CommitEntry(duty.task, duty.round, self._hidden(duty)) for duty in duties]
            for group in in_events(entries):
                event = self._author.append(step, Commit(offer, assignment, group), now)
                for entry in group:
                    by_task[entry.task].commit = event.id
                    by_task[entry.task].move(DutyState.COMMITTED)

    def _hidden(self, duty: Duty) -> bytes:
        nonce = self._author.nonce(duty.offer, duty.task, duty.round)
        hidden = Hidden(
            duty.offer, duty.task, duty.round, self._author.feed, duty.numeric_class, duty.work, duty.root, nonce
        )
        return commit_digest(self._author.netid, hidden)

    def _start(self, step: Step) -> None:
        free = self.capacity.slots - sum(duty.state == DutyState.RUNNING for duty in self.duties.all())
        for duty in list(self.duties.all()):
            seen = self.offers.get(duty.offer)
            if free <= 0 or duty.state != DutyState.ASSIGNED or seen is None or seen.descriptor is None:
                continue
            duty.move(DutyState.RUNNING)
            step.effects.append(Run(duty.key, duty.owner, seen.descriptor, seen.offer.descriptor))
            free -= 1

    def _claim(self, step: Step, now: Now) -> None:
        for offer_id, seen in self.offers.items():
            if seen.claim_due is None:
                continue
            if seen.claim_due <= now.mono_ms:
                self._claim_seq = max(self._claim_seq + 1, now.wall_ms)
                slots = self.capacity.slots * DUTIES_PER_SLOT
                claim = Claim(
                    self._author.feed, self.capacity.numeric_class, slots, self._claim_seq, CLAIM_VALID_MS, offer_id
                )
                step.effects.append(SendClaim(seen.owner, claim))
                seen.claim_due = now.mono_ms + CLAIM_VALID_MS // 3
            self._wake(seen.claim_due)

    def _renew(self, step: Step, now: Now) -> None:
        due: dict[tuple[bytes, bytes], list[Progress]] = {}
        for duty in self.duties.all():
            if duty.state not in (DutyState.ASSIGNED, DutyState.RUNNING):
                continue
            if self.duties.is_due(duty, now):
                self.duties.due_at(duty, now.mono_ms + duty.lease_ms // 3)
                entry = Progress(duty.task, duty.round, *self.duties.progress.get(duty.key, (0, 0)))
                due.setdefault((duty.owner, duty.offer), []).append(entry)
            self._wake(self.duties.when(duty))
        for (owner, offer), entries in due.items():
            for group in _in_groups(entries):
                step.effects.append(SendRenew(owner, offer, group))

    def _open(self, step: Step, now: Now) -> None:
        due: dict[tuple[bytes, bytes], list[OpeningNote]] = {}
        for duty in self.duties.all():
            if duty.state != DutyState.SEALED:
                continue
            if self.duties.is_due(duty, now):
                # The reply decides what comes next; this pause only covers a reply that never comes.
                self.duties.due_at(duty, now.mono_ms + OPEN_AGAIN_MS[-1])
                nonce = self._author.nonce(duty.offer, duty.task, duty.round)
                assert duty.commit is not None
                note = OpeningNote(duty.task, duty.round, duty.commit, nonce, duty.numeric_class, duty.work, duty.root)
                due.setdefault((duty.owner, duty.offer), []).append(note)
            self._wake(self.duties.when(duty))
        for (owner, offer), notes in due.items():
            for group in _in_groups(notes):
                step.effects.append(SendOpen(owner, offer, group))

    def _wake(self, at_ms: int) -> None:
        if self.wake_at is None or at_ms < self.wake_at:
            self.wake_at = at_ms

    def running(self) -> Iterator[ExecutionKey]:
        """Executions that should be running now."""
        return (duty.key for duty in self.duties.all() if duty.state == DutyState.RUNNING)


def _in_groups(entries: list[T]) -> list[tuple[T, ...]]:
    return [tuple(entries[start : start + ENTRIES_MAX]) for start in range(0, len(entries), ENTRIES_MAX)]


def _plain(text: str) -> str:
    """Text as it may stand in a message: one line, bounded."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:NOTE_CHARS_MAX]
