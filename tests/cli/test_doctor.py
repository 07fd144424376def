"""The doctor finds what is wrong and says what to do."""

import json
import socket
from pathlib import Path

import pytest

from nexapod.home import find_home
from tests.cli.conftest import Run
from tests.cli.standin import Standin, serving


def results(nexapod: Run) -> tuple[int, dict[str, tuple[str, str, str]]]:
    code, out, _ = nexapod("doctor", "-o", "json")
    return code, {row["check"]: (row["result"], row["detail"], row["fix"]) for row in json.loads(out)}


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def test_a_bare_machine(nexapod: Run, tmp_path: Path) -> None:
    code, found = results(nexapod)
    assert code == 1
    assert found["key"] == ("fail", f"{tmp_path}/home/key is missing", "nexapod init")
    assert found["network"][0] == "warn"
    assert found["engine"][0] == "fail"
    assert "/nowhere/docker.sock (No such file or directory)" in found["engine"][1]
    assert found["daemon"] == ("warn", "not running", "nexapod daemon start")
    assert found["python"][0] == found["home"][0] == found["clock"][0] == "ok"


def test_a_node_that_is_well(nexapod: Run, standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Standin(find_home(str(tmp_path / "engine"), {}))) as engine:
        engine.answers["GET /version"] = {"Version": "20.10"}
        monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.home.socket()}")
        monkeypatch.setenv("NEXAPOD_DISK_GB", "1")
        standin.answers["GET /status"] = {"state": "running", "healthy": True, "peers": 3}
        nexapod("init", "--new-network", "lab")
        code, found = results(nexapod)
    assert code == 0, found
    assert {result for result, _, _ in found.values()} == {"ok"}
    assert found["network"][1] == "lab"
    assert found["engine"][1].startswith("version 20.10")


def test_each_thing_that_is_wrong(nexapod: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = find_home(None, {"NEXAPOD_HOME": str(tmp_path / "home")})
    nexapod("init", "--new-network", "lab")
    home.key_file.chmod(0o644)
    home.manifest_file.write_bytes(b"nonsense")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home.config_file.write_text(f'listen = ["/ip4/127.0.0.1/tcp/{port}"]\nwork = false\n')
        code, found = results(nexapod)
    assert code == 1
    assert found["key"][2] == f"chmod 600 {home.key_file}"
    assert found["network"][0] == "fail"
    assert "Address already in use" in found["ports"][1]
    assert found["engine"][0] == "ok"
    home.config_file.write_text("wrk = false\n")
    code, found = results(nexapod)
    assert found["settings"][0] == "fail"
    assert "did you mean work?" in found["settings"][1]
