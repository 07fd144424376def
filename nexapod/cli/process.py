"""A daemon as a process: its command line, its start, whether it is ready, its end, and the end of its log.

Knows pids, signals and the console script beside this Python. Must never know what a daemon does.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from nexapod.cli.client import Api, DaemonDown
from nexapod.errors import Exit, LocalError
from nexapod.home import Home

PROGRAM = "nexapod-daemon"
READY_S = 60.0  # a slow disk replays a large ledger; an ordinary start takes two seconds
LOOK_S = 0.1
LOG_BYTES_SHOWN = 256 * 1024  # the most of a log that is read to show its end
LOG_LINES_SHOWN = 15


def daemon_command(home: Home, flags: Mapping[str, object] | None = None) -> list[str]:
    """The words that run a daemon in the foreground. `flags`: settings given on the command line, by key.

    Raises:
        LocalError: the program does not lie beside this Python.
    """
    program = Path(sys.executable).with_name(PROGRAM)
    if not program.is_file():
        why = f"there is no {program}"
        raise LocalError(f"the program {PROGRAM} is missing", why, "install nexapod again, into one environment")
    # Always the absolute folder: the daemon does not run where this command was typed.
    return [str(program), *(["--home", str(home.config)] if home.together else []), *flag_words(flags or {})]


def flag_words(flags: Mapping[str, object]) -> list[str]:
    """Settings as words of a command line; what was not given (None, or an empty list) is left out."""
    words: list[str] = []
    for key, value in flags.items():
        name = key.replace("_", "-")
        match value:
            case None:
                pass
            case bool():
                words.append(f"--{name}" if value else f"--no-{name}")
            case tuple():
                words += [word for item in value for word in (f"--{name}", str(item))]
            case _:
                words += [f"--{name}", str(value)]
    return words


def spawn(
    home: Home, flags: Mapping[str, object], environ: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a daemon of its own session, its output appended to the home's log.

    Returns the process and the length the log had before.
    """
    command = daemon_command(home, flags)
    home.make_folders()
    with _open_log(home.log_file) as log:
        before = os.fstat(log.fileno()).st_size
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.state,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalError(f"{command[0]} cannot be run", error.strerror or "", "install nexapod again") from None
    return process, before


def wait_ready(api: Api, ended: Callable[[], bool], log: Callable[[], str], deadline_s: float = READY_S) -> str:
    """Wait until the daemon is ready or says that it belongs to no network; its state. `ended`: whether it is gone.

    Raises:
        LocalError: it ended, or is not ready in time.
    """
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if ended():
            raise LocalError("the daemon ended before it was ready", log() or "its log is empty", "mend what it says")
        state = _state(api)
        if state == "unregistered" or (state and api.alive("/readyz")):
            return state
        time.sleep(LOOK_S)
    what = f"the daemon runs but is not ready after {deadline_s:.0f} s"
    raise LocalError(what, log(), "see: nexapod daemon logs", Exit.TIMED_OUT)


def daemon_pid(home: Home) -> int | None:
    """The process of this home's daemon, if the pid in its file is still one; another program may have got the pid."""
    try:
        pid = int(home.pid_file.read_text().strip())
    except (OSError, ValueError):
        return None
    return pid if pid > 0 and is_daemon(pid) else None


def is_daemon(pid: int) -> bool:
    """Whether a process is a nexapod-daemon. One that has ended and is not yet reaped has no command line: no."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) == PROGRAM.encode() for word in words[:4])


def end_daemon(pid: int, patience_s: Sequence[float], again: Callable[[], None]) -> bool:
    """Ask a daemon to end, once for every entry of `patience_s`, and wait that long each time; whether it has gone.

    `again` is called before every request but the first.
    """
    for number, patience in enumerate(patience_s):
        if number:
            again()
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return True
        except PermissionError:
            raise LocalError(f"process {pid} belongs to another user", "", "stop it as that user") from None
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if not is_daemon(pid):
                return True
            time.sleep(LOOK_S)
    return not is_daemon(pid)


def log_end(path: Path, count: int = LOG_LINES_SHOWN, start: int = 0) -> str:
    """The last lines of a log, of what was written from byte `start` on; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - LOG_BYTES_SHOWN))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def _state(api: Api) -> str:
    if not api.alive("/livez"):
        return ""
    try:
        return str(api.get("/status").get("state", ""))
    except DaemonDown:  # it went down between two questions; the next look says more
        return ""


def _open_log(path: Path) -> IO[bytes]:
    try:
        # Readable by the owner alone: a log names peers and jobs.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")
    except OSError as error:
        raise LocalError(f"the log {path} cannot be written", error.strerror or "", "choose another --home") from None
