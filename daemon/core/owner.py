"""The owner's side of a job: offer, draw, assign, seal, judge, settle.

Knows its own jobs, the claims for them, and what workers committed and opened. Must never know how a message travels,
how a task is run, or whether a credit is final. `advance` makes every progress a job can make; whatever happens first
only notes what is new, so late and repeated news changes nothing.
"""

from collections.abc import Iterable, Iterator

from daemon.core.author import Author, in_events
from daemon.core.drawing import draw, seed_commitment
from daemon.core.ownerbook import GATHER_MS, Book, Execution, Job, Task
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
from ledger.verdict import Agreed, Case, Operators, SealedCommit, award, evidence, note_opens, tally
from nexapod.events import Event
from nexapod.hashing import Tag
from nexapod.job import price_micro
from nexapod.limits import CLAIMS_PER_OFFER_MAX, ENTRIES_MAX, EXECUTIONS_MAX, NOTE_CHARS_MAX
from nexapod.messages import (
    Assignment,
    Close,
    Commit,
    Done,
    Offer,
    OpeningNote,
    Refused,
    RenewReply,
    Seal,
    SealEntry,
    Settle,
    Verdict,
    Void,
    Voided,
)

BUSY_MS = 2_000  # a worker that said no is not asked again for this long
FETCH_TRIES = 6  # attempts to get agreed outputs before the executions count as withheld
FETCH_AGAIN_MS = 1_000
_VERDICT_STATE = {
    Verdict.FAILED: TaskState.FAILED,
    Verdict.DISPUTED: TaskState.DISPUTED,
    Verdict.UNSERVED: TaskState.FAILED,
    Verdict.CANCELLED: TaskState.CANCELLED,
}


