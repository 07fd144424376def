"""The group `daemon`: start, stop, restart, status, logs, install.

Knows the one process of a home. Must never know what it does: status asks it.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nexapod.cli.process import (
    LOOK_S,
    PROGRAM,
    daemon_command,
    daemon_pid,
    end_daemon,
    is_daemon,
    log_end,
    spawn,
    wait_ready,
)
from nexapod.cli.render import Column, put, put_one, say
from nexapod.cli.session import Group, Session, session
from nexapod.errors import Exit, LocalError

DRAIN_S, LEAVE_S = 60.0, 15.0  # after the first request running tasks may end; after the second nothing is waited for
UNIT = """\
[Unit]
Description=NEXAPod daemon
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec={stop_s:.0f}

[Install]
WantedBy=default.target
"""
F = TypeVar("F", bound=Callable[..., Any])


def _setting_flags(function: F) -> F:
    """The settings a daemon takes as flags; they come before environment and config.toml."""
    flags = [
        click.option("--name", help="What others call this node."),
        click.option("--listen", multiple=True, metavar="ADDRESS", help="Address to listen on; may be repeated."),
        click.option("--engine", help="What runs tasks: auto, docker or none."),
        click.option("--work/--no-work", default=None, help="Whether this node runs tasks of others."),
        click.option("--slots", type=int, help="Tasks at a time; 0: as many as the machine carries."),
        click.option("--lease-ms", type=int, help="How long an assignment lives without renewal."),
        click.option("--gossip/--no-gossip", default=None, help="Off: everything travels by direct exchange only."),
        click.option("--log-level", help="debug, info, warning or error."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


@click.group("daemon", cls=Group, lazy={"status": "nexapod.cli.node:status"})
def daemon() -> None:
    """The process that makes this machine a node."""


@daemon.command("start")
@click.option("--foreground", is_flag=True, help="Stay here until SIGTERM or ^C.")
@_setting_flags
def start(foreground: bool, **flags: Any) -> None:
    """Start the daemon; returns when it is ready."""
    _start(session(), {key: value for key, value in flags.items() if value not in (None, ())}, foreground=foreground)


@daemon.command("stop")
def stop() -> None:
    """Stop the daemon: no new work, running tasks may end, then it leaves."""
    here = session()
    pid = daemon_pid(here.home)
    if pid is None:
        why = f"no {PROGRAM} has the pid in {here.home.pid_file}"
        if here.api.alive():
            raise LocalError("the daemon answers, but its process is not known", why, "stop it where it was started")
        raise LocalError("the daemon is not running", why, f"start it: {here.nexapod} daemon start", Exit.NO_DAEMON)
    _stop(pid)
    say(f"stopped (pid {pid})")


@daemon.command("restart")
@_setting_flags
def restart(**flags: Any) -> None:
    """Stop the daemon if it runs, and start it."""
    pid = daemon_pid(session().home)
    if pid is not None:
        _stop(pid)
    _start(session(), {key: value for key, value in flags.items() if value not in (None, ())}, foreground=False)


@daemon.command("logs")
@click.option("-n", "--lines", "count", default=50, show_default=True, help="How many lines of the past.")
@click.option("-f", "--follow", is_flag=True, help="Go on until ^C.")
def logs(count: int, follow: bool) -> None:
    """What the daemon wrote."""
    path = session().home.log_file
    if not path.exists():
        raise LocalError("there is no log yet", f"no file {path}", "start the daemon first", Exit.NOT_FOUND)
    now = path.stat()
    read = (now.st_ino, now.st_size)
    if count > 0 and (text := log_end(path, count)):
        put(text)
    while follow:
        time.sleep(LOOK_S)
        read = _print_from(path, *read)


@daemon.command("install")
@click.option("--write", is_flag=True, help="Write it to your systemd folder instead of stdout.")
def install(write: bool) -> None:
    """A systemd user unit that starts this node's daemon with your session."""
    unit = UNIT.format(command=" ".join(map(_unit_word, daemon_command(session().home))), stop_s=DRAIN_S + LEAVE_S)
    if not write:
        click.echo(unit, nl=False)
        say("write it with: nexapod daemon install --write")
        return
    root = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = root / "systemd/user/nexapod.service"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit, encoding="utf-8")
    except OSError as error:
        raise LocalError(f"{path} cannot be written", error.strerror or "", "print it: leave --write out") from None
    put(str(path))
    say("next: systemctl --user daemon-reload && systemctl --user enable --now nexapod")
    say("to run while you are logged out: loginctl enable-linger")


def _start(here: Session, flags: dict[str, object], *, foreground: bool) -> None:
    from nexapod.config import load_config

    home = here.home
    if not home.key_file.exists():
        why = f"there is no key in {home.config}"
        raise LocalError("this home has no node yet", why, f"make one: {here.nexapod} init")
    load_config(home, os.environ, flags)  # faults are told here, not in a log
    pid = daemon_pid(home)
    if here.api.alive() or pid is not None:
        state = wait_ready(here.api, lambda: pid is not None and not is_daemon(pid), lambda: log_end(home.log_file))
        say("already running")
    elif foreground:
        command = daemon_command(home, flags)
        sys.stdout.flush()
        os.execv(command[0], command)
    else:
        process, before = spawn(home, flags)
        pid = process.pid
        ended, log = (lambda: process.poll() is not None), (lambda: log_end(home.log_file, start=before))
        try:
            state = wait_ready(here.api, ended, log)
        except KeyboardInterrupt:
            say(f"the daemon goes on starting (pid {pid}); stop it with: {here.nexapod} daemon stop")
            raise
    answer = {"pid": pid or 0, "state": state, "socket": str(home.socket()), "log": str(home.log_file)}
    put_one(here.output, answer, [Column(key, key) for key in answer])
    if state == "unregistered":
        say(f"belongs to no network yet; next: {here.nexapod} bootstrap import FILE")


def _stop(pid: int) -> None:
    def again() -> None:
        say(f"still there after {DRAIN_S:.0f} s, tasks may be running; asking it to leave at once")

    try:
        gone = end_daemon(pid, (DRAIN_S, LEAVE_S), again)
    except KeyboardInterrupt:
        say(f"pid {pid} has been asked to stop and will when its tasks end; ask again to make it leave at once")
        raise
    if not gone:
        what = f"the daemon did not leave within {DRAIN_S + LEAVE_S:.0f} s"
        next_step = f"see: nexapod daemon logs; as a last resort: kill -9 {pid}"
        raise LocalError(what, f"pid {pid}", next_step, Exit.TIMED_OUT)


def _print_from(path: Path, inode: int, size: int) -> tuple[int, int]:
    """Print what came after byte `size`; another file, or one that shrank, was begun anew. Returns where it is now."""
    try:
        with path.open("rb") as file:
            now = os.fstat(file.fileno())
            start = size if inode == now.st_ino and size <= now.st_size else 0
            file.seek(start)
            fresh = file.read()
    except OSError:  # rotated away a moment ago
        return 0, 0
    whole = fresh[: fresh.rfind(b"\n") + 1]  # half a line is printed when the rest is there
    if whole:
        put(whole.decode(errors="replace").rstrip("\n"))
    return now.st_ino, start + len(whole)


def _unit_word(word: str) -> str:
    """A word as systemd reads it: percent and dollar signs are its own."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{safe}"' if any(char in safe for char in " \t'\"\\;") else safe
