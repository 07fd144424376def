"""Commands about jobs: publish, run, and the group `job`.

Knows job files (checked here before the daemon is asked) and the answers about jobs. Must never know how one is run.
"""

import os
import re
from pathlib import Path
from typing import Any

import click

from nexapod.cli.client import Api, rows, segment, texts
from nexapod.cli.follow import POLL_S, batches, check_end, wait_for
from nexapod.cli.node import seconds
from nexapod.cli.render import Column, credits, joined, lines, plain, put, put_one, put_rows, say, short, yes
from nexapod.cli.session import Group, Session, command, session
from nexapod.cli.story import clock, day, told
from nexapod.errors import Exit, LocalError

SUBMIT_S = 900.0  # the daemon hashes the inputs and may take a large image out of its engine
DRY = [
    Column("job_id", "job_id"),
    Column("tasks", "tasks"),
    Column("replicas", "replicas"),
    Column("price_micro", "price of a task", credits),
    Column("lock_micro", "locked", credits),
]
JOBS = [
    Column("job", "JOB", short),
    Column("job_id", "LABEL"),
    Column("state", "STATE"),
    Column("ended", "ENDED"),
    Column("tasks", "TASKS"),
    Column("owner_name", "OWNER"),
    Column("mine", "MINE", yes),
    Column("paid_micro", "PAID", credits),
    Column("created_ms", "PUBLISHED", day),
]
JOB = [
    Column("job", "job"),
    Column("job_id", "label"),
    Column("state", "state"),
    Column("why", "why", joined),
    Column("owner_name", "owner"),
    Column("image", "image"),
    Column("tasks", "tasks"),
    Column("ended", "ended"),
    Column("replicas", "replicas"),
    Column("quorum", "quorum"),
    Column("price_micro", "price of a task", credits),
    Column("paid_micro", "paid", credits),
    Column("created_ms", "published", day),
]
TASKS = [
    Column("task", "TASK"),
    Column("state", "STATE"),
    Column("root", "RESULT", short),
    Column("exit_code", "EXIT"),
    Column("paid_micro", "PAID", credits),
    Column("why", "WHY"),
]
EXECUTIONS = [
    Column("task", "TASK"),
    Column("round", "ROUND"),
    Column("name", "NODE"),
    Column("node", "FEED", short),
    Column("state", "STATE"),
    Column("root", "RESULT", short),
    Column("amount_micro", "PAID", credits),
    Column("permille", "DONE", lambda part: f"{part / 10:.0f} %" if isinstance(part, int) else ""),
    Column("why", "WHY"),
]
EVENTS = [
    Column("ms", "TIME", clock),
    Column("step", "STEP"),
    Column("task", "TASK"),
    Column("name", "NODE"),
    Column("text", "TEXT"),
]
ABLE = [
    Column("name", "NODE"),
    Column("node", "FEED", short),
    Column("able", "ABLE", yes),
    Column("reasons", "REASONS", lambda found: "; ".join(map(_reason, found))),
]
_FILE = click.Path(path_type=Path)