class Owner:
    """All jobs this node owns. `operators` tells which feeds one operator answers for."""

    def __init__(self, author: Author, book: Book, lease_ms: int, operators: Operators) -> None:
        self._author, self.book, self._lease_ms, self._operators = author, book, lease_ms, operators

    # --- what happened ---------------------------------------------------------------------------------------------
    def published(self, news: Published, step: Step, now: Now) -> None:
        """Append the offer; assigning begins once claims had time to arrive."""
        resolved = news.descriptor
        price = price_micro(resolved) if resolved.quorum > 1 else 0
        offer = Offer(
            job_id=resolved.job_id,
            descriptor=news.descriptor_hash,
            tasks=resolved.tasks,
            price=price,
            replicas=resolved.replicas,
            quorum=resolved.quorum,
            executions_max=resolved.executions_max,
            mode=resolved.mode,
            independence=resolved.independence,
            policy=resolved.policy,
            colour=None,
            lock=price * resolved.tasks * resolved.executions_max,
            seed_commitment=seed_commitment(news.seed),
            steward=None,
        )
        event = self._author.append(step, offer, now)
        job = self.book.open(event.id, offer, resolved, news.seed, now)
        step.offer = event.id
        step.effects.append(Spread(event.id))
        self._tell(step, job, "offer", None, self._author.feed, f"{offer.tasks} tasks, {offer.replicas} replicas each")

    def cancelled(self, news: Cancelled, step: Step, now: Now) -> None:
        """Void what is not over yet; `advance` closes the job."""
        job = self.book.jobs.get(news.offer)
        if job is None or job.over:
            step.reply = Refused("not-open", "no open job of this node has that id")
            return
        job.cancelled = True
        unfinished = [task for task in job.tasks if task.state not in TERMINAL_TASKS]
        self._void(job, [(task, Verdict.CANCELLED, "taken back by its owner") for task in unfinished], step, now)
        step.reply = Done()

    def claim_heard(self, news: ClaimHeard, now: Now) -> None:
        """Remember who stands ready; `advance` draws among them."""
        claim = news.claim
        job = self.book.jobs.get(claim.offer) if claim.offer else None
        if job is None or job.over or claim.feed == self._author.feed:
            return
        known = job.claims.get(claim.feed)
        if known is None and len(job.claims) >= CLAIMS_PER_OFFER_MAX:
            return
        if known is None or claim.seq > known.claim.seq:
            self.book.claimed(job, claim, now)

    def committed(self, event: Event, step: Step, now: Now) -> None:
        """A worker bound itself to results."""
        assert isinstance(event.data, Commit)
        job = self.book.jobs.get(event.data.offer)
        if job is None or job.over:
            return
        for entry in event.data.entries:
            if entry.task >= len(job.tasks):
                continue
            task = job.tasks[entry.task]
            execution = task.execution_of(event.feed, entry.round)
            if execution and execution.state in (ExecutionState.ASSIGNED, ExecutionState.RUNNING):
                execution.move(ExecutionState.COMMITTED)
                execution.commit, execution.digest = event.id, entry.digest
                self._tell(step, job, "commit", task, event.feed, "bound itself to a result")

    def renewed(self, news: RenewalHeard, step: Step, now: Now) -> None:
        """Extend the leases of work still wanted, and name the work that is not."""
        job = self.book.jobs.get(news.ask.offer)
        lost = []
        for entry in news.ask.entries:
            task = job.tasks[entry.task] if job and entry.task < len(job.tasks) else None
            execution = task.execution_of(news.worker, entry.round) if task else None
            if job is None or task is None or execution is None or execution.state == ExecutionState.LOST:
                lost.append(entry.task)
            elif execution.state in (ExecutionState.ASSIGNED, ExecutionState.RUNNING):
                self._confirmed(job, task, execution, step)
                self.book.leased(job, task, execution, now.mono_ms + self._lease_ms)
                job.progress[task.index, news.worker] = entry.permille
            elif task.state in TERMINAL_TASKS:
                lost.append(entry.task)
        step.reply = RenewReply(tuple(lost))

    def opened(self, news: OpeningsHeard, step: Step, now: Now) -> None:
        """Take openings that match their commits; one that does not match ends its execution."""
        job = self.book.jobs.get(news.ask.offer)
        if job is None:
            step.reply = Refused("unknown-offer", "this node does not own that offer")
            return
        step.reply = Done()
        for note in news.ask.entries:
            task = job.tasks[note.task] if note.task < len(job.tasks) else None
            execution = task.execution_of(news.worker, note.round) if task else None
            if task is None or execution is None or execution.commit != note.commit:
                step.reply = Refused("unknown-commit", f"task {note.task} has no such commit of yours")
                continue
            if execution.state != ExecutionState.SEALED:
                continue
            if note_opens(self._case(job), _sealed(task, execution), note):
                execution.opening = note
                execution.move(ExecutionState.OPENED)
                self._tell(step, job, "open", task, news.worker, f"result {note.root.hex()[:12]}")
            else:
                self._lose(job, task, execution, "its opening does not match its commit", step)

    def gave_up(self, news: GaveUp, step: Step, now: Now) -> None:
        """A worker handed a task back."""
        job = self.book.jobs.get(news.ask.offer)
        step.reply = Done()
        if job is None or news.ask.task >= len(job.tasks):
            return
        task = job.tasks[news.ask.task]
        execution = task.execution_of(news.worker, news.ask.round)
        if execution and execution.state in (ExecutionState.ASSIGNED, ExecutionState.RUNNING):
            self._lose(job, task, execution, f"{news.ask.reason}: {news.ask.detail}", step)

    def assign_answered(self, news: Answered, step: Step, now: Now) -> None:
        """A worker took an assignment, refused it, or could not be reached."""
        sent = news.effect
        assert isinstance(sent, SendAssign)
        job = self.book.jobs.get(sent.assignment.offer)
        if job is None:
            return
        for index in sent.assignment.tasks:
            task = job.tasks[index]
            execution = task.execution_of(sent.worker, sent.assignment.round)
            if execution is None or execution.state != ExecutionState.ASSIGNED:
                continue
            if isinstance(news.reply, Done):
                self._confirmed(job, task, execution, step)
                continue
            # It never began: the attempt is taken out, so that it costs neither the worker nor the task anything.
            task.executions.remove(execution)
            task.refusals += 1
            why = news.reply.detail if isinstance(news.reply, Refused) else "could not be reached"
            self._tell(step, job, "refuse", task, sent.worker, why)
        if not isinstance(news.reply, Done):
            self.book.put_off(job, sent.worker, BUSY_MS, now)

    def outputs_held(self, news: OutputsHeld, step: Step, now: Now) -> None:
        """The agreed bytes are here and checked: settle, or fail when the program itself failed everywhere."""
        task = self._agreed_task(news)
        if task is not None:
            task.exit_code = news.exit_code

    def outputs_missing(self, news: OutputsMissing, step: Step, now: Now) -> None:
        """Try the next holder; when none delivers, the agreeing executions count as withheld."""
        job, task = self.book.jobs.get(news.offer), self._agreed_task(news)
        if job is None or task is None:
            return
        task.fetching = False
        task.fetch_tries += 1
        job.look_again[task.index] = now.mono_ms + FETCH_AGAIN_MS
        if task.fetch_tries < FETCH_TRIES:
            return
        for execution in task.executions:
            if execution.state == ExecutionState.OPENED and execution.opening and execution.opening.root == task.root:
                self._lose(job, task, execution, f"its outputs could not be fetched: {news.why}", step)
        task.root, task.fetch_tries = None, 0
        self._another_round(job, task, step, now)

    # --- what follows ----------------------------------------------------------------------------------------------
    def advance(self, step: Step, now: Now) -> None:
        """Make every progress that is possible now, in all jobs."""
        self.book.wake_at = None
        for job in self.book.open_jobs():
            self._expire(job, step, now)
            self._assign(job, step, now)
            self._seal(job, step, now)
            self._judge(job, step, now)
            self._settle(job, step, now)
            self._close(job, step, now)
            self.book.record(job, step, now)

    def _expire(self, job: Job, step: Step, now: Now) -> None:
        for task, execution in _executions(job):
            if execution.state not in (ExecutionState.ASSIGNED, ExecutionState.RUNNING, ExecutionState.SEALED):
                continue
            if self.book.lease_ends(job, task, execution, now.mono_ms + self._lease_ms) <= now.mono_ms:
                withheld = execution.state == ExecutionState.SEALED
                self._lose(job, task, execution, "withheld its opening" if withheld else "its lease ran out", step)

    def _assign(self, job: Job, step: Step, now: Now) -> None:
        if now.mono_ms < self.book.opened_at(job, now) + GATHER_MS:
            self.book.wake(self.book.opened_at(job, now) + GATHER_MS)
            return
        drawn: dict[tuple[bytes, int], list[int]] = {}
        unserved = []
        load = self.book.load(job)
        for task in job.tasks:
            vacancies = _vacancies(job, task)
            if vacancies == 0:
                continue
            if len(task.executions) + vacancies > EXECUTIONS_MAX:
                unserved.append((task, Verdict.UNSERVED, f"{len(task.executions)} attempts came to nothing"))
                continue
            weights = self._candidates(job, task, load, now)
            for worker in self._independent(task, draw(job.seed, task.index, weights), vacancies):
                task.executions.append(Execution(worker, task.round))
                self.book.leased(job, task, task.executions[-1], now.mono_ms + self._lease_ms)
                load[worker] = load.get(worker, 0) + 1
                drawn.setdefault((worker, task.round), []).append(task.index)
            if _vacancies(job, task) == 0:
                task.move(TaskState.RUNNING)
            elif self.book.waited_ms(job, task, now) >= job.resolved.queue_ms:
                unserved.append((task, Verdict.UNSERVED, "no node took it in time"))
        self._void(job, unserved, step, now)
        for (worker, round_), tasks in drawn.items():
            for group in _in_groups(tasks):
                self._send_assignment(job, worker, round_, group, step)

    def _send_assignment(self, job: Job, worker: bytes, round_: int, tasks: tuple[int, ...], step: Step) -> None:
        assignment = Assignment(self._author.feed, worker, job.offer_id, round_, self._lease_ms, tasks)
        step.effects.append(SendAssign(worker, assignment, self._author.sign(Tag.ASSIGNMENT, assignment)))
        if job.state == JobState.QUEUED:
            job.move(JobState.RUNNING)
        for index in tasks:
            self._tell(step, job, "assign", job.tasks[index], worker, f"round {round_}")

    def _seal(self, job: Job, step: Step, now: Now) -> None:
        entries = []
        for task in job.tasks:
            if task.state != TaskState.RUNNING or task.sealed >= task.round:
                continue
            current = [e for e in task.executions if e.round == task.round and e.state != ExecutionState.LOST]
            if any(e.state != ExecutionState.COMMITTED for e in current):
                continue
            for execution in current:
                execution.move(ExecutionState.SEALED)
                self.book.leased(job, task, execution, now.mono_ms + self._lease_ms)
            task.sealed = task.round
            commits = sorted(e.commit for e in current if e.commit is not None)
            entries.append(SealEntry(task.index, task.round, tuple(commits)))
            self._tell(step, job, "seal", task, self._author.feed, f"{len(commits)} commits of round {task.round}")
        for group in in_events(entries):
            self._author.append(step, Seal(job.offer_id, group), now)

    def _judge(self, job: Job, step: Step, now: Now) -> None:
        for task in job.tasks:
            if task.state == TaskState.RUNNING and task.sealed >= task.round and not task.pending():
                found = {commit_id: (sealed, note.root) for commit_id, (sealed, note) in _opened(task).items()}
                verdict = tally(self._case(job), found)
                if isinstance(verdict, Agreed):
                    task.move(TaskState.AGREED)
                    task.root = verdict.root
                else:
                    self._another_round(job, task, step, now)
            if task.state == TaskState.AGREED and not task.fetching and task.exit_code is None:
                self._fetch(job, task, step, now)

    def _another_round(self, job: Job, task: Task, step: Step, now: Now) -> None:
        used = [e for e in task.executions if e.state != ExecutionState.LOST]
        if len(used) < job.offer.executions_max and task.round + 1 < EXECUTIONS_MAX:
            task.round += 1
            task.move(TaskState.WAITING)
            self.book.start_waiting(job, task, now)
            self._tell(step, job, "dispute", task, self._author.feed, "no agreement yet: one more execution")
        else:
            roots = len({e.opening.root for e in used if e.opening})
            detail = f"{roots} different results from {len(used)} executions"
            self._void(job, [(task, Verdict.DISPUTED, detail)], step, now)

    def _fetch(self, job: Job, task: Task, step: Step, now: Now) -> None:
        if not self.book.may_fetch(job, task, now):
            return
        holders = [e.worker for e in task.executions if e.opening and e.opening.root == task.root]
        assert task.root is not None
        task.fetching = True
        worker = holders[task.fetch_tries % len(holders)]
        step.effects.append(FetchOutputs(job.offer_id, task.index, task.root, worker))

    def _settle(self, job: Job, step: Step, now: Now) -> None:
        entries, failed = [], []
        for task in job.tasks:
            if task.state != TaskState.AGREED or task.exit_code is None:
                continue
            assert task.root is not None
            if task.exit_code != 0:
                failed.append((task, Verdict.FAILED, f"the program ended with exit code {task.exit_code}"))
                continue
            opened = _opened(task)
            agreeing = tuple(sealed for sealed, note in opened.values() if note.root == task.root)
            left = job.offer.price * job.offer.executions_max  # the lock holds as much for every task
            entries.append(award(self._case(job), Agreed(task.root, agreeing), opened, left))
            task.move(TaskState.SETTLED)
            text = f"{len(agreeing)} executions agree on {task.root.hex()[:12]}"
            self._tell(step, job, "settle", task, self._author.feed, text)
            self._end_executions(job, task, step)
        for group in in_events(entries):
            self._author.append(step, Settle(job.offer_id, group), now)
        self._void(job, failed, step, now)

    def _void(self, job: Job, ends: list[tuple[Task, Verdict, str]], step: Step, now: Now) -> None:
        entries = []
        for task, verdict, detail in ends:
            if task.state in TERMINAL_TASKS:
                continue
            entries.append(Voided(task.index, verdict, detail[:NOTE_CHARS_MAX], evidence(_opened(task))))
            task.move(_VERDICT_STATE[verdict])
            task.why = detail
            self._tell(step, job, "void", task, self._author.feed, f"{verdict.name.lower()}: {detail}")
            self._end_executions(job, task, step)
        for group in in_events(entries):
            self._author.append(step, Void(job.offer_id, group), now)

    def _close(self, job: Job, step: Step, now: Now) -> None:
        states = {task.state for task in job.tasks}
        if not states <= TERMINAL_TASKS:
            return
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
    def _candidates(self, job: Job, task: Task, load: dict[bytes, int], now: Now) -> dict[bytes, int]:
        """Feeds that may be drawn for `task`, weighted by the slots they lend. A node gets a task once at most."""
        tried = {execution.worker for execution in task.executions}
        return {
            feed: claimed.claim.slots
            for feed, claimed in self.book.valid_claims(job, now).items()
            if feed not in tried and claimed.claim.slots > load.get(feed, 0)
        }

    def _independent(self, task: Task, drawn: Iterable[bytes], count: int) -> list[bytes]:
        """The first `count` drawn feeds no two of which, nor any live executor, answer to one operator."""
        taken: set[bytes] = set()
        for execution in task.executions:
            if execution.state != ExecutionState.LOST:
                taken |= self._operators_of(task, execution.worker)
        chosen: list[bytes] = []
        for feed in drawn:
            if len(chosen) < count and taken.isdisjoint(names := self._operators_of(task, feed)):
                chosen.append(feed)
                taken |= names
        return chosen

    def _operators_of(self, task: Task, feed: bytes) -> frozenset[bytes]:
        return self._operators(SealedCommit(b"", feed, task.index, task.round, b"")) | {feed}

    def _case(self, job: Job) -> Case:
        return Case(self._author.netid, job.offer_id, job.offer, self._author.feed, self._operators)

    def _confirmed(self, job: Job, task: Task, execution: Execution, step: Step) -> None:
        if execution.state == ExecutionState.ASSIGNED:
            execution.move(ExecutionState.RUNNING)
            self._tell(step, job, "run", task, execution.worker, f"round {execution.round}")

    def _lose(self, job: Job, task: Task, execution: Execution, why: str, step: Step) -> None:
        execution.move(ExecutionState.LOST)
        execution.why = why
        self._tell(step, job, "lost", task, execution.worker, why)
        if task.state == TaskState.RUNNING and _vacancies(job, task) > 0:
            task.move(TaskState.WAITING)

    def _end_executions(self, job: Job, task: Task, step: Step) -> None:
        for execution in task.executions:
            if execution.state != ExecutionState.OPENED:
                continue
            agreed = task.state == TaskState.SETTLED and execution.opening and execution.opening.root == task.root
            execution.move(ExecutionState.SETTLED if agreed else ExecutionState.DIFFERED)
            if not agreed and task.state in (TaskState.SETTLED, TaskState.DISPUTED):
                execution.why = "its result differs"
                self._tell(step, job, "dispute", task, execution.worker, "its result differs from the others")

    def _agreed_task(self, news: OutputsHeld | OutputsMissing) -> Task | None:
        job = self.book.jobs.get(news.offer)
        task = job.tasks[news.task] if job and news.task < len(job.tasks) else None
        return task if task and task.state == TaskState.AGREED and task.root == news.root else None

    def _tell(self, step: Step, job: Job, walk: str, task: Task | None, feed: bytes, text: str) -> None:
        self.book.tell(step, job, walk, task, feed, text)


