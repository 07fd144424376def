"""The tables of states."""

from enum import IntEnum
from typing import Any

import pytest

from daemon.core import states
from daemon.core.states import DutyState, ExecutionState, JobState, TaskState, moved

TABLES: list[tuple[type[IntEnum], dict[Any, frozenset[Any]]]] = [
    (JobState, states.JOB_STEPS),
    (TaskState, states.TASK_STEPS),
    (ExecutionState, states.EXECUTION_STEPS),
    (DutyState, states.DUTY_STEPS),
]


@pytest.mark.parametrize(("kind", "steps"), TABLES)
def test_every_state_stands_in_its_table_and_can_be_reached(kind: type[IntEnum], steps: dict[Any, Any]) -> None:
    assert set(steps) == set(kind)
    reached = {next(iter(kind))}
    while more := {to for state in reached for to in steps[state]} - reached:
        reached |= more
    assert reached == set(kind)


@pytest.mark.parametrize(("kind", "steps"), TABLES)
def test_only_the_steps_of_the_table_are_taken(kind: type[IntEnum], steps: dict[Any, Any]) -> None:
    for old in kind:
        for new in kind:
            if new in steps[old]:
                assert moved(old, new, steps) == new  # type: ignore[type-var]
            else:
                with pytest.raises(AssertionError):
                    moved(old, new, steps)  # type: ignore[type-var]


def test_what_has_ended_stays_so() -> None:
    assert {"SETTLED", "DISPUTED", "FAILED", "CANCELLED"} == {state.name for state in states.TERMINAL_TASKS}
    assert {"SETTLED", "DISPUTED", "FAILED", "CANCELLED"} == {state.name for state in states.TERMINAL_JOBS}
