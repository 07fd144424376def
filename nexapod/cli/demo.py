"""`nexapod demo`: a mesh of several daemons on this machine, real jobs on it, the story step by step, and the books.

Knows the order of the walk and how it is told. Must never do what a person with a mesh could not: it types commands and
asks the local API.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from nexapod.cli.client import Refusal
from nexapod.cli.demo_mesh import NODES_MAX, Mesh, Node, listed_by, open_mesh, peers_of, typed
from nexapod.cli.follow import ENDS
from nexapod.cli.jobs import read_job, submit
from nexapod.cli.node import seconds
from nexapod.cli.render import Column, credits, fancy, lines, put, put_rows, short
from nexapod.cli.session import command
from nexapod.cli.story import told
from nexapod.errors import Exit, LocalError

CERTIFY_S = 60.0
GATHER_S = 1.5  # an array job's steps come in dozens; this is how long they are gathered into one line each
SHOWN_LINES, SHOWN_COLUMNS, SHOWN_FILES = 3, 90, 3  # of a fetched text; of the tasks' files
TABLE = [
    Column("name", "NODE"),
    Column("peer", "PEER", lambda peer: f"…{str(peer)[-8:]}"),
    Column("state_root", "STATE OF ITS LEDGER", lambda root: str(root)[:24]),
    Column("ran", "RAN"),
    Column("balance_micro", "CREDITS", credits),
]


@dataclass
class DemoJob:
    """One job of the walk. `asked_ms` is since 1970, `held_since` of the monotonic clock in seconds."""

    file: Path
    document: dict[str, Any]
    id: str = ""
    label: str = ""
    state: str = ""
    tasks: int = 0
    executions: int = 0
    asked_ms: int = 0
    told: int = 0  # lines of its story heard so far
    held: list[dict[str, Any]] = field(default_factory=list)  # heard, not yet shown
    held_since: float = 0.0

    def gather(self, events: list[dict[str, Any]], over: bool) -> list[dict[str, Any]]:
        """Events to show now: those of many tasks wait a moment for others of their kind."""
        if events and not self.held:
            self.held_since = time.monotonic()
        self.held += events
        if not over and self.tasks > 1 and time.monotonic() - self.held_since < GATHER_S:
            return []
        ready, self.held = self.held, []
        return ready


@command("demo")
@click.argument("files", nargs=-1, required=True, metavar="JOBFILE...", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write what happened as JSON.")
@click.option("--nodes", "count", type=click.IntRange(3, NODES_MAX), default=4, show_default=True, help="How many.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep homes and logs in this folder.")
@click.option(
    "--timeout", "timeout", metavar="TIME", default="15m", show_default=True, help="Longest time for the jobs."
)
def demo(files: tuple[Path, ...], report: Path | None, count: int, keep: Path | None, timeout: str) -> None:
    """A mesh on this machine runs jobs, checks them, keeps the books, and is gone again."""
    jobs = [DemoJob(file, read_job(file)) for file in files]  # a faulty file is told before anything is started
    setup_s, timeout_s = _setup_seconds(), seconds(timeout)
    _head(f"A mesh of {count} nodes")
    with open_mesh(count, keep, lambda node: put(f"  {node.name:<8} ready")) as mesh:
        engine = _tell_mesh(mesh)
        publisher, reader = mesh.nodes[0], mesh.nodes[-1]
        began = time.monotonic()
        _publish(publisher, jobs)
        _follow(mesh, jobs, timeout_s)
        _certify(mesh, jobs, began)
        ended = time.monotonic()
        rows, balanced = _tell_books(mesh)
        _tell_results(mesh, reader, jobs)
        summary = _summary(mesh, jobs, rows, engine)
        summary["seconds"] = {
            "setup": setup_s,
            "mesh": round(mesh.seconds, 2),
            "publish_to_create": _first_run(mesh, jobs[0]),
            "jobs": round(ended - began, 2),
        }
    if report:
        _write_report(report, summary)
    _head("All daemons have ended" + (f"; their homes and logs are in {keep}" if keep else " and left nothing behind"))
    _check(jobs, balanced)


def _tell_mesh(mesh: Mesh) -> str:
    """Who is there; the engine that will run the jobs."""
    for node in mesh.nodes:
        status = node.api.get("/status")
        address = next(iter(status.get("addresses", [])), "").partition("/p2p/")[0]
        peers, listed = len(peers_of(node)), len(listed_by(node))
        put(f"  {node.name:<8} {address:<28} {peers} peer{'' if peers == 1 else 's'}, finds {listed} nodes in the DHT")
    put(f"  all connected {mesh.seconds:.1f} s after the first start")
    engines = [engine for node in mesh.nodes for engine in node.api.get("/status").get("engines", [])]
    ready = [engine for engine in engines if engine.get("ready")]
    if not ready:
        why = "; ".join(sorted({str(engine.get("why", "")) for engine in engines})) or "no node has an engine"
        raise LocalError("no container engine answers", why, "start Docker or Podman, or run ./quickstart")
    put(f"  tasks run in {ready[0].get('name')} {ready[0].get('version', '')}")
    return str(ready[0].get("name"))


def _publish(publisher: Node, jobs: list[DemoJob]) -> None:
    _head(f"{publisher.name} publishes {len(jobs)} job{'' if len(jobs) == 1 else 's'}")
    for job in jobs:
        job.asked_ms = time.time_ns() // 1_000_000
        answer = submit(publisher.api, job.document, job.file.absolute().parent)
        job.id, job.label, job.tasks = str(answer["job"]), str(answer.get("job_id", "")), int(answer.get("tasks", 0))
        tasks = f"{job.tasks} task{'' if job.tasks == 1 else 's'}"
        price = f"{credits(answer.get('price_micro'))} credits each"
        put(f"  {job.label:<22} {tasks}, {answer.get('replicas')} replicas, {price}, as {short(job.id)}")


def _follow(mesh: Mesh, jobs: list[DemoJob], timeout_s: float) -> None:
    _head("What happens")
    api, width = mesh.nodes[0].api, max(len(job.label) for job in jobs)

    def look() -> bool:
        for job in jobs:
            if job.state:
                continue
            answer = api.get(f"/v1/jobs/{job.id}/events", after=job.told, wait_s=0)
            job.told = answer.get("next", job.told)
            for line in told(job.gather(answer.get("events", []), bool(answer.get("over")))):
                put(f"  {(line.ms - jobs[0].asked_ms) / 1000:5.1f} s  {job.label:<{width}}  {line}")
            if answer.get("over"):
                job.state = str(answer.get("state", ""))
        return all(job.state for job in jobs)

    def why() -> str:
        waiting = [job for job in jobs if not job.state]
        return "\n".join(f"{job.label}: {'; '.join(map(str, _explain(mesh.nodes[0], job)))}" for job in waiting)

    mesh.until(look, "the jobs are not over", timeout_s, why)


def _certify(mesh: Mesh, jobs: list[DemoJob], began: float) -> None:
    """Wait until every node's witnesses-certified ledger holds every job to its close, and all are the same."""

    def certified(node: Node) -> bool:
        try:
            closes = [node.api.get("/v1/ledger/log", job=job.id, kind="close").get("events", []) for job in jobs]
        except Refusal as refusal:
            if refusal.exit_code != Exit.NOT_FOUND:
                raise
            return False  # not even the offer has come so far
        return all(any(event.get("certified") for event in events) for events in closes)

    def same() -> bool:
        return all(map(certified, mesh.nodes)) and len(set(_roots(mesh))) == 1

    def why() -> str:
        pairs = zip(mesh.nodes, _roots(mesh), strict=True)
        return "\n".join(f"{node.name}: certified: {certified(node)}, state {short(root)}" for node, root in pairs)

    mesh.until(same, "the ledgers are not equal", CERTIFY_S, why)
    spent = time.monotonic() - began
    put(f"  {spent:5.1f} s  every ledger is certified to the end, and all {len(mesh.nodes)} are equal")


