"""The command itself: its exit codes, and what it says without a daemon."""

import pytest

from nexapod.cli.main import COMMANDS
from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import Standin


def test_every_command_is_there_and_helps(nexapod: Run) -> None:
    code, out, _ = nexapod("--help")
    assert code == 0
    for name in COMMANDS:
        assert f"  {name} " in out
        assert nexapod(name, "--help")[0] == 0


@pytest.mark.parametrize(
    "words",
    [["status"], ["peers"], ["node", "list"], ["job", "list"], ["results", "ls", "x"], ["ledger", "verify"],
     ["swarm", "connect", "/ip4/1.2.3.4/tcp/1"]],
)  # fmt: skip
def test_without_a_daemon_a_command_says_how_to_start_one(nexapod: Run, words: list[str]) -> None:
    code, out, err = nexapod(*words)
    assert (code, out) == (Exit.NO_DAEMON, "")
    assert "the daemon is not running" in err
    assert "start it: nexapod daemon start" in err


def test_usage_is_exit_2(nexapod: Run) -> None:
    for words in (["nonsense"], ["job", "list", "--nonsense"], ["publish"], ["job", "wait", "x", "--timeout", "soon"]):
        code, out, err = nexapod(*words)
        assert (code, out) == (Exit.USAGE, "")
        assert "Usage: nexapod" in err


def test_the_socket_has_a_name_other_programs_can_use(nexapod: Run, standin: Standin) -> None:
    assert nexapod("config", "socket") == (0, f"{standin.home.socket()}\n", "")
