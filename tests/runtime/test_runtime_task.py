"""Tasks and outcomes survive being written down and read again."""

from collections.abc import Callable

import msgspec
import pytest

from runtime.task import Broke, Finished, InputFile, Outcome, OutputFile, Reason, TaskSpec


def test_a_task_reads_back(task: Callable[..., TaskSpec]) -> None:
    spec = task(inputs=(InputFile("x", bytes(32), 1),), env=(("A", "1"),), command=("a",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=TaskSpec) == spec


@pytest.mark.parametrize(
    "outcome",
    [
        Finished(1, bytes(32), b"m", (OutputFile("a", 1, bytes(32)),), b"log", 5),
        Broke(Reason.TIMED_OUT, "too long", b"log"),
    ],
)
def test_an_outcome_reads_back_as_what_it_was(outcome: Outcome) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Outcome) == outcome