def _tell_books(mesh: Mesh) -> tuple[list[dict[str, Any]], bool]:
    """The table of the nodes, each row as its own node says; whether the books balance, the same on every node."""
    _head("Who is owed what, as each node computes it from its own ledger")
    rows, books = [], []
    for node in mesh.nodes:
        status, ledger = node.api.get("/status"), node.api.get("/v1/ledger/balances")
        held: dict[str, int] = {}
        for row in ledger.get("balances", []):
            held[str(row.get("account"))] = held.get(str(row.get("account")), 0) + int(row.get("balance_micro", 0))
        books.append((held, sum(int(value) for value in ledger.get("minted_micro", {}).values())))
        rows.append({
            "name": node.name,
            "peer": status.get("peer", ""),
            "feed": status.get("feed", ""),
            "state_root": status.get("ledger", {}).get("state_root", ""),
            "balance_micro": held.get(str(status.get("feed")), 0),
            "ran": sum(one.get("ended_ms", 0) > 0 for one in _ran(node)),
        })  # fmt: skip
    put_rows("table", rows, TABLE)
    held, minted = books[0]
    alike = all(book == books[0] for book in books)
    total = sum(held.values())
    put(f"  sum {credits(total)} credits, minted {credits(minted)}: {'equal' if total == minted else 'NOT EQUAL'}")
    if not alike:
        put("  NOT ALL NODES SAY THE SAME")
    return rows, alike and total == minted


