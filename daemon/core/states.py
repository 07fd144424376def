"""The lives of jobs, tasks and executions: their states, and every step between them that is allowed.

docs/architecture.md draws these tables; `moved` refuses anything else.
"""

from enum import IntEnum
from typing import TypeVar


class JobState(IntEnum):
    """Where a job is, seen by its owner."""

    QUEUED = 0  # offered, nothing assigned yet
    RUNNING = 1
    SETTLED = 2  # every task settled
    DISPUTED = 3  # over, and at least one task never found agreement
    FAILED = 4  # over, and at least one task failed or found no node
    CANCELLED = 5


class TaskState(IntEnum):
    """Where a task is, seen by its owner."""

    WAITING = 0  # executors are missing
    RUNNING = 1  # its round has all executors; they run, commit, are sealed, open
    AGREED = 2  # a quorum of independent openings names one root; the bytes are being fetched
    SETTLED = 3
    DISPUTED = 4
    FAILED = 5
    CANCELLED = 6


class ExecutionState(IntEnum):
    """Where one node's attempt is, seen by the owner."""

    ASSIGNED = 0  # handed over, not yet confirmed
    RUNNING = 1  # confirmed; its lease is being renewed
    COMMITTED = 2
    SEALED = 3
    OPENED = 4
    SETTLED = 5  # agreed, and paid what the settlement says
    DIFFERED = 6  # opened another root than the agreed one, or the task found none
    LOST = 7  # lease ran out, handed back, never opened, or not needed any more


class DutyState(IntEnum):
    """Where one attempt is, seen by the worker whose duty it is."""

    ASSIGNED = 0  # promised, on disk, waiting for a slot
    RUNNING = 1
    COMMITTED = 2
    SEALED = 3  # the owner closed the set: the opening may go out
    OPENED = 4  # the owner confirmed the opening; outputs are kept until the task ends


JOB_STEPS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SETTLED, JobState.DISPUTED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SETTLED: frozenset(),
    JobState.DISPUTED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TASK_STEPS: dict[TaskState, frozenset[TaskState]] = {
    # straight to AGREED: an opening that came late completes a quorum before the next round has its executors
    TaskState.WAITING: frozenset({TaskState.RUNNING, TaskState.AGREED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.RUNNING: frozenset(
        {TaskState.WAITING, TaskState.AGREED, TaskState.DISPUTED, TaskState.FAILED, TaskState.CANCELLED}
    ),
    # back to RUNNING: the bytes could not be had, or an executor's feed forked
    TaskState.AGREED: frozenset({TaskState.SETTLED, TaskState.FAILED, TaskState.RUNNING, TaskState.CANCELLED}),
    TaskState.SETTLED: frozenset(),
    TaskState.DISPUTED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}

EXECUTION_STEPS: dict[ExecutionState, frozenset[ExecutionState]] = {
    ExecutionState.ASSIGNED: frozenset({ExecutionState.RUNNING, ExecutionState.COMMITTED, ExecutionState.LOST}),
    ExecutionState.RUNNING: frozenset({ExecutionState.COMMITTED, ExecutionState.LOST}),
    ExecutionState.COMMITTED: frozenset({ExecutionState.SEALED, ExecutionState.LOST}),
    ExecutionState.SEALED: frozenset({ExecutionState.OPENED, ExecutionState.LOST}),
    ExecutionState.OPENED: frozenset({ExecutionState.SETTLED, ExecutionState.DIFFERED, ExecutionState.LOST}),
    ExecutionState.SETTLED: frozenset(),
    ExecutionState.DIFFERED: frozenset(),
    ExecutionState.LOST: frozenset({ExecutionState.OPENED}),  # a sealed commit may be opened until the task ends
}

DUTY_STEPS: dict[DutyState, frozenset[DutyState]] = {
    DutyState.ASSIGNED: frozenset({DutyState.RUNNING}),
    DutyState.RUNNING: frozenset({DutyState.COMMITTED, DutyState.ASSIGNED}),  # back to ASSIGNED: the node restarted
    DutyState.COMMITTED: frozenset({DutyState.SEALED}),
    DutyState.SEALED: frozenset({DutyState.OPENED}),
    DutyState.OPENED: frozenset(),
}

TERMINAL_TASKS = frozenset(state for state, steps in TASK_STEPS.items() if not steps)
TERMINAL_JOBS = frozenset(state for state, steps in JOB_STEPS.items() if not steps)

# The walk of a job that goes well. The docs draw it, the scenario test expects it, the demo and `nexapod job events`
# print it, and tests compare all of them with this.
WALK = ("offer", "claim", "assign", "run", "commit", "seal", "open", "settle", "close")

S = TypeVar("S", JobState, TaskState, ExecutionState, DutyState)


def moved(old: S, new: S, steps: dict[S, frozenset[S]]) -> S:
    """`new`, if the table allows the step from `old`; anything else is a broken invariant."""
    assert new in steps[old], f"{type(old).__name__} {old.name} -> {new.name}"
    return new
