"""Following a job on a real terminal: lines as they come, one line of progress, and ^C."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nexapod.cli.follow import Progress, batches
from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import EVENTS, JOB, Standin
from tests.cli.terminal import COLUMNS, INTERRUPT, on_terminal

CLEARED = "\r\x1b[K"


class Pages:
    """A story of two pages; the second is told when the test allows it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[dict[str, Any]] = []

    def __call__(self, query: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(query)
        after = int(query["after"])
        if after and not self.go_on.wait(60):
            raise AssertionError("the test never allowed the second page")
        page = EVENTS[after : after + 2]
        return {"events": page, "next": after + len(page), "state": "settled", "over": after > 0}


@pytest.fixture
def pages(standin: Standin) -> Pages:
    story = Pages()
    standin.answers |= {
        f"GET /v1/jobs/{JOB}/events": story,
        f"GET /v1/jobs/{JOB}": {"job": JOB, "state": "running", "ended": 1, "tasks": 2, "why": []},
    }
    return story


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_a_line_is_shown_when_it_comes_and_not_at_the_end(pages: Pages, output: str) -> None:
    with on_terminal("job", "events", JOB, "-f", "-o", output, TZ="UTC") as terminal:
        terminal.until("2 tasks, 2 replicas each")
        assert "settled" not in terminal.seen
        pages.go_on.set()
        terminal.until("settled")
        assert terminal.end() == 0
    assert "\x1b" not in terminal.seen
    assert [query["after"] for query in pages.asked] == ["0", "2"]
    if output == "jsonl":
        assert [json.loads(line) for line in terminal.seen.splitlines()] == EVENTS


@pytest.mark.parametrize("words", [("job", "events", JOB, "-f"), ("job", "wait", JOB)])
def test_interrupting_says_so_and_leaves_a_clean_line(pages: Pages, words: tuple[str, ...]) -> None:
    with on_terminal(*words) as terminal:
        terminal.until("2 tasks, 2 replicas each")
        if "wait" in words:
            terminal.until("1 of 2 tasks ended")
        terminal.press(INTERRUPT)
        assert terminal.end() == Exit.INTERRUPTED
        pages.go_on.set()
    assert "Traceback" not in terminal.seen
    assert terminal.seen.splitlines()[-1].endswith("interrupted")
    if "wait" in words:
        assert terminal.seen.endswith(f"{CLEARED}\r\ninterrupted\r\n")


def test_one_line_of_progress_stands_below_the_story(pages: Pages) -> None:
    with on_terminal("job", "wait", JOB) as terminal:
        shown = terminal.until("running · 1 of 2 tasks ended · 0 s")
        assert shown.splitlines()[0].startswith("offer")
        pages.go_on.set()
        assert terminal.end() == 0
    cleared = terminal.seen.replace("\r\n", "\n").split(CLEARED)
    assert len(cleared) == 2
    assert re.search(r"\nrunning · 1 of 2 tasks ended · \d+ s$", cleared[0])
    assert cleared[1].startswith("commit")
    assert cleared[1].endswith(f"job    {JOB}\nstate  settled\n")
    assert pages.asked[0]["wait_s"] == "1"  # so that the seconds go on


def test_progress_is_as_long_as_the_terminal_is_wide_and_obeys_nobody(pages: Pages, standin: Standin) -> None:
    evil = "\x1b]0;pwned\x07\x9b2J\r\n" + "x" * 500
    standin.answers[f"GET /v1/jobs/{JOB}"] = {"job": JOB, "state": evil, "ended": evil, "tasks": [evil]}
    with on_terminal("job", "wait", JOB) as terminal:
        terminal.until("x" * 40)
        pages.go_on.set()
        terminal.end()
    progress = terminal.seen.split(CLEARED)[0].splitlines()[-1]
    assert len(progress) == COLUMNS - 1
    assert not {"\x1b", "\x07", "\x9b"} & set(terminal.seen.replace(CLEARED, ""))


def test_without_a_terminal_there_is_no_progress(
    nexapod: Run, pages: Pages, standin: Standin, capfd: pytest.CaptureFixture[str]
) -> None:
    pages.go_on.set()
    code, _, err = nexapod("job", "wait", JOB)
    assert code == 0
    assert "tasks ended" not in err
    assert "\r" not in err
    assert pages.asked[0]["wait_s"] == "20"
    with Progress() as progress:
        progress.show(lambda: pytest.fail("nobody would see it"))
        progress.say("a\nb\x1b")
    assert capfd.readouterr() == ("", "a b \n")


def test_answers_without_a_line_do_not_make_a_busy_loop(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("nexapod.cli.follow.time.sleep", slept.append)
    from nexapod.cli.client import Api

    def empty(query: dict[str, Any]) -> dict[str, Any]:
        return {"events": [], "next": "nonsense", "over": len(slept) == 3}

    standin.answers["GET /v1/jobs/f/events"] = empty
    assert len(list(batches(Api(standin.home.socket()), "f"))) == 4
    assert slept == [0.2] * 3
    assert {body["after"] for _, body in standin.asked} == {"0"}


def test_results_on_a_terminal_are_text_or_refused(
    standin: Standin, nexapod: Run, results_of: Callable[[bytes], None]
) -> None:
    results_of(b"energy\x1b[2J -12.5\r\n\x9b31m")
    with on_terminal("results", "cat", JOB, "x") as terminal:
        assert terminal.end() == Exit.FAILURE  # not UTF-8: no text
        assert "this file is not text" in terminal.seen
    results_of("energy\x1b[2J \u202e-12.5\n".encode())
    with on_terminal("results", "cat", JOB, "x") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "energy [2J  -12.5\r\n"
    assert nexapod("results", "cat", JOB, "x")[1] == "energy\x1b[2J \u202e-12.5\n"  # a pipe gets the bytes


@pytest.fixture
def results_of(standin: Standin) -> Callable[[bytes], None]:
    import hashlib

    def offer(raw: bytes) -> None:
        file = {"path": "x", "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        standin.answers |= {
            f"GET /v1/jobs/{JOB}/results": {"job": JOB, "job_id": "f", "tasks": [{"task": 0, "files": [file]}]},
            f"GET /v1/jobs/{JOB}/results/0/x": raw,
        }

    return offer
