"""The daemon as a process: one per home, ended by a signal, and never a traceback for what a person did wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from bootstrap.setup import create_node, found_network
from daemon import main
from nexapod.cli.client import Api
from nexapod.errors import Exit
from nexapod.home import Home, find_home

PROGRAM = Path(sys.executable).parent / "nexapod-daemon"
PATIENCE_S = 30


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in [name for name in os.environ if name.startswith("NEXAPOD_")]:
        monkeypatch.delenv(name)
    return find_home(str(tmp_path / "home"), {})


def node_in(home: Home) -> None:
    create_node(home, name="alone", listen=("/ip4/127.0.0.1/tcp/0",))
    found_network(home, "lab", node_name="alone")


def daemon(home: Home, *flags: str) -> list[str]:
    return [str(PROGRAM), "--home", str(home.config), "--engine", "none", *flags]


def refused(home: Home, *flags: str) -> tuple[int, str]:
    """Exit code and stderr of a daemon that ends by itself."""
    done = subprocess.run(daemon(home, *flags), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@contextmanager
def started(home: Home) -> Iterator["subprocess.Popen[str]"]:
    """A daemon whose API answers."""
    with subprocess.Popen(daemon(home), stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + PATIENCE_S
            while not Api(home.socket()).alive("/readyz"):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.process
def test_one_process_per_home_and_a_signal_ends_it_well(home: Home) -> None:
    node_in(home)
    with started(home) as process:
        assert home.pid_file.read_text() == f"{process.pid}\n"
        code, said = refused(home)
        assert code == Exit.FAILURE
        assert "this node runs already" in said
        assert str(process.pid) in said
        assert "next: run: nexapod daemon stop" in said
        assert home.pid_file.exists()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == Exit.OK
    assert not home.pid_file.exists()
    assert not home.socket().exists()
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("stands on network" in line["text"] for line in lines)
    assert any(line["text"] == "asked to stop" for line in lines)
    assert {"ts", "level", "part", "text"} <= lines[0].keys()


def test_a_home_without_a_key_is_told_what_to_do(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.serve(home, {}) == Exit.FAILURE
    said = capsys.readouterr().err
    assert "this home has no node yet" in said
    assert "next: run: nexapod init" in said
    assert not home.run.exists()


def test_every_wrong_setting_is_listed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    node_in(home)
    home.config_file.write_text('slots = -1\nnmae = "x"\nlisten = ["here"]\n')
    assert main.serve(home, {"engine": "steam", "lease_ms": 5}) == Exit.USAGE
    said = capsys.readouterr().err
    for key in ("slots", "nmae", "listen", "engine", "lease_ms"):
        assert key in said
    assert "did you mean name?" in said
    assert "Traceback" not in said


def test_a_damaged_manifest_ends_it_with_a_sentence(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    node_in(home)
    home.manifest_file.write_bytes(b"rubbish")
    assert main.serve(home, {"engine": "none"}) == Exit.FAILURE
    said = capsys.readouterr().err
    assert "is damaged" in said
    assert "Traceback" not in said


def test_a_ledger_of_another_network_ends_it_with_a_sentence(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    node_in(home)
    home.ledger_dir.mkdir(parents=True, exist_ok=True)
    home.ledger_dir.joinpath("CURRENT").write_text("rubbish\n")
    assert main.serve(home, {"engine": "none"}) == Exit.FAILURE
    said = capsys.readouterr().err
    assert str(home.ledger_dir) in said
    assert "Traceback" not in said


def test_a_mistake_of_ours_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main._ended(RuntimeError("a bug"), debug=False) == Exit.FAILURE
    said = capsys.readouterr().err
    assert "Traceback" not in said or "a bug" in said
    assert "a mistake in it" in said


def test_flags_that_were_not_given_leave_the_settings_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def serve(home: Home, flags: dict[str, object]) -> int:
        seen.update(flags)
        return 0

    monkeypatch.setattr(main, "serve", serve)
    assert CliRunner().invoke(main.daemon, ["--home", str(home.config), "--no-work"]).exit_code == 0
    assert seen.pop("work") is False
    assert set(seen.values()) == {None}
    assert set(seen) == {"name", "listen", "engine", "slots", "lease_ms", "drain_s", "gossip", "log_level"}
