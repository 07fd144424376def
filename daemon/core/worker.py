"""The worker's side of a job: look at offers, claim, run what is assigned, commit, and open once sealed.

Knows the offers others made, what this node lends, and its own duties. Must never know how a task is run or how a
message travels. A duty is on disk before it is promised; a commit before it is sent.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from daemon.core.author import Author, in_events
from daemon.core.duties import DAY_MS, Duties, Duty
from daemon.core.matching import Reason, reasons_against, reasons_against_offer
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
    StoryLine,
)
from daemon.core.timers import Timers
from ledger.verdict import commit_digest
from nexapod.events import Event
from nexapod.job import Resolved
from nexapod.limits import CLAIM_VALID_MS, ENTRIES_MAX, EXECUTIONS_HELD_MAX, NOTE_CHARS_MAX, OFFERS_OPEN_MAX
from nexapod.messages import (
    AskGiveUp,
    Assignment,
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
DUTIES_MAX = 16_384  # duties kept until their owners end them; with that many no further ones are taken on
DUTIES_PER_OWNER_MAX = 4_096  # of one owner: one that never settles must not take the room of all others
OPEN_AGAIN_MS = (500, 1_000, 2_000, 4_000, 8_000, 15_000, 60_000, 300_000)  # pauses between attempts to open
OPEN_ANSWER_MS = 15_000  # a reply to an opening that has not come by then will not come
FETCH_AGAIN_MS = 600_000  # the shell has given a descriptor up by then; an owner that comes is asked again
RETENTION_DAYS = 30  # of results whose descriptor is not here


@dataclass(slots=True)
class SeenOffer:
    """Another node's open offer, and what this node thinks of it: no reasons, and it claims its tasks."""

    owner: bytes
    offer: Offer
    fetched_ms: int  # when its descriptor was last asked for
    descriptor: Resolved | None = None
    image_here: bool = False
    reasons: tuple[Reason, ...] = (Reason("fetching", "the descriptor is not here yet"),)


