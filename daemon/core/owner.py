"""The owner's side of a job: offer, draw, assign, seal, judge, settle.

Knows its own jobs, the claims for them, and what workers committed and opened. Must never know how a message travels,
how a task is run, or whether a credit is final. `advance` makes every progress a job can make; whatever happens first
only notes what is new, so late and repeated news changes nothing.
"""

from collections.abc import Callable
from typing import TypeAlias

from daemon.core.author import Author, in_events
from daemon.core.drawing import draw
from daemon.core.matching import terms_of
from daemon.core.openings import WITHHELD, names_of, openings_of, opens_late, sealed_of
from daemon.core.ownerbook import IN_HAND, Book, Execution, Job, Task
from daemon.core.states import TERMINAL_TASKS, ExecutionState, JobState, TaskState
from daemon.core.step import (
    Answered,
    Cancelled,
    ClaimHeard,
    FetchOutputs,
    GaveUp,
    Now,
    OpeningsHeard,
    OutputsHeld,
    OutputsMissing,
    Published,
    RenewalHeard,
    SendAssign,
    Spread,
    Step,
)
from ledger.verdict import (
    Agreed,
    Case,
    Operators,
    award,
    evidence,
    note_opens,
    seed_commitment,
    tally,
)
from nexapod.events import Event
from nexapod.hashing import Tag
from nexapod.limits import ENTRIES_MAX, EXECUTIONS_HELD_MAX, EXECUTIONS_MAX, NOTE_CHARS_MAX
from nexapod.messages import (
    Assignment,
    Close,
    Commit,
    Done,
    Independence,
    Opening,
    Refused,
    RenewReply,
    Seal,
    SealEntry,
    Settle,
    Verdict,
    Void,
    Voided,
)

FETCH_TRIES = 12  # attempts to get agreed outputs, about five minutes, before the executions count as withheld
FETCH_AGAIN_MS, FETCH_AGAIN_MS_MAX = 1_000, 30_000  # first pause between them, and the longest
WEIGHT_MAX = 64  # slots that count in the draw: whoever only says it lends thousands gains nothing
FIRM_AGAIN_MS, FIRM_AGAIN_MS_MAX = 200, 30_000  # pause before it is looked again whether commits are firm by now
FIRM_MS = 600_000  # a commit that is not firm by then, while others of its task are, will never be
FIRM_MS_MAX = 86_400_000  # nor one that is not by then; until then the witnesses may only be off line
SCORES_PER_STEP = 4_000  # candidates weighed in one step, some 10 ms; what is left follows in the next
_VERDICT_STATE = {
    Verdict.FAILED: TaskState.FAILED,
    Verdict.DISPUTED: TaskState.DISPUTED,
    Verdict.UNSERVED: TaskState.FAILED,
    Verdict.CANCELLED: TaskState.CANCELLED,
}

End: TypeAlias = tuple[Task, Verdict, str]
Firm: TypeAlias = Callable[[bytes], bool]
Found: TypeAlias = tuple[Job | None, Task | None, Execution | None]


