"""What an owner remembers of its jobs: the part it records, and the part it may forget in a crash.

Knows jobs, tasks, executions, claims and leases as data. Must never decide anything: that is owner.py. Leases and
claims are timed by a clock that does not survive a restart, so they are not recorded: after one, every lease starts
anew and workers claim again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

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
from nexapod.encoding import Wire, decode, encode
from nexapod.job import Resolved
from nexapod.messages import Claim, Offer, OpeningNote

GATHER_MS = 250  # claims gather this long before the first draw, so that being fast wins nothing
STORY_LINES_MAX = 20_000  # lines of one job's story; later ones are told but not kept
_RECORD_BYTES_MAX = 2**20
JOB_PREFIX, TASK_PREFIX, STORY_PREFIX = b"job/", b"task/", b"story/"


class Execution(msgspec.Struct, array_like=True):
    """One node's attempt at a task, as its owner sees it."""

    worker: bytes
    round: int
    state: ExecutionState = ExecutionState.ASSIGNED
    commit: bytes | None = None
    digest: bytes | None = None
    opening: OpeningNote | None = None
    why: str = ""

    def move(self, state: ExecutionState) -> None:
        self.state = moved(self.state, state, EXECUTION_STEPS)


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

    def pending(self) -> bool:
        """Whether a sealed commit still waits for its opening."""
        return any(execution.state == ExecutionState.SEALED for execution in self.executions)


