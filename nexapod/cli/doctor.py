"""`nexapod doctor`: is everything here that a node needs? Each check says ok, warn or fail, and the fix.

Knows the order of the checks and what the daemon says of itself. Must never change anything.
"""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed
from typing import Any

from nexapod.cli import doctor_machine as machine
from nexapod.cli.client import DaemonDown, rows, texts
from nexapod.cli.doctor_engine import engine_findings
from nexapod.cli.finding import Finding, fail, ok, together, warn
from nexapod.cli.process import daemon_pid
from nexapod.cli.render import Column, put_rows
from nexapod.cli.session import Session, command, room, session
from nexapod.config import Config, load_config
from nexapod.errors import LocalError, PeerError

STATUS_S = 5.0
COLUMNS = [Column("check", "CHECK"), Column("result", "RESULT"), Column("detail", "DETAIL"), Column("fix", "FIX")]


@command("doctor")
def doctor() -> None:
    """Check this node from Python to peers; exit 1 when something must be mended."""
    here = session()
    found = [{"check": name} | finding._asdict() for name, finding in findings(here)]
    put_rows(here.output, found, COLUMNS)
    failed = sum(row["result"] == "fail" for row in found)
    if failed:
        raise LocalError(f"{failed} of {len(found)} checks failed", "", "mend what the table says")


def findings(here: Session) -> Iterator[tuple[str, Finding]]:
    """Every check and what it found, in the order in which a node needs things."""
    config, settings = _settings(here)
    status, answer = _status(here)
    names, gpu = machine.gpus()
    yield "python", machine.python(sys.version_info[:3])
    yield "key", machine.key(here.home, here.nexapod)
    yield "settings", settings
    yield "network", _network(here)
    yield "home", machine.folders(here.home)
    yield "disk", machine.disk(here.home, config)
    told = dict(engine_findings(config, names))
    yield from told.items()
    if "gpu" not in told:
        yield "gpu", gpu
    yield "clock", machine.clock(here.home)
    yield "ports", machine.ports(here.home, config, status)
    yield "reach", machine.reach(here.home, config, status)
    yield "daemon", answer if status is None else _daemon(here, status)
    if status is not None and status.get("state") != "unregistered":
        yield "peers", _peers(here, status)


def _settings(here: Session) -> tuple[Config | None, Finding]:
    try:
        config = load_config(here.home, os.environ)
    except LocalError as error:
        return None, fail(error.why.replace("\n", "; "), error.next_step)
    there = here.home.config_file.exists()
    return config, ok(str(here.home.config_file) if there else "defaults; there is no config.toml")


def _network(here: Session) -> Finding:
    path = here.home.manifest_file
    try:
        manifest = room("bootstrap.manifest").decode_manifest(path.read_bytes())
    except FileNotFoundError:
        return warn("belongs to no network yet", f"{here.nexapod} bootstrap import FILE")
    except (OSError, PeerError) as error:
        return fail(f"{path} is damaged: {error}", "restore it from a backup, or begin a new home")
    return ok(str(manifest.name))


def _status(here: Session) -> tuple[dict[str, Any] | None, Finding]:
    """What the daemon says of itself; else None, and why it says nothing."""
    try:
        return here.api.get("/status", timeout_s=STATUS_S), ok("answers")
    except DaemonDown as error:
        pid = daemon_pid(here.home)
        if pid is not None:
            why = f"process {pid} runs, but {error.why}; it may be starting"
            return None, warn(why, f"{here.nexapod} daemon logs")
        return None, warn("not running", f"{here.nexapod} daemon start")
    except LocalError as error:
        return None, fail(str(error), f"{here.nexapod} daemon restart")


def _daemon(here: Session, status: dict[str, Any]) -> Finding:
    why = "; ".join(texts(status, "why"))
    if status.get("state") == "unregistered":
        return warn("runs, but belongs to no network", f"{here.nexapod} bootstrap import FILE")
    found = []
    if not status.get("healthy"):
        found.append(warn(f"not healthy: {why or 'it does not say why'}", f"{here.nexapod} daemon logs"))
    if status.get("version") not in (None, "", installed("nexapod")):
        different = f"its version is {status.get('version')}, this one is {installed('nexapod')}"
        found.append(warn(different, f"{here.nexapod} daemon restart"))
    found += [
        warn(f"its engine {engine.get('name')} is not ready: {engine.get('why')}", f"{here.nexapod} daemon logs")
        for engine in rows(status, "engines")
        if not engine.get("ready")
    ]
    return together(found, f"{status.get('state')}" + (f"; {why}" if why else ""))


def _peers(here: Session, status: dict[str, Any]) -> Finding:
    count = status.get("peers")
    if not isinstance(count, int) or count < 1:
        fix = f"{here.nexapod} bootstrap add ADDRESS, or give others: {here.nexapod} bootstrap export"
        return warn("no peer is connected", fix)
    return ok(f"{count} connected")