class Owner:
    """All jobs this node owns. `operators` tells which feeds one operator answers for, `firm` whether a commit counts.

    An event that names a commit which is never certified would hold up this node's feed for ever. So a settlement
    waits until the commits it names are firm; all that comes before it does not.
    """

    def __init__(self, author: Author, book: Book, lease_ms: int, operators: Operators, firm: Firm) -> None:
        self._author, self.book, self._lease_ms, self._operators = author, book, lease_ms, operators
        self._firm = firm

    # --- what happened ---------------------------------------------------------------------------------------------
    def resume(self, step: Step) -> None:
        """After a restart: hand over again what may never have been sent."""
        for job in self.book.open.values():
            step.effects.append(_spread(job))
            unconfirmed: dict[tuple[bytes, int], list[int]] = {}
            for task in job.tasks:
                for execution in task.executions:
                    if execution.state == ExecutionState.ASSIGNED:
                        unconfirmed.setdefault((execution.worker, execution.round), []).append(task.index)
            self._send_assignments(job, unconfirmed, step)

    def published(self, news: Published, step: Step, now: Now) -> None:
        """Append the offer; assigning begins once claims had time to arrive."""
        offer = terms_of(news.descriptor, news.descriptor_hash, seed_commitment(news.seed))
        event = self._author.append(step, offer, now)
        job = self.book.add(event.id, offer, news.descriptor, news.seed, now)
        step.offer = event.id
        step.effects.append(_spread(job))
        text = f"{offer.tasks} task{'s' * (offer.tasks != 1)}, {offer.replicas} replicas each"
        self._tell(step, job, "offer", None, self._author.feed, text)

    def cancelled(self, news: Cancelled, step: Step, now: Now) -> None:
        """Void what is not over yet; `advance` closes the job."""
        job = self.book.open.get(news.offer)
        if job is None:
            step.reply = Refused("not-open", "no open job of this node has that id")
            return
        job.cancelled = True
        ends = [
            (task, Verdict.CANCELLED, "taken back by its owner")
            for task in job.tasks
            if task.state not in TERMINAL_TASKS
        ]
        self._void(job, ends, step, now)
        step.reply = Done()

    def claim_heard(self, news: ClaimHeard, step: Step, now: Now) -> None:
        """Remember who stands ready; `advance` draws among them."""
        claim = news.claim
        job = self.book.open.get(claim.offer) if claim.offer else None
        if job is None or claim.feed == self._author.feed or not claim.slots:
            return
        if self.book.claimed(job, claim, now):
            text = f"stands ready with {claim.slots} slot{'s' * (claim.slots != 1)}"
            self._tell(step, job, "claim", None, claim.feed, text)

    def forked(self, feed: bytes, step: Step, now: Now) -> None:
        """A feed contradicted itself: what is not firm yet of what it said will never be, so nothing may rest on it."""
        if feed in self.book.forked:
            return
        self.book.forked.add(feed)
        for job in self.book.open.values():
            for task in job.tasks:
                for execution in task.executions:
                    standing = execution.worker == feed and execution.state < ExecutionState.SETTLED
                    if standing and not (execution.commit and self._firm(execution.commit)):
                        self._lose(job, task, execution, "its feed forked", step, now)
                        if task.state == TaskState.AGREED:
                            self._reopen(job, task)

    def committed(self, event: Event, step: Step, now: Now) -> None:
        """A worker bound itself to results."""
        assert isinstance(event.data, Commit)
        for entry in event.data.entries:
            job, task, execution = self._taken_up(event.data.offer, entry.task, event.feed, entry.round, now)
            if job and task and execution and execution.state in IN_HAND:
                self._move(job, task, execution, ExecutionState.COMMITTED, now)
                execution.commit, execution.digest = event.id, entry.digest
                self._tell(step, job, "commit", task, event.feed, "bound itself to a result")

    def renewed(self, news: RenewalHeard, step: Step, now: Now) -> None:
        """Extend the leases of work still wanted, and name the work that is not."""
        lost = []
        for entry in news.ask.entries:
            job, task, execution = self._taken_up(news.ask.offer, entry.task, news.worker, entry.round, now)
            if job is None or task is None or execution is None or execution.state == ExecutionState.LOST:
                lost.append(entry.task)
            elif execution.state in IN_HAND:
                self._confirmed(job, task, execution, step, now)
                self.book.renew(job, task, execution, self._lease_ms, now)
                job.progress[task.index, news.worker] = entry.permille
            elif task.state in TERMINAL_TASKS:
                lost.append(entry.task)
        step.reply = RenewReply(tuple(lost))

    def opened(self, news: OpeningsHeard, step: Step, now: Now) -> None:
        """Take openings that match their commits; one that does not match ends its execution."""
        if news.ask.offer not in self.book.jobs:
            step.reply = Refused("unknown-offer", "this node does not own that offer")
            return
        step.reply = Done()
        for note in news.ask.entries:
            job, task, execution = self._attempt(news.ask.offer, note.task, news.worker, note.round)
            if job is None or task is None or execution is None or execution.commit != note.commit:
                step.reply = Refused("unknown-commit", f"task {note.task} has no such commit of yours")
                continue
            if not opens_late(task, execution, note) and execution.state != ExecutionState.SEALED:
                continue
            if note_opens(self._case(job), sealed_of(task, execution), note):
                execution.opening, execution.why = note, ""
                self._move(job, task, execution, ExecutionState.OPENED, now)
                self._tell(step, job, "open", task, news.worker, f"result {note.root.hex()[:12]}")
            elif execution.state == ExecutionState.SEALED:
                self._lose(job, task, execution, "its opening does not match its commit", step, now)

    def gave_up(self, news: GaveUp, step: Step, now: Now) -> None:
        """A worker handed a task back."""
        step.reply = Done()
        job, task, execution = self._attempt(news.ask.offer, news.ask.task, news.worker, news.ask.round)
        if job and task and execution and execution.state in IN_HAND:
            self._lose(job, task, execution, f"{news.ask.reason}: {news.ask.detail}", step, now)

    def assign_answered(self, news: Answered, step: Step, now: Now) -> None:
        """A worker took an assignment, refused it, or could not be reached."""
        sent = news.effect
        assert isinstance(sent, SendAssign)
        assignment, worker = sent.assignment, sent.worker
        why = news.reply.detail if isinstance(news.reply, Refused) else "could not be reached"
        refused = False
        for index in assignment.tasks:
            job, task, execution = self._attempt(assignment.offer, index, worker, assignment.round)
            if job is None or task is None or execution is None or execution.state != ExecutionState.ASSIGNED:
                continue
            if isinstance(news.reply, Done):
                self._confirmed(job, task, execution, step, now)
            else:
                refused = True
                self.book.unassign(job, task, execution)
                if news.reply is None:
                    job.unheard[index, worker] = assignment.round
                if task.state == TaskState.RUNNING:
                    task.move(TaskState.WAITING)
                self._tell(step, job, "refuse", task, worker, why)
        job = self.book.open.get(assignment.offer)
        if job is None:
            return
        if isinstance(news.reply, Done):
            job.refusals.pop(worker, None)
            if worker in job.at_most:
                job.at_most[worker] *= 2
        elif refused:
            # Perhaps it has room for some of them: it is asked for half as many next time.
            job.at_most[worker] = max(1, len(assignment.tasks) // 2)
            self.book.put_off(job, worker, now)

    def outputs_held(self, news: OutputsHeld) -> None:
        """The agreed bytes are here and checked: settle, or fail when the program itself failed everywhere."""
        if (found := self._agreed_task(news)) is not None:
            job, task = found
            task.exit_code = news.exit_code
            job.touch(task)

    def outputs_missing(self, news: OutputsMissing, step: Step, now: Now) -> None:
        """Try the next holder; when none delivers, the agreeing executions count as withheld."""
        found = self._agreed_task(news)
        if found is None:
            return
        job, task = found
        pause = min(FETCH_AGAIN_MS << task.fetch_tries, FETCH_AGAIN_MS_MAX)
        task.fetching = False
        task.fetch_tries += 1
        job.touch(task)
        if task.fetch_tries < FETCH_TRIES:
            job.again.set(task.index, now.mono_ms + pause)
            return
        for execution in task.executions:
            if execution.state == ExecutionState.OPENED and execution.opening and execution.opening.root == task.root:
                self._lose(job, task, execution, f"its outputs could not be fetched: {news.why}", step, now)
        self._reopen(job, task)

    # --- what follows ----------------------------------------------------------------------------------------------
    def advance(self, step: Step, now: Now) -> None:
        """Make every progress that is possible now, in all jobs."""
        self.book.wake_at = None
        for job in self.book.open.values():
            if job.gather_until is None:
                self.book.wind(job, self._lease_ms, now)
            self._expire(job, step, now)
            self._progress(job, step, now)
            self._assign(job, step, now)
            self._end_unserved(job, step, now)
            self._progress(job, step, now)
            self._close(job, step, now)
        self.book.record(step, now)
        for job in self.book.open.values():
            self._wake(job, now)

    def _wake(self, job: Job, now: Now) -> None:
        assert job.gather_until is not None
        if job.vacant and job.stirred != self.book.stir:
            self.book.wake(max(job.gather_until, now.mono_ms + 1))
        for timers in (job.leases, job.waiting, job.again, job.put_off):
            self.book.wake(timers.next_at)

    def _expire(self, job: Job, step: Step, now: Now) -> None:
        for index, worker in job.leases.due(now.mono_ms):
            task = job.tasks[index]
            for execution in task.executions:
                if execution.worker == worker:
                    withheld = execution.state == ExecutionState.SEALED
                    self._lose(job, task, execution, WITHHELD if withheld else "its lease ran out", step, now)
        for index in job.again.due(now.mono_ms):
            job.look[index] = None
        if job.put_off.due(now.mono_ms):
            self.book.stir += 1

    def _progress(self, job: Job, step: Step, now: Now) -> None:
        """Take every task something happened to as far as it goes."""
        while job.look:
            tasks = [job.tasks[index] for index in job.look]
            job.look = {}
            self._seal(job, tasks, step, now)
            self._judge(job, tasks, step, now)
            self._settle(job, tasks, step, now)
            for task in tasks:
                self._wait(job, task, now)
            self._void(job, [_exhausted(task) for task in tasks if _is_exhausted(job, task)], step, now)

    def _wait(self, job: Job, task: Task, now: Now) -> None:
        """Keep `vacant` and `waiting` in step with a task. Waiting goes on until all executors have confirmed."""
        job.sort(task)
        unconfirmed = any(execution.state == ExecutionState.ASSIGNED for execution in task.live())
        if not job.vacancies(task) and not unconfirmed:
            job.waiting.drop(task.index)
        elif task.index not in job.waiting:
            job.waiting.set(task.index, now.mono_ms + job.resolved.queue_ms)

    def _end_unserved(self, job: Job, step: Step, now: Now) -> None:
        ends: list[End] = []
        for index in job.waiting.due(now.mono_ms):
            if job.vacancies(job.tasks[index]):
                ends.append((job.tasks[index], Verdict.UNSERVED, "no node took it in time"))
            else:  # someone has it and may yet say yes; if not, its lease ends before this does
                job.waiting.set(index, now.mono_ms + self._lease_ms)
        self._void(job, ends, step, now)

    def _assign(self, job: Job, step: Step, now: Now) -> None:
        """Draw executors. Tasks that others already hold go first; alike ones are given up together."""
        assert job.gather_until is not None
        if now.mono_ms < job.gather_until or not job.vacant or job.stirred == self.book.stir:
            return
        room = self._room(job, now)
        drawn: dict[tuple[bytes, int], list[int]] = {}
        scores = 0
        for served in sorted(job.vacant, key=lambda served: -len(served[1])):
            for index in list(job.vacant[served]):
                weights = {feed: min(slots, WEIGHT_MAX) for feed, slots in room.items() if feed not in served[0]}
                scores += len(weights)
                chosen = self._draw(job, job.tasks[index], weights)
                for worker in chosen:
                    self._hand_out(job, job.tasks[index], worker, room, now)
                    drawn.setdefault((worker, job.tasks[index].round), []).append(index)
                if not chosen or scores >= SCORES_PER_STEP:
                    break
        for index in job.look:
            self._wait(job, job.tasks[index], now)
        job.look = {}
        job.stirred = self.book.stir if scores < SCORES_PER_STEP else -1
        for (worker, round_), tasks in drawn.items():
            for index in tasks:
                self._tell(step, job, "assign", job.tasks[index], worker, f"round {round_}")
        self._send_assignments(job, drawn, step)

    def _hand_out(self, job: Job, task: Task, worker: bytes, room: dict[bytes, int], now: Now) -> None:
        self.book.hand_out(job, task, worker, self._lease_ms, now)
        room[worker] -= 1
        if room[worker] == 0:
            del room[worker]
        if job.vacancies(task) == 0:
            task.move(TaskState.RUNNING)

    def _room(self, job: Job, now: Now) -> dict[bytes, int]:
        """How many more tasks each claimant takes now; what it has of this owner's other jobs counts too."""
        room = {}
        for claim in self.book.standing(job, now):
            free = min(claim.slots, EXECUTIONS_HELD_MAX) - self.book.in_hand[claim.feed]
            free = min(free, job.at_most.get(claim.feed, free))
            if free > 0:
                room[claim.feed] = free
        return room

    def _draw(self, job: Job, task: Task, weights: dict[bytes, int]) -> list[bytes]:
        """The first drawn feeds no two of which, nor any standing executor, answer to one operator."""
        case, vacancies = self._case(job), job.vacancies(task)
        taken: set[bytes] = set()
        if job.offer.independence is Independence.OPERATOR:
            taken |= names_of(case, self._author.feed)  # what the owner's own operator finds convinces nobody
        for execution in task.executions:
            if execution.state != ExecutionState.LOST:
                taken |= names_of(case, execution.worker)
        chosen: list[bytes] = []
        for feed in draw(job.seed, task.index, weights):
            if len(chosen) < vacancies and taken.isdisjoint(names := names_of(case, feed)):
                chosen.append(feed)
                taken |= names
        return chosen

    def _send_assignments(self, job: Job, drawn: dict[tuple[bytes, int], list[int]], step: Step) -> None:
        for (worker, round_), tasks in drawn.items():
            for start in range(0, len(tasks), ENTRIES_MAX):
                group = tuple(tasks[start : start + ENTRIES_MAX])
                assignment = Assignment(self._author.feed, worker, job.offer_id, round_, self._lease_ms, group)
                step.effects.append(SendAssign(worker, assignment, self._author.sign(Tag.ASSIGNMENT, assignment)))
        if drawn and job.state == JobState.QUEUED:
            job.move(JobState.RUNNING)

    def _seal(self, job: Job, tasks: list[Task], step: Step, now: Now) -> None:
        entries = []
        for task in tasks:
            current = task.live()
            if task.state != TaskState.RUNNING or task.sealed >= task.round:
                continue
            if any(execution.state != ExecutionState.COMMITTED for execution in current):
                continue
            for execution in current:
                self._move(job, task, execution, ExecutionState.SEALED, now)
            task.sealed = task.round
            commits = sorted(execution.commit for execution in current if execution.commit is not None)
            entries.append(SealEntry(task.index, task.round, tuple(commits)))
            self._tell(step, job, "seal", task, self._author.feed, f"{len(commits)} commits of round {task.round}")
        for group in in_events(entries):
            self._author.append(step, Seal(job.offer_id, group), now)

    def _judge(self, job: Job, tasks: list[Task], step: Step, now: Now) -> None:
        """Look for agreement once every sealed commit is open; an opening that comes late may end a round early."""
        for task in tasks:
            if task.state in (TaskState.WAITING, TaskState.RUNNING) and not task.pending():
                opened = openings_of(task)
                found = {commit_id: (sealed, note.root) for commit_id, (sealed, note) in opened.items()}
                verdict = tally(self._case(job), found) if found else None
                if isinstance(verdict, Agreed):
                    task.move(TaskState.AGREED)
                    task.root = verdict.root
                    job.touch(task)
                elif task.sealed >= task.round:
                    self._another_round(job, task, step, now)
            if task.state == TaskState.AGREED and task.exit_code is None and not task.fetching:
                self._fetch(job, task, step)

    def _another_round(self, job: Job, task: Task, step: Step, now: Now) -> None:
        sealed = task.sealed_count()
        if sealed < job.offer.executions_max and task.round + 1 < EXECUTIONS_MAX:
            task.round += 1
            task.move(TaskState.WAITING)
            job.touch(task)
            self._tell(step, job, "dispute", task, self._author.feed, "no agreement yet: one more execution")
        else:
            roots = len({note.root for _, note in openings_of(task).values()})
            self._void(
                job, [(task, Verdict.DISPUTED, f"{roots} different results from {sealed} executions")], step, now
            )

    def _fetch(self, job: Job, task: Task, step: Step) -> None:
        if task.index in job.again:
            return
        holders = [sealed.worker for sealed, note in openings_of(task).values() if note.root == task.root]
        assert task.root is not None
        task.fetching = True
        job.changed[task.index] = None
        worker = holders[task.fetch_tries % len(holders)]
        step.effects.append(FetchOutputs(job.offer_id, task.index, task.root, worker))

    def _settle(self, job: Job, tasks: list[Task], step: Step, now: Now) -> None:
        entries = []
        failed: list[End] = []
        for task in tasks:
            if task.state != TaskState.AGREED or task.exit_code is None or not self._is_firm(job, task, step, now):
                continue
            assert task.root is not None
            if task.exit_code != 0:
                failed.append((task, Verdict.FAILED, f"the program ended with exit code {task.exit_code}"))
                continue
            opened = openings_of(task)
            agreeing = tuple(sealed for sealed, note in opened.values() if note.root == task.root)
            left = job.offer.price * job.offer.executions_max  # the lock holds as much for every task
            entries.append(award(self._case(job), Agreed(task.root, agreeing), opened, left))
            text = f"{len(agreeing)} executions agree on {task.root.hex()[:12]}"
            self._tell(step, job, "settle", task, self._author.feed, text)
            self._end(job, task, TaskState.SETTLED, step, now)
        for group in in_events(entries):
            self._author.append(step, Settle(job.offer_id, group), now)
        self._void(job, failed, step, now)

    def _is_firm(self, job: Job, task: Task, step: Step, now: Now) -> bool:
        """Whether every commit a settlement would name is firm; those that never will be are left behind in the end."""
        opened = [execution for execution in task.executions if execution.state == ExecutionState.OPENED]
        loose = [execution for execution in opened if execution.commit and not self._firm(execution.commit)]
        waited = now.mono_ms - job.firm_since.setdefault(task.index, now.mono_ms)
        if loose and waited < (FIRM_MS if len(loose) < len(opened) else FIRM_MS_MAX):
            pause = min(max(FIRM_AGAIN_MS, waited // 4), FIRM_AGAIN_MS_MAX)
            job.again.set(task.index, now.mono_ms + pause)
            return False
        del job.firm_since[task.index]
        for execution in loose:
            self._lose(job, task, execution, "its commit was never certified", step, now)
        if loose:
            self._reopen(job, task)
        return not loose

    def _void(self, job: Job, ends: list[End], step: Step, now: Now) -> None:
        entries = []
        for task, verdict, detail in ends:
            if task.state in TERMINAL_TASKS:
                continue
            entries.append(Voided(task.index, verdict, detail[:NOTE_CHARS_MAX], self._evidence(task)))
            task.why = detail
            self._tell(step, job, "void", task, self._author.feed, f"{verdict.name.lower()}: {detail}")
            self._end(job, task, _VERDICT_STATE[verdict], step, now)
        for group in in_events(entries):
            self._author.append(step, Void(job.offer_id, group), now)

    def _evidence(self, task: Task) -> tuple[Opening, ...]:
        return evidence({commit: found for commit, found in openings_of(task).items() if self._firm(commit)})

    def _end(self, job: Job, task: Task, state: TaskState, step: Step, now: Now) -> None:
        """A task is over, and with it all its executions."""
        task.move(state)
        job.unfinished -= 1
        job.touch(task)
        for execution in task.executions:
            if execution.state == ExecutionState.OPENED:
                agreed = state == TaskState.SETTLED and execution.opening and execution.opening.root == task.root
                self._move(job, task, execution, ExecutionState.SETTLED if agreed else ExecutionState.DIFFERED, now)
                if not agreed and state in (TaskState.SETTLED, TaskState.DISPUTED):
                    execution.why = "its result differs"
                    self._tell(step, job, "dispute", task, execution.worker, "its result differs from the others")
            elif execution.state < ExecutionState.OPENED:
                self._move(job, task, execution, ExecutionState.LOST, now)
                execution.why = "the task ended before"
        for timers in (job.waiting, job.again):
            timers.drop(task.index)
        job.firm_since.pop(task.index, None)

    def _close(self, job: Job, step: Step, now: Now) -> None:
        if job.unfinished:
            return
        states = {task.state for task in job.tasks}
        self._author.append(step, Close(job.offer_id, job.seed), now)
        if job.cancelled:
            job.move(JobState.CANCELLED)
        elif TaskState.FAILED in states:
            job.move(JobState.FAILED)
        elif TaskState.DISPUTED in states:
            job.move(JobState.DISPUTED)
        else:
            job.move(JobState.SETTLED)
        self._tell(step, job, "close", None, self._author.feed, job.state.name.lower())

    # --- small steps -----------------------------------------------------------------------------------------------
    def _attempt(self, offer: bytes, index: int, worker: bytes, round_: int) -> Found:
        """What news about an attempt is about; its execution is None when this owner knows of none."""
        found = self.book.task(offer, index)
        return (*found, found[1].execution_of(worker, round_)) if found else (None, None, None)

    def _taken_up(self, offer: bytes, index: int, worker: bytes, round_: int, now: Now) -> Found:
        """As `_attempt`; a worker whose yes was lost on the way is believed while its place is still free."""
        job, task, found = self._attempt(offer, index, worker, round_)
        if job and task and found is None:
            found = self.book.take_up(job, task, (index, worker), round_, self._lease_ms, now)
        return job, task, found

    def _case(self, job: Job) -> Case:
        return Case(self._author.netid, job.offer_id, job.offer, self._author.feed, self._operators)

    def _move(self, job: Job, task: Task, execution: Execution, state: ExecutionState, now: Now) -> None:
        self.book.move(job, task, execution, state, self._lease_ms, now)

    def _confirmed(self, job: Job, task: Task, execution: Execution, step: Step, now: Now) -> None:
        if execution.state == ExecutionState.ASSIGNED:
            self._move(job, task, execution, ExecutionState.RUNNING, now)
            self._tell(step, job, "run", task, execution.worker, f"round {execution.round}")

    def _lose(self, job: Job, task: Task, execution: Execution, why: str, step: Step, now: Now) -> None:
        self._move(job, task, execution, ExecutionState.LOST, now)
        execution.why = why
        self._tell(step, job, "lost", task, execution.worker, why)
        if task.state == TaskState.RUNNING and job.vacancies(task) > 0:
            task.move(TaskState.WAITING)

    def _reopen(self, job: Job, task: Task) -> None:
        """The executions that agreed do not all stand any more: look for agreement among the others."""
        task.move(TaskState.RUNNING)
        task.root, task.exit_code, task.fetching, task.fetch_tries = None, None, False, 0
        job.firm_since.pop(task.index, None)
        job.again.drop(task.index)
        job.touch(task)

    def _agreed_task(self, news: OutputsHeld | OutputsMissing) -> tuple[Job, Task] | None:
        found = self.book.task(news.offer, news.task)
        return found if found and found[1].state == TaskState.AGREED and found[1].root == news.root else None

    def _tell(self, step: Step, job: Job, walk: str, task: Task | None, feed: bytes, text: str) -> None:
        self.book.tell(step, job, walk, task, feed, text)


def _spread(job: Job) -> Spread:
    blobs = (job.offer.descriptor, *(item.sha256 for item in job.resolved.inputs))
    return Spread(job.offer_id, tuple(dict.fromkeys(blobs)))


def _is_exhausted(job: Job, task: Task) -> bool:
    vacancies = job.vacancies(task)
    return vacancies > 0 and len(task.executions) + vacancies > EXECUTIONS_MAX


def _exhausted(task: Task) -> End:
    return task, Verdict.UNSERVED, f"{len(task.executions)} attempts came to nothing"
