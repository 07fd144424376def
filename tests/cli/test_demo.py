"""The demo against stand-ins for the daemon: what it tells, what it reports, and that nothing is left of it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nexapod.errors import Exit
from tests.cli.standin import SHA

Process = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.process


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text('{"job_id": "fold", "image": "x:1", "tasks": 2}')
    return path


def daemons(folder: Path) -> list[str]:
    """Command lines of daemons whose home is in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if entry.name.isdigit() and "nexapod-daemon" in words and str(folder) in words:
            found.append(words)
    return found


def test_the_walk_is_told_and_nothing_is_left(process: Process, job_file: Path, tmp_path: Path) -> None:
    report, trace = tmp_path / "report.json", tmp_path / "homes"
    theirs = {"NEXAPOD_SETUP_SECONDS": "12.5", "NEXAPOD_SLOTS": "wrong", "STANDIN_TRACE": str(trace)}
    demo = process("demo", "--report", str(report), str(job_file), **theirs)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, out + err
    for told in (
        "aare     /ip4/127.0.0.1/tcp/9",
        "fold                   2 tasks, 2 replicas, 0.01 credits each, as c0ffee000000",
        "commit   tasks 0-1    rhone",
        "all 4 are equal",
        "sum 0.04 credits, minted 0.04: equal",
        "fold: 1 file, 18 bytes",
        f"summary.json             18 bytes  sha256 {SHA[:12]}",
        '{"energy": -12.5}',
    ):
        assert told in out
    found = json.loads(report.read_text())
    assert found["jobs"] == [{"job": "fold", "state": "settled", "tasks": 2, "executions": 4}]
    assert found["engine"] == "docker"
    assert [set(node) for node in found["nodes"]] == [{"peer", "feed", "state_root", "balance_micro"}] * 4
    assert [node["balance_micro"] for node in found["nodes"]] == [0, 20_000, 20_000, 0]
    assert found["seconds"]["setup"] == 12.5
    assert 0.5 < found["seconds"]["publish_to_create"] < 2
    homes = [Path(line) for line in trace.read_text().splitlines()]
    assert sorted(home.name for home in homes) == ["aare", "doubs", "inn", "rhone"]
    assert not daemons(homes[0].parent)
    assert not homes[0].parent.exists()


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({"STANDIN_STATE": "disputed"}, Exit.DISPUTED, "fold is disputed"),
        ({"STANDIN_STATE": "failed"}, Exit.JOB_FAILED, "fold is failed"),
        ({"STANDIN": "no-engine"}, Exit.FAILURE, "no container engine answers"),
        ({"STANDIN": "inn-dies"}, Exit.FAILURE, "stand-in: the disk is on fire"),
    ],
)
def test_what_goes_wrong_is_told_and_nothing_runs_on(
    process: Process, job_file: Path, tmp_path: Path, environ: dict[str, str], code: int, says: str
) -> None:
    demo = process("demo", "--keep", str(tmp_path / "kept"), str(job_file), **environ)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == code, out + err
    assert says in err
    assert not daemons(tmp_path)
    assert (tmp_path / "kept/aare/state/daemon.log").read_text().startswith("stand-in: started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemons_first(process: Process, job_file: Path, tmp_path: Path, number: int) -> None:
    demo = process("demo", "--keep", str(tmp_path / "kept"), str(job_file), PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    while "rhone    ready" not in (line := demo.stdout.readline()):
        assert line, "the demo ended before two nodes were ready"
    demo.send_signal(number)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == (Exit.INTERRUPTED if number == signal.SIGINT else 128 + number), out + err
    assert "Traceback" not in err
    assert not daemons(tmp_path)


def test_a_reader_that_leaves_ends_it_too(process: Process, job_file: Path, tmp_path: Path) -> None:
    demo = process("demo", "--keep", str(tmp_path / "kept"), str(job_file), PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    assert demo.stderr is not None
    demo.stdout.readline()
    demo.stdout.close()
    with demo.stderr:
        err = demo.stderr.read()
    assert demo.wait(60) != 0
    assert "Traceback" not in err
    assert not daemons(tmp_path)


def test_a_broken_job_file_is_told_before_anything_starts(process: Process, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"job_id": "fold"}')
    demo = process("demo", "--keep", str(tmp_path / "kept"), str(tmp_path / "job.json"))
    assert "docker_image" in demo.communicate(timeout=60)[1]
    assert demo.returncode == Exit.USAGE
    assert not os.path.exists(tmp_path / "kept")
