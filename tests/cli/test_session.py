"""The options every command shares, wherever they stand, and the way to the right node."""

import json
from pathlib import Path

import click
import pytest

from nexapod.cli.main import run
from nexapod.cli.session import Group, Session, room, session
from nexapod.errors import Exit
from nexapod.home import find_home
from tests.cli.conftest import Run
from tests.cli.standin import Standin, serving


def test_shared_options_stand_anywhere(nexapod: Run, tmp_path: Path) -> None:
    with serving(Standin(find_home(str(tmp_path / "other"), {}))) as other:
        other.answers["GET /v1/nodes"] = {"nodes": []}
        for line in (
            "--home other -o json node list",
            "node --home other list -o json",
            "-o csv node -o jsonl list --home other -o json",
            "--home none node list --home other --output json",
        ):
            assert nexapod(*line.split())[:2] == (0, "[]\n"), line
    assert len(other.asked) == 4


def test_the_environment_names_the_home_and_the_flag_comes_first(
    nexapod: Run, standin: Standin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    standin.answers["GET /v1/nodes"] = {"nodes": []}
    assert nexapod("node", "list")[0] == 0
    monkeypatch.setenv("NEXAPOD_HOME", str(tmp_path / "elsewhere"))
    assert nexapod("node", "list")[0] == Exit.NO_DAEMON
    assert nexapod("node", "list", "--home", str(standin.home.config))[0] == 0


def test_what_is_no_format_or_no_option_is_usage(nexapod: Run) -> None:
    for words in (["-o", "xml", "status"], ["status", "-o"], ["status", "--home"], ["status", "--debug=1"]):
        code, out, err = nexapod(*words)
        assert (code, out) == (Exit.USAGE, "")
        assert "Error:" in err


def test_the_next_step_can_be_typed_as_it_stands(nexapod: Run, tmp_path: Path) -> None:
    assert Session().nexapod == "nexapod"
    assert Session("/a/b").nexapod == "nexapod --home /a/b"
    assert Session("a b;c").nexapod == "nexapod --home 'a b;c'"
    folder = str(tmp_path / "it's mine")
    assert (
        f"""next: start it: nexapod --home '{tmp_path}/it'"'"'s mine' daemon start"""
        in nexapod("--home", folder, "status")[2]
    )


def test_debug_lets_an_error_through_with_its_place(nexapod: Run) -> None:
    with pytest.raises(Exception, match="the daemon is not running"):
        run(["--debug", "status"])
    assert nexapod("status")[0] == Exit.NO_DAEMON


def test_a_fault_of_ours_is_told_without_a_traceback(nexapod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise KeyError("x\x1b[2J\ny")

    monkeypatch.setattr("nexapod.cli.node.installed", broken)
    code, out, err = nexapod("version")
    assert (code, out) == (Exit.FAILURE, "")
    assert err.splitlines()[0] == "nexapod: a fault in nexapod itself"
    assert "KeyError" in err
    assert "\x1b" not in err
    with pytest.raises(KeyError):
        run(["version", "--debug"])


def test_commands_are_opened_only_when_they_are_called() -> None:
    group = Group("g", lazy={"version": "nexapod.cli.node:version", "gone": "nexapod.cli.nowhere:x"})
    context = click.Context(group)
    assert group.list_commands(context) == ["version", "gone"]
    found = group.get_command(context, "version")
    assert found is not None
    assert found.name == "version"
    assert group.get_command(context, "none") is None
    assert room("bootstrap.manifest").__name__ == "bootstrap.manifest"
    with context:
        assert session() is session()


def test_a_home_that_is_no_folder_is_a_node_without_a_daemon(nexapod: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = nexapod("--home", "file", "status")
    assert (code, "the daemon is not running" in err) == (Exit.NO_DAEMON, True)
    code, out, _ = nexapod("--home", "file", "doctor", "-o", "json")
    assert code == Exit.FAILURE
    assert {row["check"]: row["result"] for row in json.loads(out)}["home"] == "fail"
