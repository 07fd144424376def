"""A command line on a terminal of its own: what a person sees, and the keys they press."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60.0
COLUMNS = 100
INTERRUPT = b"\x03"
# Where tests run in the background ^C is ignored, and so it would be by what they start.
START = (
    "import fcntl, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.default_int_handler); from nexapod.cli.main import main; main(sys.argv[1:])"
)


class Terminal:
    """Reads what the command writes; `seen` is all of it so far."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master, self._process, self._raw = master, process, b""

    @property
    def seen(self) -> str:
        return self._raw.decode(errors="replace")

    def until(self, text: str) -> str:
        """Wait until the command has written a text; all that it has written."""
        until = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert self._more(until), f"it ended without {text!r}: {self.seen!r}"
        return self.seen

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def end(self) -> int:
        """Wait until the command ends; its exit code."""
        until = time.monotonic() + DEADLINE_S
        while self._more(until):
            pass
        return self._process.wait(DEADLINE_S)

    def _more(self, until: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"nothing more came: {self.seen!r}"
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # how Linux says that nobody holds the other end any more
            return False
        self._raw += chunk
        return bool(chunk)


@contextmanager
def on_terminal(*words: str, **environ: str) -> Iterator[Terminal]:
    """Run a command line on a terminal of a hundred columns; it is killed when the context ends before it."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, COLUMNS))
    root = str(Path(__file__).parent.parent.parent)
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    env |= {"PYTHONPATH": root, "TERM": "xterm"} | environ
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
