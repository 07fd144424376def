"""One parser under fire: counts, times and memory, and the first input that breaks a promise.

Knows the promises: only declared rejections, accepted values that are what was read, at most 50 ms, at most 20 MB.
Must never know a format. A busy machine is no fault of a parser: what was slow once is timed again, the fastest counts.
"""

import ctypes
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from types import FrameType

from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import Parser

MS_MAX = 50.0
MB_MAX = 20.0
STUCK_S = 5.0  # longer on one input: it is given up and reported
AGAIN = 5  # timings of an input that was slow
_MB = 1024 * 1024


class Broken(Exception):
    """A promise is broken; carries the input that broke it and where the generator finds it."""

    def __init__(self, parser: str, why: str, raw: bytes, place: str) -> None:
        super().__init__(f"{parser}: {why} ({place}, {len(raw)} bytes)")
        self.parser, self.why, self.raw, self.place = parser, why, raw, place

    def save(self, folder: Path) -> Path:
        """Keep the input where a person finds it: a line each for parser, reason, place, and the input in hex."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ("-".join(re.findall("[A-Za-z0-9.]+", f"{self.parser} {self.place}")) + ".txt")
        path.write_text(f"{self.parser}\n{self.why}\n{self.place}\n{self.raw.hex()}\n", encoding="utf-8")
        return path


class _Stuck(BaseException):
    """Raised in the middle of a parser that does not come back; no parser may catch it."""


@dataclass
class Tally:
    """What a run came to. `slowest_ms` and `peak_mb` are of the parser alone; `grown_mb` is what it kept."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    grown_mb: float = 0.0

    def __str__(self) -> str:
        rate = self.inputs / self.seconds if self.seconds else 0
        return (
            f"{self.parser:22} {self.inputs:>9} {rate:>8.0f} {self.accepted:>9} {self.inputs - self.accepted:>9} "
            f"{self.slowest_ms:>8.1f} {self.grown_mb:>7.1f} {self.peak_mb:>7.1f}"
        )


HEAD = "parser                    inputs    per s  accepted  rejected   max ms  rss MB peak MB"


def run(parser: Parser, seed: str, *, inputs: int | None = None, seconds: float | None = None) -> Tally:
    """Feed mutated inputs until enough were tried or the time is up.

    Raises:
        Broken: at the first input that breaks a promise.
    """
    mutator = Mutator(parser.form, parser.seeds(), parser.large(), size_max=parser.size_max)
    tally, start = Tally(parser.name), perf_counter()
    for one in (*parser.seeds(), *parser.large()):  # also warms up what is made once
        before = tally.accepted
        _try(parser, one.raw, tally, "a seed")
        if tally.accepted == before and one.sound:
            raise Broken(parser.name, "refuses a valid seed", one.raw, "a seed")
    gc.collect()
    _trim()
    resident, peak = _resident_mb(), _reset_peak()
    tally.inputs = tally.accepted = 0
    with _watched():
        for number in count():
            done = _block(parser, mutator, (seed, number), tally, lambda: _over(tally, start, inputs, seconds))
            tally.seconds = perf_counter() - start
            tally.peak_mb = max(tally.peak_mb, _peak_mb() - peak)
            _trim()
            tally.grown_mb, _ = max(0.0, _resident_mb() - resident), _reset_peak()
            if max(tally.peak_mb, tally.grown_mb) > MB_MAX:
                raise _hungry(parser, mutator, (seed, number), tally.peak_mb)
            if done:
                break
    return tally


def _over(tally: Tally, start: float, inputs: int | None, seconds: float | None) -> bool:
    return tally.inputs == inputs or (seconds is not None and perf_counter() - start > seconds)


def _block(parser: Parser, mutator: Mutator, block: tuple[str, int], tally: Tally, over: Callable[[], bool]) -> bool:
    """One block of inputs; whether it was the last one."""
    at = 0
    try:
        for at, raw in enumerate(mutator.block(*block)):
            _try(parser, raw, tally, _place(block, at))
            if over():
                return True
    except _Stuck:
        raw = next(raw for index, raw in enumerate(mutator.block(*block)) if index == at)
        raise Broken(parser.name, f"takes more than {STUCK_S} s", raw, _place(block, at)) from None
    return False


def _place(block: tuple[str, int], at: int) -> str:
    return f"seed {block[0]} block {block[1]} input {at}"


def judge(parser: Parser, raw: bytes) -> Tally:
    """One input alone. Raises: Broken."""
    tally = Tally(parser.name)
    with _watched():
        try:
            _try(parser, raw, tally, "one input")
        except _Stuck:
            raise Broken(parser.name, f"takes more than {STUCK_S} s", raw, "one input") from None
    return tally


def _try(parser: Parser, raw: bytes, tally: Tally, place: str) -> None:
    start = perf_counter()
    try:
        value = parser.read(raw)
    except parser.declared:
        spent = perf_counter() - start
    except Exception as error:
        raise Broken(parser.name, f"raises {type(error).__name__}: {str(error)[:200]}", raw, place) from error
    else:
        spent = perf_counter() - start
        tally.accepted += 1
        if not parser.sound(raw, value):
            raise Broken(parser.name, "accepts what it does not write like this", raw, place)
    tally.inputs += 1
    _tick[0] += 1
    if spent * 1000 > tally.slowest_ms:
        tally.slowest_ms = max(tally.slowest_ms, min(spent * 1000, _again_ms(parser, raw)))
        if tally.slowest_ms > MS_MAX:
            raise Broken(parser.name, f"takes {tally.slowest_ms:.1f} ms", raw, place)


def _again_ms(parser: Parser, raw: bytes) -> float:
    """The fastest of a few more tries, by the time this process was given."""
    best = float("inf")
    for _ in range(AGAIN):
        start = process_time()
        try:
            value = parser.read(raw)
        except parser.declared:
            best = min(best, process_time() - start)
        else:
            best = min(best, process_time() - start)
            parser.sound(raw, value)  # some leave things behind that `sound` takes away
    return best * 1000


def _hungry(parser: Parser, mutator: Mutator, block: tuple[str, int], peak: float) -> Broken:
    """The input of a block that needs most memory at once."""
    most, worst, place = -1.0, b"", ""
    for at, raw in enumerate(mutator.block(*block)):
        before = _reset_peak()
        judge(parser, raw)
        if (taken := _peak_mb() - before) > most:
            most, worst, place = taken, raw, _place(block, at)
    return Broken(parser.name, f"memory grew by {peak:.1f} MB, by {most:.1f} MB with this input", worst, place)


# --- memory and patience ----------------------------------------------------------------------------------------------
def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {name} in /proc/self/status")


def _resident_mb() -> float:
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    return _status_mb("VmHWM")


def _trim() -> None:
    """Give back what malloc keeps for later: the holes that inputs of all sizes leave are no growth of a parser."""
    with suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> float:
    """Forget the peak so far and return it as it is now; where that is not allowed, only higher peaks are seen."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mb()


_tick = [0, 0]  # inputs done, and how many there were when the watch last looked


@contextmanager
def _watched() -> Iterator[None]:
    """Raise _Stuck in a parser that has not come back between two looks."""

    def look(_: int, __: FrameType | None) -> None:
        if _tick[0] == _tick[1]:
            raise _Stuck
        _tick[1] = _tick[0]

    _tick[1] = -1
    before = signal.signal(signal.SIGVTALRM, look)  # counts the time of this process: a busy machine does not matter
    signal.setitimer(signal.ITIMER_VIRTUAL, STUCK_S, STUCK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def scratch_parent() -> Path | None:
    """Where scratch files are kept in memory, when there is such a place."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None
