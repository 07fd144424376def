"""Many steps become few lines."""

import time

import pytest

from nexapod.cli.story import clock, told


def test_steps_of_one_kind_by_one_node_are_one_line() -> None:
    tasks = [0, 1, 2, 5]
    events = [{"step": "run", "task": task, "name": "inn", "text": "round 0", "ms": 7} for task in tasks]
    events[1:1] = [{"step": "run", "task": 0, "name": "aare", "text": "round 0"}]
    assert [str(line) for line in told(events)] == [
        "run      tasks 0-2,5  inn          round 0",
        "run      task 0       aare         round 0",
    ]


def test_what_differs_between_tasks_is_left_out() -> None:
    events = [
        {"step": "open", "task": task, "name": "", "node": "ab" * 32, "text": f"result {task}"} for task in (1, 2)
    ]
    assert [str(line) for line in told(events)] == ["open     tasks 1-2    abababababab"]
    assert told([]) == []


def test_the_clock_survives_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert clock(1_700_000_000_000) == "22:13:20"
    for nonsense in (None, "x", -1, 2**70):
        assert clock(nonsense) == ""
