"""The doctor finds what is wrong and says what to do."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nexapod.errors import Exit
from nexapod.home import find_home
from tests.cli.conftest import Run
from tests.cli.standin import ENGINE_INFO, Standin, answering, until_gone

Programs = Callable[[str, str], None]
STATUS: dict[str, Any] = {
    "state": "running", "healthy": True, "why": [], "peers": 3, "version": version("nexapod"),
    "addresses": ["/ip4/192.0.2.7/tcp/4001/p2p/12D3"], "engines": [{"name": "docker", "ready": True, "why": ""}],
}  # fmt: skip
CHECKS = ["python", "key", "settings", "network", "home", "disk", "engine", "runc", "limits", "cgroup", "seccomp",
          "gpu", "clock", "ports", "reach", "daemon", "peers"]  # fmt: skip


def results(nexapod: Run) -> tuple[int, dict[str, tuple[str, str, str]]]:
    code, out, _ = nexapod("doctor", "-o", "json")
    return code, {row["check"]: (row["result"], row["detail"], row["fix"]) for row in json.loads(out)}


@pytest.fixture(autouse=True)
def _a_bare_machine(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("NEXAPOD_DISK_GB", "1")


@pytest.fixture
def well(nexapod: Run, engine: Standin, standin: Standin) -> Standin:
    """A node that is well, and its daemon."""
    nexapod("init", "--new-network", "lab")
    standin.answers["GET /status"] = STATUS
    return standin


def test_a_bare_machine(nexapod: Run, tmp_path: Path) -> None:
    code, found = results(nexapod)
    assert code == Exit.FAILURE
    assert found["key"] == ("fail", f"{tmp_path}/home/key is missing", "nexapod init")
    assert found["network"][0] == "warn"
    assert found["engine"][0] == "fail"
    assert "/nowhere/docker.sock (No such file or directory)" in found["engine"][1]
    assert found["daemon"] == ("warn", "not running", "nexapod daemon start")
    assert {found[name][0] for name in ("python", "settings", "home", "disk", "clock", "gpu")} == {"ok"}
    assert not (tmp_path / "home").exists()


def test_a_node_that_is_well(nexapod: Run, well: Standin) -> None:
    code, found = results(nexapod)
    assert code == 0, found
    assert {result for result, _, _ in found.values()} == {"ok"}
    assert {fix for _, _, fix in found.values()} == {""}
    assert list(found) == CHECKS
    assert found["network"][1] == "lab"
    assert found["peers"][1] == "3 connected"
    shown = nexapod("doctor")[1].splitlines()
    assert [line.split()[0] for line in shown[1:]] == CHECKS


def test_each_thing_that_is_wrong(nexapod: Run, tmp_path: Path) -> None:
    home = find_home(None, {"NEXAPOD_HOME": str(tmp_path / "home")})
    nexapod("init", "--new-network", "lab")
    home.key_file.chmod(0o644)
    home.manifest_file.write_bytes(b"nonsense")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home.config_file.write_text(f'listen = ["/ip4/127.0.0.1/tcp/{port}"]\nwork = false\n')
        code, found = results(nexapod)
    assert code == Exit.FAILURE
    assert found["key"][2] == f"chmod 600 {home.key_file}"
    assert found["network"][0] == "fail"
    assert "Address already in use" in found["ports"][1]
    assert found["engine"][0] == "ok"
    assert found["reach"][0] == "warn"
    home.config_file.write_text("wrk = false\n")
    code, found = results(nexapod)
    assert found["settings"][0] == "fail"
    assert "did you mean work?" in found["settings"][1]
    assert found["ports"][0] == "warn"


@pytest.mark.parametrize(
    ("change", "check", "told"),
    [
        ({"healthy": False, "why": ["the disk is full"]}, "daemon", ("not healthy: the disk is full", "daemon logs")),
        ({"healthy": False, "why": None}, "daemon", ("it does not say why", "daemon logs")),
        ({"state": "unregistered"}, "daemon", ("belongs to no network", "bootstrap import FILE")),
        ({"version": "0.0.1"}, "daemon", ("its version is 0.0.1", "daemon restart")),
        ({"engines": [{"name": "docker", "ready": False, "why": "gone"}]}, "daemon", ("docker is not ready", "logs")),
        ({"peers": 0}, "peers", ("no peer is connected", "bootstrap add ADDRESS")),
        ({"peers": None}, "peers", ("no peer is connected", "bootstrap add ADDRESS")),
        ({"addresses": ["/ip4/192.0.2.7/tcp/9/p2p/12D"]}, "ports", ("does not listen on", "daemon restart")),
        ({"addresses": ["/ip4/127.0.0.1/tcp/4001/p2p/12D"]}, "reach", ("only this machine", "listen =")),
    ],
)  # fmt: skip
def test_what_the_daemon_lacks_is_a_warning(
    nexapod: Run, well: Standin, change: dict[str, Any], check: str, told: tuple[str, str]
) -> None:
    well.answers["GET /status"] = STATUS | change
    code, found = results(nexapod)
    assert (code, found[check][0]) == (0, "warn"), found
    assert all(text in said for text, said in zip(told, found[check][1:], strict=True)), found[check]
    assert {result for name, (result, _, _) in found.items() if name != check} == {"ok"}


def test_a_daemon_that_is_well_may_still_say_why(nexapod: Run, well: Standin) -> None:
    well.answers["GET /status"] = STATUS | {"state": "paused", "why": ["paused by its owner"]}
    assert results(nexapod)[1]["daemon"] == ("ok", "paused; paused by its owner", "")


def test_a_daemon_that_hangs_is_a_failure(nexapod: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = find_home(str(tmp_path / "home"), {})
    monkeypatch.setattr("nexapod.cli.doctor.STATUS_S", 0.2)
    home.make_folders()
    with answering(home.make_socket_place(), b"", then=until_gone):
        found = results(nexapod)[1]
    assert found["daemon"][::2] == ("fail", "nexapod daemon restart")
    assert "peers" not in found


def test_a_process_without_a_socket_is_not_called_stopped(nexapod: Run, tmp_path: Path) -> None:
    home = find_home(str(tmp_path / "home"), {})
    home.make_folders()
    words = [sys.executable, "-c", "print(flush=True); input()", "nexapod-daemon"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # Linux shows the words of a process a moment after it began
        home.pid_file.write_text(str(process.pid))
        found = results(nexapod)[1]["daemon"]
        process.communicate(b"\n")
    assert (found[0], found[2]) == ("warn", "nexapod daemon logs")
    assert f"process {process.pid} runs, but nothing answers" in found[1]


def test_a_gpu_that_no_job_would_get(nexapod: Run, well: Standin, engine: Standin, programs: Programs) -> None:
    programs("nvidia-smi", "echo NVIDIA H100")
    code, found = results(nexapod)
    assert (code, found["gpu"][0], "nvidia-ctk" in found["gpu"][2]) == (0, "warn", True)
    engine.answers["GET /info"] = ENGINE_INFO | {"Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    assert results(nexapod)[1]["gpu"][0] == "ok"


def test_only_a_failure_is_exit_1_and_every_format_has_the_fix(nexapod: Run, well: Standin, engine: Standin) -> None:
    engine.answers["GET /info"] = ENGINE_INFO | {"PidsLimit": False, "CgroupDriver": "none\x1b[2J\nx"}
    code, out, err = nexapod("doctor")
    assert code == Exit.FAILURE
    assert f"1 of {len(CHECKS)} checks failed" in err
    assert "cgroup_enable=memory" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == len(CHECKS) + 1
    for output in ("jsonl", "csv"):
        code, out, _ = nexapod("doctor", "-o", output)
        assert (code, "cgroup_enable=memory" in out, "\x1b" in out) == (Exit.FAILURE, True, False)