class JobRecord(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The recorded part of a job besides its tasks."""

    offer: Offer
    resolved: Resolved
    seed: bytes
    state: int
    cancelled: bool
    created_ms: int
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
    claims: dict[bytes, HeardClaim] = field(default_factory=dict)  # CLAIMS_PER_OFFER_MAX; later ones are not kept
    progress: dict[tuple[int, bytes], int] = field(default_factory=dict)  # task index, worker -> permille it told
    put_off: dict[bytes, int] = field(default_factory=dict)  # worker -> monotonic ms before which it is not asked
    written: dict[int, bytes] = field(default_factory=dict)  # task index (-1: the job) -> record on disk
    opened_at_ms: int | None = None  # this and the next three: monotonic ms of this process
    leases: dict[tuple[int, bytes], int] = field(default_factory=dict)  # task index, worker -> end of lease
    waiting: dict[int, int] = field(default_factory=dict)  # task index -> since when executors are missing
    look_again: dict[int, int] = field(default_factory=dict)  # task index -> when to fetch outputs again

    @property
    def over(self) -> bool:
        return self.state in TERMINAL_JOBS

    def move(self, state: JobState) -> None:
        if state == JobState.SETTLED and self.state == JobState.QUEUED:
            self.state = JobState.RUNNING
        self.state = moved(self.state, state, JOB_STEPS)


class Book:
    """Every job of this owner, with the clockwork around it."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.wake_at: int | None = None

    def open(self, offer_id: bytes, offer: Offer, resolved: Resolved, seed: bytes, now: Now) -> Job:
        """Start the book of a new job."""
        tasks = [Task(index, executions=[]) for index in range(offer.tasks)]
        job = self.jobs[offer_id] = Job(offer_id, offer, resolved, seed, now.wall_ms, tasks)
        return job

    def open_jobs(self) -> Iterator[Job]:
        """Jobs that are not over."""
        return iter([job for job in self.jobs.values() if not job.over])

    # --- clockwork -------------------------------------------------------------------------------------------------
    def wake(self, at_ms: int) -> None:
        """Ask to be looked at again at a monotonic moment."""
        if self.wake_at is None or at_ms < self.wake_at:
            self.wake_at = at_ms

    def opened_at(self, job: Job, now: Now) -> int:
        """When this process first looked at the job: claims gather from then on."""
        if job.opened_at_ms is None:
            job.opened_at_ms = now.mono_ms
        return job.opened_at_ms

    def leased(self, job: Job, task: Task, execution: Execution, until_ms: int) -> None:
        """(Re)start the lease of an execution; a worker has one execution of a task at most."""
        job.leases[task.index, execution.worker] = until_ms

    def lease_ends(self, job: Job, task: Task, execution: Execution, fresh_ms: int) -> int:
        """When a lease ends; one from before a restart begins anew and ends at `fresh_ms`."""
        until = job.leases.setdefault((task.index, execution.worker), fresh_ms)
        self.wake(until)
        return until

    def start_waiting(self, job: Job, task: Task, now: Now) -> None:
        """A new round begins to wait for executors."""
        job.waiting[task.index] = now.mono_ms

    def waited_ms(self, job: Job, task: Task, now: Now) -> int:
        """How long the current round of a task has lacked executors."""
        since = job.waiting.setdefault(task.index, now.mono_ms)
        self.wake(since + job.resolved.queue_ms)
        return now.mono_ms - since

    def may_fetch(self, job: Job, task: Task, now: Now) -> bool:
        """Whether outputs of a task may be fetched (again) by now."""
        at_ms = job.look_again.get(task.index, 0)
        if at_ms > now.mono_ms:
            self.wake(at_ms)
        return at_ms <= now.mono_ms

    # --- claims ----------------------------------------------------------------------------------------------------
    def claimed(self, job: Job, claim: Claim, now: Now) -> None:
        """Remember a claim until its validity ends by this node's own clock."""
        job.claims[claim.feed] = HeardClaim(claim, now.mono_ms + claim.valid_ms)

    def valid_claims(self, job: Job, now: Now) -> dict[bytes, HeardClaim]:
        """Claims that still count and whose nodes are not put off."""
        for feed in [feed for feed, heard in job.claims.items() if heard.until_ms <= now.mono_ms]:
            del job.claims[feed]
        for feed, until in list(job.put_off.items()):
            if until <= now.mono_ms:
                del job.put_off[feed]
            else:
                self.wake(until)
        return {feed: heard for feed, heard in job.claims.items() if feed not in job.put_off}

    def put_off(self, job: Job, worker: bytes, for_ms: int, now: Now) -> None:
        """Leave a worker alone for a while."""
        job.put_off[worker] = now.mono_ms + for_ms
        self.wake(job.put_off[worker])

    def load(self, job: Job) -> dict[bytes, int]:
        """Executions of this job each worker has in hand."""
        load: dict[bytes, int] = {}
        for task in job.tasks:
            for execution in task.executions:
                if execution.state in (ExecutionState.ASSIGNED, ExecutionState.RUNNING):
                    load[execution.worker] = load.get(execution.worker, 0) + 1
        return load

    # --- record ----------------------------------------------------------------------------------------------------
    def tell(self, step: Step, job: Job, walk: str, task: Task | None, feed: bytes, text: str) -> None:
        """Add a line to the job's story; steps are recorded with what they tell."""
        step.story.append(StoryLine(job.offer_id, walk, task.index if task else None, feed, text))

    def record(self, job: Job, step: Step, now: Now) -> None:
        """Put what changed of a job into the step's facts."""
        for line in step.story:
            if line.offer == job.offer_id and job.story_lines < STORY_LINES_MAX:
                place = 0 if line.task is None else line.task + 1
                told = StoryRecord(now.wall_ms, line.step, place, line.feed, line.text)
                step.facts[story_fact(job.offer_id, job.story_lines)] = encode(told)
                job.story_lines += 1
        self._write(job, -1, JOB_PREFIX + job.offer_id, encode(_job_record(job)), step)
        for task in job.tasks:
            if task.state in TERMINAL_TASKS and job.written.get(task.index) == b"over":
                continue
            key = TASK_PREFIX + job.offer_id + b"/" + task.index.to_bytes(4, "big")
            self._write(job, task.index, key, encode(task), step)
            if task.state in TERMINAL_TASKS:
                job.written[task.index] = b"over"

    def restore(self, facts: dict[bytes, bytes]) -> None:
        """Rebuild the book from recorded facts."""
        for key, raw in facts.items():
            if key.startswith(JOB_PREFIX):
                record = decode(raw, JobRecord, size_max=_RECORD_BYTES_MAX)
                offer_id = key[len(JOB_PREFIX) :]
                job = Job(offer_id, record.offer, record.resolved, record.seed, record.created_ms, [])
                job.state, job.cancelled = JobState(record.state), record.cancelled
                job.story_lines = record.story_lines
                self.jobs[offer_id] = job
        for key, raw in sorted(facts.items()):
            if key.startswith(TASK_PREFIX):
                recorded = decode(raw, Task, size_max=_RECORD_BYTES_MAX)
                recorded.fetching, recorded.fetch_tries = False, 0
                job = self.jobs[key[len(TASK_PREFIX) : len(TASK_PREFIX) + 32]]
                assert len(job.tasks) == recorded.index
                job.tasks.append(recorded)

    def _write(self, job: Job, index: int, key: bytes, raw: bytes, step: Step) -> None:
        if job.written.get(index) != raw:
            job.written[index] = raw
            step.facts[key] = raw


def story_fact(offer: bytes, number: int) -> bytes:
    """The key under which a story line is recorded."""
    return STORY_PREFIX + offer + b"/" + number.to_bytes(4, "big")


def _job_record(job: Job) -> JobRecord:
    return JobRecord(job.offer, job.resolved, job.seed, job.state, job.cancelled, job.created_ms, job.story_lines)
