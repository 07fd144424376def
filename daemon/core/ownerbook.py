"""What an owner remembers of its jobs: the part it records, and the part it may forget in a crash.

Knows jobs, tasks, executions, claims and leases as data, and which of them have to be looked at again. Must never
decide anything: that is owner.py. Leases and claims are timed by a clock that does not survive a restart, so they are
not recorded: after one, every lease starts anew and workers claim again.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import msgspec

from daemon.core.states import (
    EXECUTION_STEPS,
    JOB_STEPS,
    TASK_STEPS,
    TERMINAL_JOBS,
    TERMINAL_TASKS,
    ExecutionState,
    JobState,
    TaskState,
    moved,
)
from daemon.core.step import Now, Step, StoryLine
from daemon.core.timers import Timers
from nexapod.encoding import Wire, decode, encode
from nexapod.job import Resolved
from nexapod.limits import CLAIM_VALID_MS, CLAIMS_PER_OFFER_MAX
from nexapod.messages import Claim, Offer, OpeningNote

GATHER_MS = 250  # claims gather this long before the first draw, so that being fast wins nothing
STORY_LINES_MAX = 20_000  # lines of one job's story; later ones about single tasks are told but not kept
PATIENCE_RUNS = 3  # times the run limit an executor may take: one task before it in its slot, its own, what it fetches
PATIENCE_MS = 600_000  # and this on top, for images
BUSY_MS, BUSY_MS_MAX = 2_000, 30_000  # a worker that said no is left alone this long at first, and at most
_RECORD_BYTES_MAX = 2**20
JOB_PREFIX, STATE_PREFIX, TASK_PREFIX, STORY_PREFIX = b"job/", b"jobstate/", b"task/", b"story/"

IN_HAND = (ExecutionState.ASSIGNED, ExecutionState.RUNNING)
_LEASED = (*IN_HAND, ExecutionState.SEALED)

Attempt: TypeAlias = tuple[int, bytes]  # task index, worker: a worker has one execution of a task at most
Served: TypeAlias = tuple[frozenset[bytes], frozenset[bytes]]  # who ever had a task, and whose attempts still stand


class Execution(msgspec.Struct, array_like=True):
    """One node's attempt at a task, as its owner sees it."""

    worker: bytes
    round: int
    state: ExecutionState = ExecutionState.ASSIGNED
    commit: bytes | None = None
    digest: bytes | None = None
    opening: OpeningNote | None = None
    why: str = ""


class Task(msgspec.Struct, array_like=True):
    """One index of a job. `sealed`: the last round whose commits are sealed, -1 before the first."""

    index: int
    state: TaskState = TaskState.WAITING
    round: int = 0
    sealed: int = -1
    executions: list[Execution] = []
    root: bytes | None = None
    exit_code: int | None = None
    why: str = ""
    refusals: int = 0
    fetching: bool = False
    fetch_tries: int = 0

    def move(self, state: TaskState) -> None:
        self.state = moved(self.state, state, TASK_STEPS)

    def execution_of(self, worker: bytes, round_: int) -> Execution | None:
        """The attempt of `worker` in a round; a worker has one per task at most."""
        for execution in self.executions:
            if execution.worker == worker and execution.round == round_:
                return execution
        return None

    def live(self) -> list[Execution]:
        """The executions of the current round that still stand."""
        return [e for e in self.executions if e.round == self.round and e.state != ExecutionState.LOST]

    def sealed_count(self) -> int:
        """Executions whose commits are sealed, opened or not: what the offer's `executions_max` bounds."""
        return sum(e.commit is not None and e.round <= self.sealed for e in self.executions)

    def pending(self) -> bool:
        """Whether a sealed commit still waits for its opening."""
        return any(execution.state == ExecutionState.SEALED for execution in self.executions)


