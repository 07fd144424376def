"""What the executions of a task have opened, in the words of ledger/verdict.py.

Knows how an owner's book and a verdict name the same thing. Must never decide what follows from it: that is owner.py.
"""

from daemon.core.ownerbook import Execution, Task
from daemon.core.states import TERMINAL_TASKS, ExecutionState
from ledger.verdict import Case, SealedCommit
from nexapod.messages import OpeningNote

WITHHELD = "withheld its opening"


def names_of(case: Case, worker: bytes) -> frozenset[bytes]:
    """What no two executors of a task may share."""
    return case.names(SealedCommit(b"", worker, 0, 0, b""))


def opens_late(task: Task, execution: Execution, note: OpeningNote) -> bool:
    """Whether an opening counts although its lease ran out: until the task ends, unless it would undo an agreement."""
    withheld = execution.state == ExecutionState.LOST and execution.why == WITHHELD
    return withheld and task.state not in TERMINAL_TASKS and task.root in (None, note.root)


def sealed_of(task: Task, execution: Execution) -> SealedCommit:
    """A sealed execution as its commit bound it."""
    assert execution.commit is not None
    assert execution.digest is not None
    return SealedCommit(execution.commit, execution.worker, task.index, execution.round, execution.digest)


def openings_of(task: Task) -> dict[bytes, tuple[SealedCommit, OpeningNote]]:
    """Every opened execution of a task by commit id, in that order."""
    found = {
        execution.commit: (sealed_of(task, execution), execution.opening)
        for execution in task.executions
        if execution.state == ExecutionState.OPENED and execution.commit and execution.opening
    }
    return dict(sorted(found.items()))
