"""`nexapod doctor`: is everything here that a node needs? Each check says ok, warn or fail, and the fix.

Knows what a node needs of its machine. Must never change anything.
"""

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nexapod.cli.client import Api, DaemonDown
from nexapod.cli.render import Column, joined, put_rows
from nexapod.cli.session import Session, command, room, session
from nexapod.config import Config, load_config
from nexapod.errors import LocalError, PeerError

GB = 10**9
ENGINE_S = 5.0
COLUMNS = [Column("check", "CHECK"), Column("result", "RESULT"), Column("detail", "DETAIL"), Column("fix", "FIX")]


class Finding(NamedTuple):
    """What a check found: ok, warn or fail; in words; and what to do about it."""

    result: str
    detail: str
    fix: str = ""


@command("doctor")
def doctor() -> None:
    """Check this node from Python to peers; exit 1 when something must be mended."""
    here = session()
    rows = [{"check": name} | found._asdict() for name, found in findings(here)]
    put_rows(here.output, rows, COLUMNS)
    failed = sum(row["result"] == "fail" for row in rows)
    if failed:
        raise LocalError(f"{failed} of {len(rows)} checks failed", "", "mend what the table says")


def findings(here: Session) -> Iterator[tuple[str, Finding]]:
    """Every check and what it found, in the order in which a node needs things."""
    try:
        config = load_config(here.home, os.environ)
        there = here.home.config_file.exists()
        settings = Finding("ok", str(here.home.config_file) if there else "defaults; there is no config.toml")
    except LocalError as error:
        config, settings = None, Finding("fail", error.why.replace("\n", "; "), error.next_step)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("key", lambda: _key(here)),
        ("network", lambda: _network(here)),
        ("settings", lambda: settings),
        ("home", lambda: _home(here, config)),
        ("engine", lambda: _engine(config)),
        ("clock", lambda: _clock(here)),
        ("ports", lambda: _ports(here, config)),
        ("daemon", lambda: _daemon(here)),
    ]
    for name, check in checks:
        yield name, check()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 13):
        return Finding("ok", version)
    return Finding("fail", f"{version}; NEXAPod needs 3.11 or 3.12", "install nexapod with that Python")


def _key(here: Session) -> Finding:
    path = here.home.key_file
    try:
        seen = path.stat()
    except OSError:
        return Finding("fail", f"{path} is missing", f"{here.nexapod} init")
    if seen.st_uid != os.geteuid():
        return Finding("fail", f"{path} belongs to another user", f"chown {os.geteuid()} {path}")
    if seen.st_mode & 0o077:
        return Finding("fail", f"{path} can be read by others", f"chmod 600 {path}")
    return Finding("ok", str(path))


def _network(here: Session) -> Finding:
    path = here.home.manifest_file
    try:
        manifest = room("bootstrap.manifest").decode_manifest(path.read_bytes())
    except FileNotFoundError:
        return Finding("warn", "belongs to no network yet", f"{here.nexapod} bootstrap import FILE")
    except (OSError, PeerError) as error:
        return Finding("fail", f"{path} is damaged: {error}", "restore it from a backup, or begin a new home")
    return Finding("ok", str(manifest.name))


def _home(here: Session, config: Config | None) -> Finding:
    folder = here.home.data
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("fail", f"{folder} cannot be written: {error.strerror}", "choose another --home")
    wanted = config.disk_gb * GB if config else 0
    detail = f"{free / GB:.0f} GB free in {folder}"
    if free < GB:
        return Finding("fail", detail, "free some room: a node stops taking work without it")
    if free < wanted:
        return Finding("warn", f"{detail}, disk_gb lends {wanted / GB:.0f}", "free some room, or lower disk_gb")
    return Finding("ok", detail)


def _engine(config: Config | None) -> Finding:
    if config and (config.engine == "none" or not config.work):
        return Finding("ok", "this node runs no tasks (settings engine, work)")
    tried: list[str] = []
    for address in room("runtime.sockets").candidates():
        scheme, _, path = address.partition("://")
        if scheme != "unix":
            return Finding("warn", f"{address} is not a unix socket and was not asked", "see: nexapod status")
        try:
            found = Api(Path(path)).get("/version", timeout_s=ENGINE_S)
        except DaemonDown as error:
            tried.append(f"{path} ({_reason(Path(path)) or error.why})")
            continue
        except LocalError as error:
            tried.append(f"{path} ({error})")
            continue
        return Finding("ok", f"version {found.get('Version', '?')} at {path}")
    fix = "start Docker or Podman and become a member of its group; without one, set engine to none"
    return Finding("fail", f"no container engine answers: {'; '.join(tried)}", fix)


def _reason(path: Path) -> str:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(ENGINE_S)
            probe.connect(str(path))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _clock(here: Session) -> Finding:
    """A clock that is behind the files it has written itself was set back; times are for people, but people look."""
    newest = max(
        (path.stat().st_mtime for path in (Path(__file__), here.home.log_file, here.home.key_file) if path.exists()),
        default=0.0,
    )
    now = time.time()
    if now + 60 < newest:
        return Finding(
            "fail", f"it is {(newest - now) / 3600:.1f} hours behind files on this disk", "set the clock (NTP)"
        )
    return Finding("ok", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now)))


def _ports(here: Session, config: Config | None) -> Finding:
    if config is None:
        return Finding("warn", "not looked at: the settings have faults")
    if here.api.alive():
        return Finding("ok", "the daemon listens")
    taken = [f"{address}: {why}" for address in config.listen if (why := _in_the_way(address))]
    if taken:
        return Finding("fail", "; ".join(taken), f"end what listens there, or change listen in {here.home.config_file}")
    return Finding("ok", f"free: {joined(config.listen)}")


def _in_the_way(address: str) -> str:
    """Why a TCP address such as /ip4/0.0.0.0/tcp/4001 cannot be listened on, or empty."""
    _, kind, host, _, port, *_ = address.split("/")
    if kind not in ("ip4", "ip6"):
        return ""  # a name is looked up by the daemon
    try:
        with socket.socket(socket.AF_INET if kind == "ip4" else socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _daemon(here: Session) -> Finding:
    try:
        status = here.api.get("/status", timeout_s=ENGINE_S)
    except DaemonDown:
        return Finding("warn", "not running", f"{here.nexapod} daemon start")
    except LocalError as error:
        return Finding("fail", str(error), f"{here.nexapod} daemon restart")
    why = joined(status.get("why"))
    if status.get("state") == "unregistered":
        return Finding("warn", "runs, but belongs to no network", f"{here.nexapod} bootstrap import FILE")
    if not status.get("healthy"):
        return Finding("warn", f"not healthy: {why}", f"what it says; {here.nexapod} daemon logs")
    return Finding("ok", f"{status.get('state')}, {status.get('peers')} peers" + (f"; {why}" if why else ""))