def _executions(job: Job) -> Iterator[tuple[Task, Execution]]:
    for task in job.tasks:
        for execution in task.executions:
            yield task, execution


def _vacancies(job: Job, task: Task) -> int:
    """Executors the current round of `task` still lacks; a sealed round lacks none."""
    if task.state not in (TaskState.WAITING, TaskState.RUNNING) or task.sealed >= task.round:
        return 0
    live = sum(1 for e in task.executions if e.round == task.round and e.state != ExecutionState.LOST)
    return max(0, (job.offer.replicas if task.round == 0 else 1) - live)


def _sealed(task: Task, execution: Execution) -> SealedCommit:
    assert execution.commit is not None
    assert execution.digest is not None
    return SealedCommit(execution.commit, execution.worker, task.index, execution.round, execution.digest)


def _opened(task: Task) -> dict[bytes, tuple[SealedCommit, OpeningNote]]:
    """Every opened execution of a task by commit id, in that order."""
    found = {
        execution.commit: (_sealed(task, execution), execution.opening)
        for execution in task.executions
        if execution.state == ExecutionState.OPENED and execution.commit and execution.opening
    }
    return dict(sorted(found.items()))


def _in_groups(tasks: list[int]) -> list[tuple[int, ...]]:
    """Task indexes in groups that fit one assignment."""
    return [tuple(tasks[start : start + ENTRIES_MAX]) for start in range(0, len(tasks), ENTRIES_MAX)]
