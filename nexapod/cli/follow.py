"""Waiting for a job: its story as it grows, a line of progress on a terminal, and what its end means for the exit code.

Knows the answers about one job. Must never publish or change one.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from nexapod.cli.client import Api, rows, segment
from nexapod.cli.render import plain, short
from nexapod.cli.story import told
from nexapod.errors import Exit, LocalError

POLL_S = 20  # how long one question waits for a line; the daemon allows 25
PAUSE_S = 0.2  # before an answer without a line that came at once is asked for again
POLL_SHOWN_S = 1  # the same while a line of progress is shown: it tells the time
ENDS = {
    "settled": Exit.OK,
    "failed": Exit.JOB_FAILED,
    "disputed": Exit.DISPUTED,
    "cancelled": Exit.JOB_FAILED,
}


def batches(api: Api, job: str, *, after: int = 0, wait_s: int = POLL_S, until: float | None = None) -> Iterator[Any]:
    """Answers of the story, one after the other until it is over or the clock (monotonic) passes `until`."""
    while True:
        wait = wait_s if until is None else max(0, min(wait_s, int(until - time.monotonic() + 1)))
        begun = time.monotonic()
        answer = api.get(f"/v1/jobs/{segment(job)}/events", timeout_s=wait + 30.0, after=after, wait_s=wait)
        after = _number(answer.get("next"), after)
        yield answer
        if answer.get("over") or (until is not None and time.monotonic() >= until):
            return
        if not answer.get("events") and time.monotonic() - begun < PAUSE_S:
            time.sleep(PAUSE_S)


def wait_for(api: Api, job: str, timeout_s: float | None, nexapod: str = "nexapod") -> str:
    """Tell the story on stderr until the job is over; its final state.

    Raises:
        LocalError: not over in time; the job goes on.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    with Progress() as progress:
        for answer in batches(api, job, wait_s=POLL_SHOWN_S if progress.shown else POLL_S, until=until):
            for line in told(rows(answer, "events")):
                progress.say(str(line))
            if answer.get("over"):
                return str(answer.get("state", ""))
            progress.show(lambda: _progress(api, job))
    what = f"job {short(job)} is not over after {timeout_s or 0:.0f} s"
    raise LocalError(what, "it goes on", f"wait again: {nexapod} job wait {short(job)}", Exit.TIMED_OUT)


def check_end(job: str, state: str, why: str, nexapod: str = "nexapod") -> None:
    """
    Raises:
        LocalError: the job ended in another state than settled, with that state's exit code.
    """
    code = ENDS.get(state, Exit.FAILURE)
    if code is not Exit.OK:
        raise LocalError(f"job {short(job)} is {state}", why, f"see: {nexapod} job show {short(job)}", code)


class Progress:
    """One line at the foot of a terminal; with no terminal, nothing."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self._began, self._open = time.monotonic(), False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        click.echo(plain(text), err=True)

    def show(self, text: Callable[[], str]) -> None:
        """Replace the line; `text` is asked only when it will be seen."""
        if self.shown:
            line = f"{plain(text())} · {time.monotonic() - self._began:.0f} s"
            self._clear()
            self._open = True  # before it is: ^C may come in between, and nothing may be left behind then
            click.echo(line[: _width()], err=True, nl=False)

    def _clear(self) -> None:
        if self._open:
            click.echo("\r\x1b[K", err=True, nl=False, color=True)
            self._open = False


def _progress(api: Api, job: str) -> str:
    found = api.get(f"/v1/jobs/{segment(job)}")
    return f"{found.get('state', '?')} · {found.get('ended', 0)} of {found.get('tasks', '?')} tasks ended"


def _width() -> int:
    import shutil

    return max(20, shutil.get_terminal_size().columns - 1)


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
