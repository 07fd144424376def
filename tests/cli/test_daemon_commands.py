"""Starting and stopping a daemon from the command line; the stand-in plays nexapod-daemon."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexapod.cli.process import flag_words, is_daemon
from nexapod.errors import Exit
from nexapod.home import Home, find_home
from tests.cli.conftest import Run
from tests.cli.terminal import INTERRUPT, on_terminal

Process = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home with a key, named like the first node of the stand-in's mesh; no daemon runs on in it."""
    home = find_home(str(tmp_path / "aare"), {})
    home.make_folders()
    home.key_file.touch(0o600)
    yield home
    if home.pid_file.exists() and is_daemon(pid := int(home.pid_file.read_text())):
        os.kill(pid, signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_start_returns_when_ready_and_stop_when_gone(process: Process, home: Home, nexapod: Run) -> None:
    at = ("--home", str(home.config))
    code, out, err = ended(process(*at, "daemon", "start", "--slots", "3", "--no-work", "-o", "json"))
    assert code == 0, err
    told = json.loads(out)
    assert told["state"] == "running"
    assert is_daemon(told["pid"])
    assert f"started --home {home.config} --slots 3 --no-work\n" in home.log_file.read_text()
    assert home.log_file.stat().st_mode & 0o077 == 0

    code, out, err = nexapod(*at, "daemon", "start")
    assert (code, str(told["pid"]) in out, "already running" in err) == (0, True, True)
    assert nexapod(*at, "daemon", "status")[1].startswith("Running")
    assert "stand-in: started" in nexapod(*at, "daemon", "logs", "-n", "1")[1]

    code, _, err = nexapod(*at, "daemon", "stop")
    assert (code, is_daemon(told["pid"])) == (0, False), err
    assert nexapod(*at, "daemon", "stop")[0] == Exit.NO_DAEMON
    code, _, err = nexapod(*at, "status")
    assert code == Exit.NO_DAEMON
    assert f"next: start it: nexapod --home {home.config} daemon start" in err


def test_a_daemon_that_dies_is_told_with_the_end_of_its_log(process: Process, home: Home) -> None:
    home.log_file.write_text("yesterday's trouble\n")
    code, out, err = ended(process("--home", str(home.config), "daemon", "start", STANDIN="aare-dies"))
    assert (code, out) == (Exit.FAILURE, "")
    assert "the daemon ended before it was ready" in err
    assert "the disk is on fire" in err
    assert "yesterday" not in err


def test_restart_makes_a_new_process_and_starts_one_where_there_was_none(process: Process, home: Home) -> None:
    at = ("--home", str(home.config))
    pids = []
    for _ in range(2):
        code, out, err = ended(process(*at, "daemon", "restart", "-o", "json"))
        assert code == 0, err
        pids.append(json.loads(out)["pid"])
    assert pids[0] != pids[1]
    assert not is_daemon(pids[0])


def test_foreground_becomes_the_daemon(process: Process, home: Home) -> None:
    running = process(
        "--home", str(home.config), "daemon", "start", "--foreground", "--name", "x", PYTHONUNBUFFERED="1"
    )
    assert running.stdout is not None
    assert "--name x" in running.stdout.readline()
    assert is_daemon(running.pid)
    running.send_signal(signal.SIGTERM)
    assert ended(running)[0] in (0, -signal.SIGTERM)  # it may come before the stand-in listens to it


def test_a_second_request_when_the_first_is_not_enough(
    process: Process, home: Home, nexapod: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--home", str(home.config))
    assert ended(process(*at, "daemon", "start", STANDIN="stubborn"))[0] == 0
    monkeypatch.setattr("nexapod.cli.daemon.DRAIN_S", 0.3)
    monkeypatch.setattr("nexapod.cli.daemon.LEAVE_S", 0.3)
    code, _, err = nexapod(*at, "daemon", "stop")
    assert code == Exit.TIMED_OUT
    assert "asking it to leave at once" in err
    assert "kill -9" in err
    assert home.log_file.read_text().count("draining") == 2


def test_another_program_with_the_pid_is_left_alone(home: Home, nexapod: Run) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        home.pid_file.write_text(str(other.pid))
        assert nexapod("--home", str(home.config), "daemon", "stop")[0] == Exit.NO_DAEMON
        assert other.poll() is None
        other.communicate(b"\n")
    for nonsense in ("", "-1", "0", "x", "99999999999999"):
        home.pid_file.write_text(nonsense)
        assert nexapod("--home", str(home.config), "daemon", "stop")[0] == Exit.NO_DAEMON


def test_nothing_starts_without_a_key_or_with_wrong_settings(nexapod: Run, home: Home, tmp_path: Path) -> None:
    code, _, err = nexapod("--home", str(tmp_path / "none"), "daemon", "start")
    assert code == Exit.FAILURE
    assert f"make one: nexapod --home {tmp_path}/none init" in err
    home.config_file.write_text("slotz = 3\n")
    code, _, err = nexapod("--home", str(home.config), "daemon", "start", "--engine", "podmann")
    assert code == Exit.USAGE
    assert "slotz = 3" in err
    assert "did you mean slots?" in err
    assert "engine" in err


def test_logs_of_none_and_a_unit_for_systemd(nexapod: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ("--home", str(home.config))
    assert nexapod(*at, "daemon", "logs")[0] == Exit.NOT_FOUND
    assert (
        f"ExecStart={Path(sys.executable).with_name('nexapod-daemon')} --home {home.config}\n"
        in nexapod(*at, "daemon", "install")[1]
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.data))
    path = nexapod("--home", "/srv/a b%c", "daemon", "install", "--write")[1].strip()
    assert '"/srv/a b%%c"' in Path(path).read_text()


def test_the_log_is_followed_line_by_line(home: Home) -> None:
    log = home.log_file
    log.write_text("long ago\nbefore\n")
    with on_terminal("--home", str(home.config), "daemon", "logs", "-f", "-n", "1") as terminal:
        terminal.until("before\r\n")
        with log.open("a") as file:
            file.write("first\nhal")
            file.flush()
            terminal.until("first\r\n")
            file.write("f \x1b[2J\x9b\n")
            file.flush()
            terminal.until("half  [2J \r\n")
        log.write_text("anew\n")  # shorter than it was: begun again
        terminal.until("anew\r\n")
        terminal.press(INTERRUPT)
        assert terminal.end() == Exit.INTERRUPTED
    assert terminal.seen.replace("^C", "") == "before\r\nfirst\r\nhalf  [2J \r\nanew\r\n\r\ninterrupted\r\n"


def test_a_log_that_goes_away_is_waited_for(home: Home) -> None:
    home.log_file.write_text("before\n")
    with on_terminal("--home", str(home.config), "daemon", "logs", "-f") as terminal:
        terminal.until("before")
        home.log_file.rename(home.log_file.with_suffix(".1"))
        home.log_file.write_text("after the night\n")
        terminal.until("after the night")
        terminal.press(INTERRUPT)
        assert terminal.end() == Exit.INTERRUPTED


def test_settings_become_words() -> None:
    flags = {"name": "x", "listen": ("/ip4/1", "/ip4/2"), "work": False, "gossip": True, "slots": None, "lease_ms": 5}
    words = ["--name", "x", "--listen", "/ip4/1", "--listen", "/ip4/2", "--no-work", "--gossip", "--lease-ms", "5"]
    assert flag_words(flags) == words
