"""What executions have opened, and which openings still count."""

import pytest

from daemon.core.openings import WITHHELD, openings_of, opens_late
from daemon.core.ownerbook import Execution, Task
from daemon.core.states import ExecutionState, TaskState
from nexapod.hashing import blob_id
from nexapod.messages import OpeningNote

ROOT = blob_id(b"root")


def note(commit: bytes = b"", root: bytes = ROOT) -> OpeningNote:
    return OpeningNote(0, 0, commit, b"n" * 16, "x", 1, root)


def test_openings_come_in_the_order_of_their_commits() -> None:
    commits = sorted(blob_id(bytes([number])) for number in range(4))
    states = (ExecutionState.OPENED, ExecutionState.LOST, ExecutionState.OPENED, ExecutionState.SEALED)
    executions = [
        Execution(blob_id(commit), 0, state, commit, blob_id(b"d"), note(commit))
        for commit, state in zip(commits, states, strict=True)
    ]
    task = Task(0, executions=executions[::-1])
    assert list(openings_of(task)) == [commits[0], commits[2]]


@pytest.mark.parametrize(
    ("state", "why", "task_state", "root", "counts"),
    [
        (ExecutionState.LOST, WITHHELD, TaskState.WAITING, None, True),
        (ExecutionState.LOST, WITHHELD, TaskState.AGREED, ROOT, True),
        (ExecutionState.LOST, WITHHELD, TaskState.AGREED, blob_id(b"another"), False),
        (ExecutionState.LOST, WITHHELD, TaskState.SETTLED, ROOT, False),
        (ExecutionState.LOST, "its outputs could not be fetched", TaskState.WAITING, None, False),
        (ExecutionState.OPENED, "", TaskState.WAITING, None, False),
    ],
)
def test_which_late_openings_count(
    state: ExecutionState, why: str, task_state: TaskState, root: bytes | None, counts: bool
) -> None:
    execution = Execution(blob_id(b"w"), 0, state, why=why)
    assert opens_late(Task(0, task_state, root=root), execution, note()) is counts