def _time(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    return float(seconds(value)) if value else None


@command("publish")
@click.argument("file", type=_FILE)
@click.option("--wait", is_flag=True, help="Tell the story and return when the job is over.")
@click.option("--dry-run", is_flag=True, help="Check it and tell the price; publish nothing.")
@click.option("--timeout", "timeout_s", metavar="TIME", callback=_time, help="Wait at most so long, such as 90s or 2h.")
def publish(file: Path, wait: bool, dry_run: bool, timeout_s: float | None) -> None:
    """Offer a job file (JSON, YAML or TOML) to the mesh."""
    here = session()
    descriptor = read_job(file)
    answer = submit(here.api, descriptor, file.absolute().parent, dry_run=dry_run)
    if dry_run:
        put_one(here.output, answer, DRY)
        for lack in rows(answer, "unmet"):
            say(plain(f"  no node known now would run it: {lack.get('detail')}"))
        say(f"{file.name} is sound; nothing was published")
        return
    _published(here, answer, wait=wait)
    if wait:
        job, state = str(answer["job"]), wait_for(here.api, str(answer["job"]), timeout_s, here.nexapod)
        if here.output != "table":
            put_one(here.output, answer | {"state": state}, _all(answer | {"state": state}))
        _check_end(here, job, state)


@command("run", context_settings={"ignore_unknown_options": False})
@click.argument("image")
@click.argument("words", nargs=-1, metavar="-- CMD...")
@click.option("--name", "label", help="The job's label (default: from the image).")
@click.option("--tasks", type=int, help="How many tasks; each finds its index in NEXAPOD_TASK_INDEX.")
@click.option("--replicas", type=int, help="How many nodes run each task (default 2).")
@click.option("--input", "inputs", multiple=True, type=_FILE, help="File the task finds in /in; may be repeated.")
@click.option("--flops", type=float, help="Floating point operations of one task, such as 1e12.")
@click.option("--cpus", type=float, help="CPU cores of one task (default 1).")
@click.option("--ram-gb", type=float, help="Memory of one task in gigabytes (default 1).")
@click.option("--timeout", "timeout_s", metavar="TIME", callback=_time, help="Wait at most so long, such as 90s or 2h.")
def run(image: str, words: tuple[str, ...], timeout_s: float | None, **flags: Any) -> None:
    """Run a command in a container image on other people's machines, and wait for what comes out."""
    from nexapod.cli.results import COLUMNS, listed
    from nexapod.job import parse

    here = session()
    base, described = describe(image, words, Path.cwd(), **flags)
    parse(described, subject="job")
    answer = submit(here.api, described, base)
    job = str(answer.get("job", ""))
    say(f"published {_summary(answer)}")
    state = wait_for(here.api, job, timeout_s, here.nexapod)
    _check_end(here, job, state)
    put_rows(here.output, listed(here.api.get(_path(job, "results"))), COLUMNS, "it left no files")
    say(f"next: {here.nexapod} results get {short(job)}")


@click.group("job", cls=Group)
def job() -> None:
    """Jobs: this node's own and all others it knows."""


@job.command("list")
def job_list() -> None:
    """Every job this node knows."""
    put_rows(session().output, rows(session().api.get("/v1/jobs"), "jobs"), JOBS, "no job is known")


@job.command("show")
@click.argument("job")
def job_show(job: str) -> None:
    """One job and its tasks."""
    found = session().api.get(_path(job))
    if session().output in ("json", "jsonl"):
        put_one(session().output, found, JOB)
        return
    if session().output == "table":
        put_one("table", found, [column for column in JOB if _said(column, found)])
        put("")
    put_rows(session().output, rows(found, "task_list"), TASKS, "no task is known")


@job.command("explain")
@click.argument("job")
def job_explain(job: str) -> None:
    """Why a job is where it is, and which nodes could run it."""
    found = session().api.get(_path(job, "explain"))
    if session().output in ("json", "jsonl"):
        put_one(session().output, found, [])
        return
    if session().output == "table":
        put(plain(str(found.get("state", "?")).capitalize()))
        for reason in texts(found, "why"):
            put(plain(f"  why: {reason}"))
    put_rows(session().output, rows(found, "nodes"), ABLE, "no node is known")


@job.command("events")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
def job_events(job: str, follow: bool) -> None:
    """A job's story: offer, assign, run, commit, seal, open, settle, close."""
    here = session()
    if not follow:
        put_rows(here.output, rows(next(batches(here.api, job, wait_s=0)), "events"), EVENTS, "nothing yet")
        return
    if here.output in ("json", "csv"):
        raise click.UsageError("a story that goes on is told as a table or as JSON lines: -o jsonl")
    for answer in batches(here.api, job, wait_s=POLL_S):
        if here.output == "jsonl":
            put_rows("jsonl", rows(answer, "events"), EVENTS)
        for line in told(rows(answer, "events")) if here.output == "table" else ():
            put(f"{clock(line.ms):<8}  {line}")


@job.command("executions")
@click.argument("job")
def job_executions(job: str) -> None:
    """Who ran what, and what came of it."""
    found = rows(session().api.get(_path(job, "executions")), "executions")
    put_rows(session().output, found, EXECUTIONS, "nobody has been asked to run it yet")


@job.command("logs")
@click.argument("job")
@click.option("--task", type=int, help="Only this task.")
def job_logs(job: str, task: int | None) -> None:
    """The end of what the program wrote, in this node's own executions."""
    found = rows(session().api.get(_path(job, "logs"), task=task), "logs")
    if session().output != "table" or not found:
        columns = [Column("task", "TASK"), Column("round", "ROUND"), Column("text", "TEXT")]
        put_rows(session().output, found, columns, "this node has run no task of it, or forgot what it wrote")
        return
    for one in found:
        if len(found) > 1:
            put(plain(f"--- task {one.get('task')}, round {one.get('round')}"))
        put(str(one.get("text", "")).rstrip("\n"))


@job.command("wait")
@click.argument("job")
@click.option("--timeout", "timeout_s", metavar="TIME", callback=_time, help="Wait at most so long, such as 90s or 2h.")
def job_wait(job: str, timeout_s: float | None) -> None:
    """Return when a job is over; the exit code says how."""
    here = session()
    whole = str(here.api.get(_path(job)).get("job") or job)
    state = wait_for(here.api, whole, timeout_s, here.nexapod)
    put_one(here.output, {"job": whole, "state": state}, [Column("job", "job"), Column("state", "state")])
    _check_end(here, whole, state)


@job.command("cancel")
@click.argument("job")
def job_cancel(job: str) -> None:
    """Take back a job of this node; what was settled stays paid."""
    session().api.post(_path(job, "cancel"))
    say("cancelled; tasks that run are told to stop")


def read_job(file: Path) -> dict[str, Any]:
    """The document of a job file, checked.

    Raises:
        LocalError: it cannot be read. DescriptorFaults: with every fault. What cannot be run is for the daemon to say,
        with all else that is missing.
    """
    from nexapod.job import parse
    from nexapod.job_file import read_document

    document = read_document(file)
    parse(document, subject=file.name)
    checked: dict[str, Any] = document
    return checked


def submit(api: Api, descriptor: dict[str, Any], base: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """Hand a checked document to the daemon; its answer."""
    body = {"descriptor": descriptor, "base": str(base), "dry_run": dry_run}
    answer = api.post("/submit-job", body, timeout_s=SUBMIT_S)
    if not dry_run and not isinstance(answer.get("job"), str):
        raise LocalError("the daemon's answer cannot be read", "it names no job", "are both of the same version?")
    return answer


def describe(
    image: str, words: tuple[str, ...], folder: Path, *, label: str | None = None, inputs: tuple[Path, ...] = (),
    **flags: Any,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """The folder of the inputs and the descriptor that flags of `run` mean; each input is known by its own name.

    Raises:
        LocalError: an input is not a file.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", image.rpartition("/")[2].partition("@")[0]).strip("-.")
    made: dict[str, Any] = {"schema_version": "1.0", "job_id": label or f"run-{name}"[:64], "image": image}
    given = {key: value for key, value in flags.items() if value is not None}
    made |= {"command": list(words)} if words else {}
    made |= {"tasks": given["tasks"]} if "tasks" in given else {}
    made |= {"estimated_flops": given["flops"]} if "flops" in given else {}
    made |= {"redundancy": {"replicas": given["replicas"]}} if "replicas" in given else {}
    needs = {key: given[key] for key in ("cpus", "ram_gb") if key in given}
    made |= {"requirements": needs} if needs else {}
    files = [(folder / path).resolve() for path in inputs]
    for file in files:
        if not file.is_file():
            raise LocalError(f"input {file} is not a file", "", "give files; pack a folder into one", Exit.USAGE)
    if not files:
        return folder, made
    base = Path(os.path.commonpath([file.parent for file in files]))
    if all(file.parent == base for file in files):
        return base, made | {"input_files": [file.name for file in files]}
    sources = [{"uri": f"file:{file.relative_to(base).as_posix()}", "path": file.name} for file in files]
    return base, made | {"inputs": sources}


def _published(here: Session, answer: dict[str, Any], *, wait: bool) -> None:
    if here.output == "table":
        click.echo(lines(answer["job"]))
    elif not wait:
        put_one(here.output, answer, _all(answer))
    say(f"published {_summary(answer)}")
    if not wait:
        say(f"next: {here.nexapod} job wait {short(answer['job'])}")


def _summary(answer: dict[str, Any]) -> str:
    tasks, replicas = answer.get("tasks", "?"), answer.get("replicas", "?")
    price = f"{credits(answer.get('price_micro'))} credits a task"
    kept = answer.get("holders")
    peers = f", kept by {kept} other node{'' if kept == 1 else 's'}" if isinstance(kept, int) else ""
    many = f"{tasks} task{'' if tasks == 1 else 's'}, {replicas} replica{'' if replicas == 1 else 's'}"
    return f"{answer.get('job_id', '')} as {short(answer.get('job'))}: {many}, {price}{peers}"


def _check_end(here: Session, job: str, state: str) -> None:
    why = "" if state == "settled" else joined(here.api.get(_path(job)).get("why", ""))
    check_end(job, state, why, here.nexapod)


def _path(job: str, what: str = "") -> str:
    return f"/v1/jobs/{segment(job)}" + (f"/{what}" if what else "")


def _said(column: Column, document: dict[str, Any]) -> bool:
    value = document.get(column.key)
    return value is not None and column.show(value) != ""


def _all(document: dict[str, Any]) -> list[Column]:
    return [Column(key, key) for key in document]


def _reason(reason: Any) -> str:
    if not isinstance(reason, dict):
        return str(reason)
    return ": ".join(str(reason[key]) for key in ("code", "detail") if reason.get(key))