class JobRecord(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of a job that never changes: written once."""

    offer: Offer
    resolved: Resolved
    seed: bytes
    created_ms: int


class StateRecord(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of a job that changes, besides its tasks. Tasks nothing ever happened to are not recorded."""

    state: int
    cancelled: bool
    story_lines: int


class StoryRecord(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One recorded line of a job's story. `task` is the index plus one; 0 is the whole job."""

    ms: int
    step: str
    task: int
    feed: bytes
    text: str


class HeardClaim(NamedTuple):
    """A claim and until when it counts here."""

    claim: Claim
    until_ms: int


@dataclass(slots=True)
class Job:
    """A job this node owns."""

    offer_id: bytes
    offer: Offer
    resolved: Resolved
    seed: bytes
    created_ms: int
    tasks: list[Task]
    state: JobState = JobState.QUEUED
    cancelled: bool = False
    story_lines: int = 0
    unfinished: int = 0  # tasks that have not ended
    # What follows is not recorded.
    claims: dict[bytes, HeardClaim] = field(default_factory=dict)  # CLAIMS_PER_OFFER_MAX; later ones are not kept
    claimants: set[bytes] = field(default_factory=set)  # whose claim the story tells of; CLAIMS_PER_OFFER_MAX, no more
    refusals: dict[bytes, int] = field(default_factory=dict)  # worker -> refusals in a row
    unheard: dict[Attempt, int] = field(default_factory=dict)  # rounds of assignments nobody answered: perhaps accepted
    at_most: dict[bytes, int] = field(default_factory=dict)  # worker -> tasks one assignment may have, once it was busy
    progress: dict[Attempt, int] = field(default_factory=dict)  # permille a worker told
    patience: dict[Attempt, int] = field(default_factory=dict)  # until when leases are renewed; the keys are in hand
    look: dict[int, None] = field(default_factory=dict)  # task indexes to look at: something happened to them
    changed: dict[int, None] = field(default_factory=dict)  # task indexes to record
    vacant: dict[Served, dict[int, None]] = field(
        default_factory=dict
    )  # tasks that lack executors, alike ones together
    served: dict[int, Served] = field(default_factory=dict)  # task index -> where it is in `vacant`
    stirred: int = -1  # the book's `stir` at the last draw
    gather_until: int | None = None  # monotonic ms; None: this process has not looked at the job yet
    leases: Timers[Attempt] = field(default_factory=Timers)
    waiting: Timers[int] = field(default_factory=Timers)  # task index -> when lacking executors ends it
    again: Timers[int] = field(default_factory=Timers)  # agreed task -> when to fetch outputs or look at it again
    firm_since: dict[int, int] = field(default_factory=dict)  # task index -> since when it waits for firm commits
    put_off: Timers[bytes] = field(default_factory=Timers)  # worker -> until when it is not asked

    @property
    def over(self) -> bool:
        return self.state in TERMINAL_JOBS

    def move(self, state: JobState) -> None:
        self.state = moved(self.state, state, JOB_STEPS)

    def touch(self, task: Task) -> None:
        """Note that something happened to a task: it is looked at, and recorded."""
        self.look[task.index] = self.changed[task.index] = None

    def vacancies(self, task: Task) -> int:
        """Executors the current round of `task` still lacks; a sealed round lacks none."""
        if task.state not in (TaskState.WAITING, TaskState.RUNNING) or task.sealed >= task.round:
            return 0
        return max(0, (self.offer.replicas if task.round == 0 else 1) - len(task.live()))

    def sort(self, task: Task) -> None:
        """Put a task where `vacant` should have it now."""
        place: Served | None = None
        if self.vacancies(task):
            stands = (e.worker for e in task.executions if e.state != ExecutionState.LOST)
            place = (frozenset(e.worker for e in task.executions), frozenset(stands))
        before = self.served.get(task.index)
        if before == place:
            return
        if before is not None:
            del self.served[task.index], self.vacant[before][task.index]
            if not self.vacant[before]:
                del self.vacant[before]
        if place is not None:
            self.served[task.index] = place
            self.vacant.setdefault(place, {})[task.index] = None

    def forget_clocks(self) -> None:
        """Let go of everything that only an open job needs."""
        for table in (
            self.claims,
            self.refusals,
            self.unheard,
            self.at_most,
            self.progress,
            self.patience,
            self.firm_since,
            self.vacant,
            self.served,
        ):
            table.clear()
        for timers in (self.leases, self.waiting, self.again, self.put_off):
            timers.clear()


class Book:
    """Every job of this owner, with the clockwork around it."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.open: dict[bytes, Job] = {}  # those that are not over
        self.in_hand: Counter[bytes] = Counter()  # worker -> executions of all jobs it has in hand
        self.forked: set[bytes] = set()  # feeds that contradicted themselves: never assigned to again
        self.stir = 0  # rises whenever a draw may find somebody it did not find before
        self.wake_at: int | None = None

    def add(self, offer_id: bytes, offer: Offer, resolved: Resolved, seed: bytes, now: Now) -> Job:
        """Start the book of a new job."""
        tasks = [Task(index, executions=[]) for index in range(offer.tasks)]
        job = Job(offer_id, offer, resolved, seed, now.wall_ms, tasks, unfinished=offer.tasks)
        self.jobs[offer_id] = self.open[offer_id] = job
        return job

    def task(self, offer: bytes, index: int) -> tuple[Job, Task] | None:
        """A task and its job, if this node owns it."""
        job = self.jobs.get(offer)
        return (job, job.tasks[index]) if job is not None and index < len(job.tasks) else None

    # --- clockwork -------------------------------------------------------------------------------------------------
    def wake(self, at_ms: int | None) -> None:
        """Ask to be looked at again at a monotonic moment."""
        if at_ms is not None and (self.wake_at is None or at_ms < self.wake_at):
            self.wake_at = at_ms

    def wind(self, job: Job, lease_ms: int, now: Now) -> None:
        """Start the clocks of a job this process has not looked at yet, and look at all of it."""
        job.gather_until = now.mono_ms + GATHER_MS
        for task in job.tasks:
            if task.state in TERMINAL_TASKS:
                continue
            job.look[task.index] = None
            for execution in task.executions:
                if execution.state in _LEASED:
                    self._lease(job, task, execution, lease_ms, now)

    def hand_out(self, job: Job, task: Task, worker: bytes, lease_ms: int, now: Now) -> None:
        """Add an execution of the current round, in the hands of `worker`."""
        execution = Execution(worker, task.round)
        task.executions.append(execution)
        self.in_hand[worker] += 1
        self._lease(job, task, execution, lease_ms, now)
        job.touch(task)

    def take_up(
        self, job: Job, task: Task, attempt: Attempt, round_: int, lease_ms: int, now: Now
    ) -> Execution | None:  # fmt: skip
        """The attempt of a worker who never answered its assignment but acts on it; None when its place is taken."""
        if job.unheard.get(attempt) != round_ or round_ != task.round or not job.vacancies(task):
            return None
        del job.unheard[attempt]
        self.hand_out(job, task, attempt[1], lease_ms, now)
        if not job.vacancies(task):
            task.move(TaskState.RUNNING)
        return task.executions[-1]

    def move(self, job: Job, task: Task, execution: Execution, state: ExecutionState, lease_ms: int, now: Now) -> None:
        """Take an execution one step further; a sealed one has one lease to open."""
        was_in_hand = execution.state in IN_HAND
        execution.state = moved(execution.state, state, EXECUTION_STEPS)
        if was_in_hand and state not in IN_HAND:
            self._take_back(job, task, execution)
        job.leases.drop((task.index, execution.worker))
        if state in _LEASED:
            self._lease(job, task, execution, lease_ms, now)
        job.touch(task)

    def unassign(self, job: Job, task: Task, execution: Execution) -> None:
        """Take out an attempt that never began, so that it costs neither the worker nor the task anything."""
        self._take_back(job, task, execution)
        job.leases.drop((task.index, execution.worker))
        task.executions.remove(execution)
        task.refusals += 1
        job.touch(task)

    def renew(self, job: Job, task: Task, execution: Execution, lease_ms: int, now: Now) -> None:
        """Extend a lease, but not for ever: a worker that only says it works would hold the task up."""
        attempt = (task.index, execution.worker)
        job.leases.set(attempt, min(now.mono_ms + lease_ms, job.patience[attempt]))

    def _lease(self, job: Job, task: Task, execution: Execution, lease_ms: int, now: Now) -> None:
        attempt = (task.index, execution.worker)
        job.leases.set(attempt, now.mono_ms + lease_ms)
        if execution.state in IN_HAND:
            job.patience.setdefault(attempt, now.mono_ms + PATIENCE_RUNS * job.resolved.run_ms + PATIENCE_MS)

    def _take_back(self, job: Job, task: Task, execution: Execution) -> None:
        attempt = (task.index, execution.worker)
        job.patience.pop(attempt, None)
        job.progress.pop(attempt, None)
        self.in_hand[execution.worker] -= 1
        if not self.in_hand[execution.worker]:
            del self.in_hand[execution.worker]
        self.stir += 1

    # --- claims ----------------------------------------------------------------------------------------------------
    def claimed(self, job: Job, claim: Claim, now: Now) -> bool:
        """Remember a claim until its validity ends by this node's own clock; it cannot stay for longer than usual.

        Returns whether it is the first of its node.
        """
        known = job.claims.get(claim.feed)
        if known is None and len(job.claims) >= CLAIMS_PER_OFFER_MAX:
            self._expire_claims(job, now)
            if len(job.claims) >= CLAIMS_PER_OFFER_MAX:
                return False
        if known is None or claim.seq > known.claim.seq:
            job.claims[claim.feed] = HeardClaim(claim, now.mono_ms + min(claim.valid_ms, CLAIM_VALID_MS))
            self.stir += 1
        if claim.feed in job.claimants or len(job.claimants) >= CLAIMS_PER_OFFER_MAX:
            return False
        job.claimants.add(claim.feed)
        return True

    def standing(self, job: Job, now: Now) -> Iterable[Claim]:
        """Claims that still count and whose nodes are not put off."""
        self._expire_claims(job, now)
        return [
            heard.claim for feed, heard in job.claims.items() if feed not in job.put_off and feed not in self.forked
        ]

    def _expire_claims(self, job: Job, now: Now) -> None:
        for feed in [feed for feed, heard in job.claims.items() if heard.until_ms <= now.mono_ms]:
            del job.claims[feed]
            job.refusals.pop(feed, None)
            job.at_most.pop(feed, None)

    def put_off(self, job: Job, worker: bytes, now: Now) -> None:
        """Leave a worker alone for a while, for longer each time it says no."""
        refusals = job.refusals[worker] = job.refusals.get(worker, 0) + 1
        job.put_off.set(worker, now.mono_ms + min(BUSY_MS << min(refusals - 1, 10), BUSY_MS_MAX))

    # --- record ----------------------------------------------------------------------------------------------------
    def tell(self, step: Step, job: Job, walk: str, task: Task | None, feed: bytes, text: str) -> None:
        """Add a line to the job's story; steps are recorded with what they tell."""
        step.story.append(StoryLine(job.offer_id, walk, task.index if task else None, feed, text))

    def record(self, step: Step, now: Now) -> None:
        """Put what changed into the step's facts."""
        told = {line.offer: None for line in step.story}
        for line in step.story:
            job = self.jobs.get(line.offer)
            if job is None or (line.task is not None and job.story_lines >= STORY_LINES_MAX):
                continue
            place = 0 if line.task is None else line.task + 1
            step.facts[story_fact(line.offer, job.story_lines)] = encode(
                StoryRecord(now.wall_ms, line.step, place, line.feed, line.text)
            )
            job.story_lines += 1
        for job in list(self.open.values()):
            for index in job.changed:
                step.facts[_task_fact(job.offer_id, index)] = encode(job.tasks[index])
            if job.changed or job.offer_id in told:
                state = StateRecord(job.state, job.cancelled, job.story_lines)
                step.facts[STATE_PREFIX + job.offer_id] = encode(state)
            if job.offer_id == step.offer:
                fixed = JobRecord(job.offer, job.resolved, job.seed, job.created_ms)
                step.facts[JOB_PREFIX + job.offer_id] = encode(fixed)
            job.changed = {}
            if job.over:
                job.forget_clocks()
                del self.open[job.offer_id]

    def restore(self, facts: dict[bytes, bytes]) -> None:
        """Rebuild the book from recorded facts."""
        for key, raw in facts.items():
            if key.startswith(JOB_PREFIX):
                offer_id = key[len(JOB_PREFIX) :]
                fixed = decode(raw, JobRecord, size_max=_RECORD_BYTES_MAX)
                state = decode(facts[STATE_PREFIX + offer_id], StateRecord, size_max=_RECORD_BYTES_MAX)
                tasks = [Task(index, executions=[]) for index in range(fixed.offer.tasks)]
                self.jobs[offer_id] = Job(
                    offer_id, fixed.offer, fixed.resolved, fixed.seed, fixed.created_ms, tasks,
                    JobState(state.state), state.cancelled, state.story_lines,
                )  # fmt: skip
        for key, raw in facts.items():
            if key.startswith(TASK_PREFIX):
                recorded = decode(raw, Task, size_max=_RECORD_BYTES_MAX)
                recorded.fetching, recorded.fetch_tries = False, 0
                self.jobs[key[len(TASK_PREFIX) : len(TASK_PREFIX) + 32]].tasks[recorded.index] = recorded
        self.jobs = dict(sorted(self.jobs.items(), key=lambda item: item[1].created_ms))  # keys came in no useful order
        for offer_id, job in self.jobs.items():
            job.unfinished = sum(task.state not in TERMINAL_TASKS for task in job.tasks)
            if not job.over:
                self.open[offer_id] = job
                held = (e.worker for task in job.tasks for e in task.executions if e.state in IN_HAND)
                self.in_hand.update(held)


def story_fact(offer: bytes, number: int) -> bytes:
    """The key under which a story line is recorded."""
    return STORY_PREFIX + offer + b"/" + number.to_bytes(4, "big")


def _task_fact(offer: bytes, index: int) -> bytes:
    return TASK_PREFIX + offer + b"/" + index.to_bytes(4, "big")