class Worker:
    """What this node does for others."""

    def __init__(self, author: Author, duties: Duties, capacity: Capacity) -> None:
        self._author, self.duties, self.capacity = author, duties, capacity
        self.offers: dict[bytes, SeenOffer] = {}  # OFFERS_OPEN_MAX; `_make_room` says what goes
        self._owners: Counter[bytes] = Counter()  # offers of each owner
        self._claims: Timers[bytes] = Timers()  # offer -> when a claim is to be sent (again)
        self._claim_seq = 0
        self._new_results: list[Duty] = []

    @property
    def wake_at(self) -> int | None:
        """When the next message is due."""
        times = (self._claims.next_at, self.duties.due.next_at, self.duties.days.next_at)
        return min((at for at in times if at is not None), default=None)

    # --- offers ----------------------------------------------------------------------------------------------------
    def offered(self, event: Event, step: Step, now: Now) -> None:
        """A new offer: look at its descriptor."""
        assert isinstance(event.data, Offer)
        if event.id in self.offers or not (self.duties.of_offer(event.id) or self._make_room(event.feed)):
            return
        self.offers[event.id] = seen = SeenOffer(event.feed, event.data, now.mono_ms)
        self._owners[event.feed] += 1
        self._fetch(event.id, seen, step, now)

    def _make_room(self, owner: bytes) -> bool:
        """Whether one more offer of `owner` fits. Whoever has the most gives way: one stranger must not crowd it."""
        if len(self.offers) < OFFERS_OPEN_MAX:
            return True
        most, count = self._owners.most_common(1)[0]
        if self._owners[owner] + 1 >= count:
            return False
        for offer, seen in reversed(self.offers.items()):
            if seen.owner == most and not self.duties.of_offer(offer):
                self._forget(offer)
                return True
        return False

    def _forget(self, offer: bytes) -> None:
        owner = self.offers.pop(offer).owner
        self._claims.drop(offer)
        self._owners[owner] -= 1
        if not self._owners[owner]:
            del self._owners[owner]

    def _fetch(self, offer: bytes, seen: SeenOffer, step: Step, now: Now) -> None:
        seen.fetched_ms = now.mono_ms
        step.effects.append(FetchDescriptor(offer, seen.owner, seen.offer.descriptor))

    def descriptor_held(self, news: DescriptorHeld, now: Now) -> None:
        """Now it can be said whether this node would run it."""
        seen = self.offers.get(news.offer)
        if seen is not None:
            seen.descriptor, seen.image_here = news.descriptor, news.image_here
            self._consider(news.offer, seen, now)

    def capacity_changed(self, capacity: Capacity, step: Step, now: Now) -> None:
        """Look at every offer again; what waits for a slot that will not come is handed back."""
        self.capacity = capacity
        for offer, seen in self.offers.items():
            self._consider(offer, seen, now)
        if not capacity.willing or capacity.slots == 0:
            for duty in list(self.duties.ready.values()):
                self._give_up(duty, "not-working", capacity.why_not or "this node takes no work", step)

    def peer_came(self, feed: bytes, step: Step, now: Now) -> None:
        """An owner is reachable again: claims, renewals and openings go out at once."""
        if feed in self._owners:
            for offer, seen in self.offers.items():
                if seen.owner == feed and offer in self._claims:
                    self._claims.set(offer, now.mono_ms)
                elif seen.owner == feed and not seen.descriptor and now.mono_ms >= seen.fetched_ms + FETCH_AGAIN_MS:
                    self._fetch(offer, seen, step, now)
        for duty in self.duties.all():
            if duty.owner == feed and duty.key in self.duties.due:
                self.duties.due.set(duty.key, now.mono_ms)

    def _consider(self, offer: bytes, seen: SeenOffer, now: Now) -> None:
        if seen.descriptor is None:
            return
        seen.reasons = (
            *reasons_against_offer(seen.offer, seen.descriptor),
            *reasons_against(seen.descriptor, self.capacity, image_here=seen.image_here),
        )
        if seen.reasons:
            self._claims.drop(offer)
        else:
            self._claims.set(offer, now.mono_ms)

    # --- assignments -----------------------------------------------------------------------------------------------
    def assigned(self, news: AssignmentHeard, step: Step, now: Now) -> None:
        """Take on tasks, or say why not. An assignment taken twice is taken once."""
        assignment = news.assignment
        refusal = self._refusal(assignment)
        if refusal is not None:
            step.reply = Refused(refusal.code, plain(refusal.detail))
            return
        step.reply = Done()
        for task in assignment.tasks:
            if self.duties.of_task(assignment.offer, task) is None:
                duty = Duty(
                    assignment.offer, task, assignment.round, assignment.owner, news.digest, assignment.lease_ms
                )
                self.duties.take(duty, now)

    def _refusal(self, assignment: Assignment) -> Reason | None:
        seen = self.offers.get(assignment.offer)
        if assignment.worker != self._author.feed:
            return Reason("not-me", "the assignment names another worker")
        if seen is None or seen.owner != assignment.owner:
            return Reason("unknown-offer", "no open offer of that owner is known here")
        tasks = set(assignment.tasks)
        known = [duty for task in tasks if (duty := self.duties.of_task(assignment.offer, task))]
        for duty in known:
            if duty.round != assignment.round:
                return Reason("already-mine", f"task {duty.task} is a duty of another round here")
        new = len(tasks) - len(known)
        if new and seen.reasons:
            return seen.reasons[0]
        if any(task >= seen.offer.tasks for task in tasks):
            return Reason("no-such-task", "the offer has fewer tasks")
        room = min(self.capacity.slots * DUTIES_PER_SLOT, EXECUTIONS_HELD_MAX) - self.duties.unfinished()
        if new > room:
            return Reason("busy", f"room for {max(room, 0)} more tasks now")
        if new + len(self.duties) > DUTIES_MAX or new + self.duties.count_of(assignment.owner) > DUTIES_PER_OWNER_MAX:
            return Reason("unsettled", "too much is not settled yet")
        return None

    # --- running ---------------------------------------------------------------------------------------------------
    def progressed(self, news: Progressed) -> None:
        """Note where an execution is; the next renewal tells the owner."""
        if self.duties.get(news.execution) is not None:
            self.duties.progress[news.execution] = (news.state, news.permille)

    def run_ended(self, news: RunEnded) -> None:
        """The result is on disk: hide it in a commit."""
        duty = self.duties.running.get(news.execution)
        if duty is not None and duty not in self._new_results:
            duty.root, duty.exit_code, duty.work = news.root, news.exit_code, news.work
            duty.numeric_class = self.capacity.numeric_class
            self._new_results.append(duty)

    def run_broke(self, news: RunBroke, step: Step) -> None:
        """Nothing came of it that could be a result: hand the task back."""
        duty = self.duties.running.get(news.execution)
        if duty is not None:
            self._give_up(duty, news.reason, news.detail, step)

    def _give_up(self, duty: Duty, reason: str, detail: str, step: Step) -> None:
        self.duties.drop(duty)
        step.effects.append(SendGiveUp(duty.owner, AskGiveUp(duty.offer, duty.task, duty.round, reason, plain(detail))))

    # --- what owners did -------------------------------------------------------------------------------------------
    def sealed(self, event: Event, step: Step, now: Now) -> None:
        """The owner closed a commit set; if ours is in it, the opening may go out."""
        assert isinstance(event.data, Seal)
        for entry in event.data.entries:
            duty = self.duties.get((event.data.offer, entry.task, entry.round))
            if duty and duty.owner == event.feed and duty.state == DutyState.COMMITTED and duty.commit in entry.commits:
                self.duties.move(duty, DutyState.SEALED)

    def ended(self, event: Event, step: Step) -> None:
        """The owner settled or voided tasks, or closed the job: those duties are done."""
        assert isinstance(event.data, Settle | Void | Close)
        offer = event.data.offer
        seen = self.offers.get(offer)
        if seen is None or seen.owner != event.feed:
            return
        if isinstance(event.data, Close):
            self._forget(offer)
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
                        self.duties.move(duty, DutyState.OPENED)
                    else:
                        pause = OPEN_AGAIN_MS[min(duty.open_tries, len(OPEN_AGAIN_MS) - 1)]
                        duty.open_tries += 1
                        self.duties.touch(duty)
                        self.duties.due.set(duty.key, now.mono_ms + pause)
            case SendRenew(_, offer, _):
                if isinstance(news.reply, RenewReply):
                    for task in news.reply.lost:
                        duty = self.duties.of_task(offer, task)
                        if duty and duty.unfinished:
                            self._drop(duty, step)
            case SendClaim() | SendGiveUp() | _:
                pass  # a claim is renewed anyway; a task not handed back is lost to its lease

    def _drop(self, duty: Duty, step: Step) -> None:
        if duty.state == DutyState.RUNNING:
            step.effects.append(StopRun(duty.key))
        self.duties.drop(duty)

    # --- what follows ----------------------------------------------------------------------------------------------
    def resume(self, step: Step, now: Now) -> None:
        """After a restart nothing runs any more: what ran is run again. What is over by now is let go of.

        The shell has told all open offers before, and what their owners did.
        """
        for duty in list(self.duties.all()):
            if duty.offer not in self.offers:
                self._drop(duty, step)
                continue
            self.duties.days.set(duty.key, now.mono_ms + DAY_MS)
            if duty.state == DutyState.RUNNING:
                self.duties.move(duty, DutyState.ASSIGNED)
        self.duties.line_up()

    def advance(self, step: Step, now: Now) -> None:
        """Commit new results, start what has a slot, and send what is due."""
        self._commit(step, now)
        self._start(step)
        self._claim(step, now)
        self._remind(step, now)
        self._age(step, now)
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
                    self.duties.move(by_task[entry.task], DutyState.COMMITTED)

    def _hidden(self, duty: Duty) -> bytes:
        nonce = self._author.nonce(duty.offer, duty.task, duty.round)
        hidden = Hidden(
            duty.offer, duty.task, duty.round, self._author.feed, duty.numeric_class, duty.work, duty.root, nonce
        )
        return commit_digest(self._author.netid, hidden)

    def _start(self, step: Step) -> None:
        free = self.capacity.slots - len(self.duties.running) if self.capacity.willing else 0
        for duty in list(self.duties.ready.values()) if free > 0 else ():
            seen = self.offers.get(duty.offer)
            if free > 0 and seen is not None and seen.descriptor is not None:
                self.duties.move(duty, DutyState.RUNNING)
                step.effects.append(Run(duty.key, duty.owner, seen.descriptor, seen.offer.descriptor))
                free -= 1

    def _claim(self, step: Step, now: Now) -> None:
        for offer in self._claims.due(now.mono_ms):
            # The wall clock makes the number, so that it rises over restarts; it decides nothing else.
            self._claim_seq = max(self._claim_seq + 1, now.wall_ms)
            slots = self.capacity.slots * DUTIES_PER_SLOT
            claim = Claim(self._author.feed, self.capacity.numeric_class, slots, self._claim_seq, CLAIM_VALID_MS, offer)
            step.effects.append(SendClaim(self.offers[offer].owner, claim))
            self._claims.set(offer, now.mono_ms + CLAIM_VALID_MS // 3)

    def _remind(self, step: Step, now: Now) -> None:
        """Renew leases and open sealed commits, what goes to one owner together."""
        renewals: dict[tuple[bytes, bytes], list[Progress]] = {}
        openings: dict[tuple[bytes, bytes], list[OpeningNote]] = {}
        for key in self.duties.due.due(now.mono_ms):
            duty = self.duties.get(key)
            assert duty is not None
            if duty.unfinished:
                self.duties.due.set(key, now.mono_ms + duty.renew_ms)
                entry = Progress(duty.task, duty.round, *self.duties.progress.get(key, (0, 0)))
                renewals.setdefault((duty.owner, duty.offer), []).append(entry)
            else:
                self.duties.due.set(key, now.mono_ms + OPEN_ANSWER_MS)
                openings.setdefault((duty.owner, duty.offer), []).append(self._opening(duty))
        for (owner, offer), entries in renewals.items():
            step.effects += [SendRenew(owner, offer, group) for group in _in_groups(entries)]
        for (owner, offer), notes in openings.items():
            step.effects += [SendOpen(owner, offer, group) for group in _in_groups(notes)]

    def _opening(self, duty: Duty) -> OpeningNote:
        assert duty.commit is not None
        nonce = self._author.nonce(duty.offer, duty.task, duty.round)
        return OpeningNote(duty.task, duty.round, duty.commit, nonce, duty.numeric_class, duty.work, duty.root)

    def _age(self, step: Step, now: Now) -> None:
        """Count days; results of an owner that is gone for good are not kept for ever."""
        for key in self.duties.days.due(now.mono_ms):
            duty = self.duties.get(key)
            assert duty is not None
            seen = self.offers.get(duty.offer)
            kept_days = seen.descriptor.retention_days if seen and seen.descriptor else RETENTION_DAYS
            duty.days += 1
            if duty.days > kept_days and not duty.unfinished:
                text = f"its owner did not end it within {kept_days} days"
                step.story.append(StoryLine(duty.offer, "abandoned", duty.task, self._author.feed, text))
                self._drop(duty, step)
            else:
                self.duties.touch(duty)
                self.duties.days.set(key, now.mono_ms + DAY_MS)

    def running(self) -> Iterator[ExecutionKey]:
        """Executions that should be running now."""
        return iter(self.duties.running)


def _in_groups(entries: list[T]) -> list[tuple[T, ...]]:
    return [tuple(entries[start : start + ENTRIES_MAX]) for start in range(0, len(entries), ENTRIES_MAX)]


def plain(text: str) -> str:
    """Text as it may stand in a message: one line, in normal form, bounded."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return unicodedata.normalize("NFC", " ".join(printable.split()))[:NOTE_CHARS_MAX]
