"""The process of a node: settings, log, one process per home, signals, exit code.

Knows the command line of `nexapod-daemon`. Must never know what a node does.
"""

import fcntl
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from nexapod.config import Config, load_config
from nexapod.errors import Exit, LocalError
from nexapod.home import Home, find_home

if TYPE_CHECKING:
    from daemon.app import Ending
    from daemon.local.desk import Desk

log = logging.getLogger("nexapod.daemon")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", metavar="DIR", help="Folder of the node (else NEXAPOD_HOME, else your own).")
@click.option("--name", help="What others call this node.")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Address to listen on; may be given several times.")
@click.option("--engine", help="What runs tasks: auto, docker or none.")
@click.option("--work/--no-work", default=None, help="Whether this node runs tasks of others.")
@click.option("--slots", type=int, help="Tasks at a time.")
@click.option("--lease-ms", type=int, help="How long an assignment lives without renewal.")
@click.option("--drain-s", type=int, help="When asked to stop, how long running tasks may take to finish.")
@click.option("--gossip/--no-gossip", default=None, help="Off: everything travels by direct exchange only.")
@click.option("--log-level", help="debug, info, warning or error.")
def daemon(home: str | None, listen: tuple[str, ...], **flags: Any) -> None:
    """Run a node until SIGTERM. People usually start it with `nexapod daemon start`."""
    sys.exit(serve(find_home(home, os.environ), {"listen": listen or None, **flags}))


def main() -> None:
    """The console script."""
    daemon(prog_name="nexapod-daemon")


def serve(home: Home, flags: dict[str, object]) -> int:
    """Run the node of a home; the exit code."""
    try:
        config = load_config(home, os.environ, flags)
        _start_log(config.log_level)
        if not home.key_file.exists():
            raise LocalError("this home has no node yet", f"{home.key_file} is missing", "run: nexapod init")
        home.make_folders()
        with _alone(home):
            trio.run(_serve, home, config, flags)
    except Exception as error:  # noqa: BLE001 - the last line: whatever ended the node is said here
        return _ended(error, flags.get("log_level") == "debug")
    return Exit.OK


async def _serve(home: Home, config: Config, flags: dict[str, object]) -> None:
    from daemon.app import Ending, run  # takes a second; what can be refused before is refused before
    from daemon.local.desk import Desk

    ending, desk = Ending(), Desk(home, config, lambda: load_config(home, os.environ, flags))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, ending, desk)
        await run(home, config, ending, desk)
        nursery.cancel_scope.cancel()


async def _heed_signals(ending: "Ending", desk: "Desk") -> None:
    """The first SIGTERM or SIGINT lets tasks finish, the second gives them back at once, the third ends the process.

    SIGHUP has the settings read again.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                await _reload(desk)
                continue
            if ending.now.is_set():
                os._exit(Exit.INTERRUPTED)
            log.info("asked to stop%s", " at once" if ending.soon.is_set() else "")
            (ending.now if ending.soon.is_set() else ending.soon).set()


async def _reload(desk: "Desk") -> None:
    try:
        await desk.reload()
    except LocalError as error:
        log.error("settings not taken: %s", error)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the home's lock and leave the pid for `nexapod daemon stop`.

    Raises:
        LocalError: another process runs this node.
    """
    with home.lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            why = f"its process is {_read_pid(home.pid_file) or 'not known'}"
            raise LocalError("this node runs already", why, "run: nexapod daemon stop") from None
        home.pid_file.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            home.pid_file.unlink(missing_ok=True)


def _read_pid(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _ended(error: Exception, debug: bool) -> int:
    """Say why the node ended, in one line where it is somebody's fault; the exit code."""
    found = _local_error(error)
    if found is None or debug:
        traceback.print_exception(error)
    if found is None:
        print("nexapod-daemon: it ended because of a mistake in it; it can be started again", file=sys.stderr)
        return Exit.FAILURE
    print(f"nexapod-daemon: {found}", file=sys.stderr)
    if found.next_step:
        print(f"  next: {found.next_step}", file=sys.stderr)
    return found.exit_code


def _local_error(error: BaseException) -> LocalError | None:
    """The LocalError inside what nurseries wrapped around it."""
    if isinstance(error, LocalError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _local_error(inner))), None)
    return None


# --- the log ----------------------------------------------------------------------------------------------------------
class _JsonLines(logging.Formatter):
    """One JSON object a line, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _stamp(record),
            "level": record.levelname.lower(),
            "part": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Plain(logging.Formatter):
    """One readable line, for people."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_stamp(record)[11:]} {record.levelname.lower():7} {record.name.removeprefix('nexapod.')}: "
        text += "".join(char if char.isprintable() else " " for char in record.getMessage())
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _start_log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain() if sys.stderr.isatty() else _JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("nexapod").setLevel(level.upper())
    for noisy in ("libp2p", "multiaddr", "hypercorn"):
        # What the library calls an error is mostly a peer that left; our own guards say what matters.
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
