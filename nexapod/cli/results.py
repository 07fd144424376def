"""The group `results`: ls, cat, get.

Knows which files of which tasks are meant. Must never write a file: saving.py does, and trusts nothing it is told.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from nexapod.cli.client import Api, rows, segment
from nexapod.cli.render import Column, lines, put_rows, say, short
from nexapod.cli.saving import Check, ResultFile, Saved, default_folder, read_files, save_all
from nexapod.cli.session import Group, session
from nexapod.errors import Exit, LocalError

MEMORY_BYTES = 16 * 1024 * 1024  # a larger file waits on disk until it is proven to be the right one
COLUMNS = [
    Column("task", "TASK"),
    Column("path", "PATH"),
    Column("size", "BYTES"),
    Column("sha256", "SHA256", short),
]
SAVED = [
    Column("task", "TASK"),
    Column("path", "PATH"),
    Column("size", "BYTES"),
    Column("how", "", str),
    Column("file", "FILE"),
]


@click.group("results", cls=Group)
def results() -> None:
    """What came out of a job."""


@results.command("ls")
@click.argument("job")
def results_ls(job: str) -> None:
    """The files of the settled tasks."""
    found = listed(_results(session().api, job))
    put_rows(session().output, found, COLUMNS, "no task is settled yet, or none left a file")


@results.command("cat")
@click.argument("job")
@click.argument("path")
@click.option("--task", type=int, help="Of this task (needed when several have such a file).")
def results_cat(job: str, path: str, task: int | None) -> None:
    """Write one file to stdout, after its hash was checked."""
    document = _results(session().api, job)
    found = _chosen(read_files(document), path, task)
    if len(found) > 1:
        tasks = ", ".join(str(file.task) for file in found[:20])
        raise LocalError(f"{len(found)} tasks have a file {path}", f"tasks {tasks}", "choose one: --task N", Exit.USAGE)
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as held:
        check = Check(found[0], held.write)
        session().api.download(file_path(document, found[0]), check.write)
        check.finish()
        held.seek(0)
        if sys.stdout.isatty():
            _show(held.read())
            return
        while chunk := held.read(1024 * 1024):
            sys.stdout.buffer.write(chunk)
        sys.stdout.flush()


@results.command("get")
@click.argument("job")
@click.argument("path", required=False)
@click.option("--task", type=int, help="Only of this task.")
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Default: ./LABEL-JOB.")
def results_get(job: str, path: str | None, task: int | None, output_dir: Path | None) -> None:
    """Save files as FOLDER/TASK/PATH; each is checked while it is written."""
    here = session()
    document = _results(here.api, job)
    found = _chosen(read_files(document), path, task)
    folder = (output_dir or default_folder(document)).absolute()
    saved: list[Saved] = []
    try:
        saved.extend(save_all(folder, found, lambda file, write: here.api.download(file_path(document, file), write)))
    finally:  # what was saved before a failure is there, and is told
        _tell(here.output, folder, saved)


def listed(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each file, as the daemon tells it."""
    return [{"task": task.get("task"), **file} for task in rows(document, "tasks") for file in rows(task, "files")]


def file_path(document: dict[str, Any], file: ResultFile) -> str:
    """Where the local API has the bytes of a file."""
    parts = "/".join(segment(part) for part in file.path.split("/"))
    return f"/v1/jobs/{segment(str(document.get('job', '')))}/results/{file.task}/{parts}"


def _results(api: Api, job: str) -> dict[str, Any]:
    return {"job": job} | api.get(f"/v1/jobs/{segment(job)}/results")


def _chosen(files: list[ResultFile], path: str | None, task: int | None) -> list[ResultFile]:
    wanted = path.removeprefix("/out/").strip("/") if path else None
    found = [
        file
        for file in files
        if (task is None or file.task == task)
        and (wanted is None or file.path == wanted or file.path.startswith(wanted + "/"))
    ]
    if not found:
        what = f"there is no file {path}" if path else "there are no files"
        where = f" of task {task}" if task is not None else ""
        why = "only settled tasks have results" if not files else ""
        raise LocalError(what + where, why, "see: nexapod results ls JOB", Exit.NOT_FOUND)
    return found


def _tell(output: str, folder: Path, saved: list[Saved]) -> None:
    shown = [{**one.file._asdict(), "file": str(one.place), "how": "kept" if one.kept else "saved"} for one in saved]
    if not saved:
        return
    put_rows(output, shown, SAVED)
    kept = sum(one.kept for one in saved)
    size = sum(one.file.size for one in saved if not one.kept)
    already = f"; {kept} were there already" if kept else ""
    say(f"{len(saved) - kept} file{'' if len(saved) - kept == 1 else 's'}, {size} bytes saved in {folder}{already}")


def _show(raw: bytes) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise LocalError("this file is not text", "", "save it: nexapod results get, or redirect stdout") from None
    click.echo(lines(text))
