"""Fetching results, also from a daemon that lies."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import JOB, Standin

DATA = {"a.txt": b"alpha\n", "sub/b.bin": bytes(range(256)) * 2000}


def entry(path: str, raw: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def offer(standin: Standin, tasks: dict[Any, list[Any]], **more: Any) -> None:
    listed = [{"task": task, "root": "00", "exit_code": 0, "files": files} for task, files in tasks.items()]
    standin.answers["GET /v1/jobs/fold/results"] = {"job": JOB, "job_id": "fold", "tasks": listed} | more
    for task in tasks:
        for path, raw in DATA.items():
            standin.answers[f"GET /v1/jobs/{JOB}/results/{task}/{path}"] = raw


@pytest.fixture
def sound(standin: Standin) -> Standin:
    files = [entry(path, raw) for path, raw in DATA.items()]
    offer(standin, {0: files, 3: files})
    return standin


def written(path: Path) -> tuple[int, int]:
    """Which file it is and when it was written; when it was read is another matter."""
    seen = path.stat()
    return seen.st_ino, seen.st_mtime_ns


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_get_saves_everything_and_says_where(nexapod: Run, sound: Standin, tmp_path: Path) -> None:
    code, out, err = nexapod("results", "get", "fold")
    folder = tmp_path / f"fold-{JOB[:12]}"
    assert code == 0
    assert tree(folder) == {"0/a.txt", "0/sub/b.bin", "3/a.txt", "3/sub/b.bin"}
    assert (folder / "3/sub/b.bin").read_bytes() == DATA["sub/b.bin"]
    assert f"4 files, {2 * sum(map(len, DATA.values()))} bytes saved in {folder}" in err
    assert str(folder / "0/a.txt") in out


def test_one_file_one_task_another_folder(nexapod: Run, sound: Standin, tmp_path: Path) -> None:
    code, out, _ = nexapod("results", "get", "fold", "sub", "--task", "3", "--output-dir", "x/y", "-o", "json")
    assert code == 0
    assert tree(tmp_path / "x/y") == {"3/sub/b.bin"}
    assert json.loads(out)[0]["file"] == str(tmp_path / "x/y/3/sub/b.bin")
    assert nexapod("results", "get", "fold", "none")[0] == Exit.NOT_FOUND
    assert nexapod("results", "get", "fold", "--task", "1")[0] == Exit.NOT_FOUND


def test_equal_files_are_kept_and_others_never_overwritten(nexapod: Run, sound: Standin, tmp_path: Path) -> None:
    nexapod("results", "get", "fold", "--output-dir", "x")
    before = written(tmp_path / "x/0/a.txt")
    code, _, err = nexapod("results", "get", "fold", "--output-dir", "x")
    assert code == 0
    assert "0 files, 0 bytes saved" in err
    assert "4 were there already" in err
    assert written(tmp_path / "x/0/a.txt") == before
    (tmp_path / "x/0/a.txt").write_text("mine")
    code, _, err = nexapod("results", "get", "fold", "--output-dir", "x")
    assert code == Exit.FAILURE
    assert "nothing is overwritten" in err
    assert (tmp_path / "x/0/a.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "path",
    ["../a.txt", "/etc/passwd", "a/../../b", "a//b", "./a", "", "a\\b", "a\x00b", "a\nb", "\ud800", "x" * 300,
     "a/" * 20 + "b", 7, None],
)  # fmt: skip
def test_a_path_that_leaves_the_folder_condemns_the_answer(
    nexapod: Run, standin: Standin, tmp_path: Path, path: Any
) -> None:
    raw = b"evil"
    offer(standin, {0: [entry("a.txt", DATA["a.txt"]), entry("x", raw) | {"path": path}]})
    code, _, err = nexapod("results", "get", "fold", "--output-dir", "out")
    assert code == Exit.DISPUTED
    assert "cannot be true" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["../..", -1, True, 1.5, None, 2**40])
def test_a_task_that_is_no_number_condemns_the_answer(
    nexapod: Run, standin: Standin, task: Any, tmp_path: Path
) -> None:
    offer(standin, {task: [entry("a.txt", DATA["a.txt"])]})
    assert nexapod("results", "get", "fold", "--output-dir", "out")[0] == Exit.DISPUTED
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [{"job_id": "../../up"}, {"job_id": "a/b"}, {"job": "../x"}, {"job_id": 5}])
def test_the_default_folder_is_never_elsewhere(
    nexapod: Run, standin: Standin, names: dict[str, Any], tmp_path: Path
) -> None:
    offer(standin, {0: [entry("a.txt", DATA["a.txt"])]}, **names)
    before = tree(tmp_path)
    assert nexapod("results", "get", "fold")[0] == Exit.DISPUTED
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (b"alphb\n", Exit.DISPUTED, "is not a.txt of task 0"),
        (b"alpha\nand more", Exit.DISPUTED, "more than 6 bytes came"),
        (b"alp", Exit.FAILURE, "came only in part"),
    ],
)
def test_wrong_bytes_are_not_saved(
    nexapod: Run, standin: Standin, tmp_path: Path, raw: bytes, code: int, says: str
) -> None:
    offer(standin, {0: [entry("a.txt", DATA["a.txt"])]})
    standin.answers[f"GET /v1/jobs/{JOB}/results/0/a.txt"] = raw
    got, _, err = nexapod("results", "get", "fold", "--output-dir", "out")
    assert (got, tree(tmp_path / "out")) == (code, set())
    assert says in err
    got, out, _ = nexapod("results", "cat", "fold", "a.txt")
    assert (got, out) == (code, "")


def test_links_below_the_folder_are_not_followed(nexapod: Run, sound: Standin, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out/0").mkdir(parents=True)
    (tmp_path / "out/0/sub").symlink_to(elsewhere)
    (tmp_path / "out/3").symlink_to(elsewhere)
    (tmp_path / "out/0/a.txt").symlink_to(elsewhere / "a.txt")
    for words in (["a.txt", "--task", "0"], ["sub", "--task", "0"], ["--task", "3"]):
        assert nexapod("results", "get", "fold", *words, "--output-dir", "out")[0] == Exit.FAILURE
    assert not list(elsewhere.iterdir())


def test_files_that_are_folders_of_others_are_told(nexapod: Run, standin: Standin) -> None:
    offer(standin, {0: [entry("a.txt", DATA["a.txt"]), entry("a.txt/b", b"x")]})
    code, _, err = nexapod("results", "get", "fold", "--output-dir", "out")
    assert code == Exit.FAILURE
    assert "a.txt/b cannot be written" in err
    offer(standin, {0: [entry("a.txt", DATA["a.txt"])] * 2})
    assert nexapod("results", "get", "fold", "--output-dir", "two")[0] == Exit.DISPUTED


def test_ls_and_cat(nexapod: Run, sound: Standin) -> None:
    assert len(nexapod("results", "ls", "fold")[1].splitlines()) == 5
    assert nexapod("results", "cat", "fold", "a.txt", "--task", "3")[1] == "alpha\n"
    code, _, err = nexapod("results", "cat", "fold", "a.txt")
    assert code == Exit.USAGE
    assert "tasks 0, 3" in err