def _tell_results(mesh: Mesh, reader: Node, jobs: list[DemoJob]) -> None:
    settled = [job for job in jobs if job.state == "settled"]
    _head(f"{reader.name}, who did not publish them, fetches the results and checks every byte against the ledger")
    for job in settled:
        folder = mesh.folder / "results" / job.label
        got = json.loads(typed(reader, "results", "get", job.id, "--output-dir", str(folder), "-o", "json"))
        size = sum(one["size"] for one in got)
        put(f"  {job.label}: {len(got)} file{'' if len(got) == 1 else 's'}, {size} bytes")
        for one in got[:SHOWN_FILES]:
            put(f"    task {one['task']}  {one['path']:<18} {one['size']:>8} bytes  sha256 {short(one['sha256'])}…")
        if len(got) > SHOWN_FILES:
            put(f"    … and {len(got) - SHOWN_FILES} more")
        _show_text(got)


def _show_text(got: list[dict[str, Any]]) -> None:
    """A few lines of what came out: a summary when there is one."""
    chosen = [one for one in got if one["path"].endswith(".json")] or got
    if not chosen:
        return
    try:
        text = Path(chosen[0]["file"]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    put(f"    {chosen[0]['path']} of task {chosen[0]['task']} begins:")
    for line in text.splitlines()[:SHOWN_LINES]:
        put(f"      {line[:SHOWN_COLUMNS]}")


def _summary(mesh: Mesh, jobs: list[DemoJob], rows: list[dict[str, Any]], engine: str) -> dict[str, Any]:
    api = mesh.nodes[0].api
    for job in jobs:
        job.executions = len(api.get(f"/v1/jobs/{job.id}/executions").get("executions", []))
    return {
        "jobs": [
            {"job": job.label, "state": job.state, "tasks": job.tasks, "executions": job.executions} for job in jobs
        ],
        "engine": engine,
        "nodes": [{key: row[key] for key in ("peer", "feed", "state_root", "balance_micro")} for row in rows],
    }


def _first_run(mesh: Mesh, job: DemoJob) -> float:
    """Seconds from the request to publish until a node first ran a task of the job; all clocks are this machine's."""
    times = [one.get("running_ms", 0) for node in mesh.nodes for one in _ran(node) if one.get("job") == job.id]
    started = [ms for ms in times if isinstance(ms, int) and ms > 0]
    return round((min(started) - job.asked_ms) / 1000, 3) if started else 0.0


def _check(jobs: list[DemoJob], balanced: bool) -> None:
    """
    Raises:
        LocalError: a job is not settled, or the books do not balance; the exit code says which.
    """
    for job in jobs:
        code = ENDS.get(job.state, Exit.FAILURE)
        if code is not Exit.OK:
            raise LocalError(f"{job.label} is {job.state}", "", "look closer with --keep DIR", code)
    if not balanced:
        raise LocalError("the books do not balance", "", "look closer with --keep DIR", Exit.DISPUTED)


def _write_report(path: Path, summary: dict[str, Any]) -> None:
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise LocalError(f"{path} cannot be written", error.strerror or "", "choose another --report") from None


def _roots(mesh: Mesh) -> list[str]:
    return [str(node.api.get("/v1/ledger").get("state_root")) for node in mesh.nodes]


def _ran(node: Node) -> list[dict[str, Any]]:
    found = node.api.get("/v1/node/executions").get("executions", [])
    return found if isinstance(found, list) else []


def _explain(node: Node, job: DemoJob) -> list[object]:
    found = node.api.get(f"/v1/jobs/{job.id}/explain").get("why", [])
    return found if isinstance(found, list) else [found]


def _setup_seconds() -> float:
    try:
        return float(os.environ.get("NEXAPOD_SETUP_SECONDS", 0))
    except ValueError:
        return 0.0


def _head(text: str) -> None:
    click.echo()
    click.echo(click.style(lines(text), bold=True) if fancy() else lines(text))
