"""Making a node and its network's files, for real: init, bootstrap, config."""

import json
from pathlib import Path
from typing import Any

import pytest

from nexapod.errors import Exit
from nexapod.home import Home, find_home
from tests.cli.conftest import Run
from tests.cli.standin import ADDRESS, Standin

THERE = f"/ip4/192.0.2.7/tcp/4001/p2p/{ADDRESS}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home(str(tmp_path / "home"), {})


@pytest.fixture
def lab(nexapod: Run, tmp_path: Path) -> Path:
    """The bootstrap file of a network that another home began."""
    assert nexapod("--home", "founder", "init", "--new-network", "lab", "--name", "aare")[0] == 0
    code, _, err = nexapod("--home", "founder", "bootstrap", "export", "--address", THERE, "--file", "lab.json")
    assert (code, err) == (0, "wrote lab.json\n")
    return tmp_path / "lab.json"


def answer(nexapod: Run, *words: str) -> dict[str, Any]:
    code, out, err = nexapod(*words, "-o", "json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_init_makes_a_key_that_nobody_else_can_read(nexapod: Run, home: Home) -> None:
    made = answer(nexapod, "init", "--name", "inn", "--listen", "/ip4/127.0.0.1/tcp/4009")
    assert home.key_file.stat().st_mode & 0o777 == 0o600
    assert home.config.stat().st_mode & 0o777 == 0o700
    assert (made["home"], made["network"], made["netid"]) == (str(home.config), "", "")
    assert made["peer"].startswith("12D3KooW")
    shown = nexapod("config", "show", "--origin")[1]
    assert [line.split()[1:] for line in shown.splitlines()[1:3]] == [
        ["inn", str(home.config_file)], ["/ip4/127.0.0.1/tcp/4009", str(home.config_file)],
    ]  # fmt: skip


def test_init_never_overwrites_a_key(nexapod: Run, home: Home) -> None:
    answer(nexapod, "init")
    before = home.key_file.read_bytes()
    code, out, err = nexapod("init", "--new-network", "lab")
    assert (code, out) == (Exit.REFUSED, "")
    assert "this home has a node already" in err
    assert home.key_file.read_bytes() == before


def test_init_says_what_comes_next(nexapod: Run, lab: Path) -> None:
    assert "next: nexapod --home a bootstrap import FILE" in nexapod("--home", "a", "init")[2]
    assert "next: nexapod --home b daemon start" in nexapod("--home", "b", "init", "--new-network", "x")[2]
    assert answer(nexapod, "--home", "c", "init", "--bootstrap", str(lab))["network"] == "lab"
    assert nexapod("init", "--new-network", "x", "--bootstrap", str(lab))[0] == Exit.USAGE


def test_a_faulty_file_leaves_no_half_of_a_node(nexapod: Run, home: Home, lab: Path, tmp_path: Path) -> None:
    whole = json.loads(lab.read_text())
    (tmp_path / "wrong.json").write_text(json.dumps(whole | {"netid": "00" * 32, "network": "\x1b[2Jevil"}))
    (tmp_path / "noise.json").write_bytes(bytes(range(256)))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("wrong.json", "noise.json", "deep.json", "none.json"):
        for words in (["init", "--bootstrap", name], ["bootstrap", "import", name], ["bootstrap", "check", name]):
            code, out, err = nexapod(*words)
            assert (code, out) == (Exit.USAGE, ""), err
            assert "\x1b" not in err
    assert not home.key_file.exists()


def test_a_wrong_setting_leaves_no_node(nexapod: Run, home: Home) -> None:
    code, _, err = nexapod("init", "--listen", "udp:4001")
    assert code == Exit.USAGE
    assert "must be an address such as" in err
    assert not home.key_file.exists()


def test_a_file_is_checked_signed_and_verified(nexapod: Run, lab: Path) -> None:
    found = answer(nexapod, "bootstrap", "check", str(lab))
    assert (found["network"], found["witnesses"], found["threshold"]) == ("lab", 1, 1)
    assert (found["peers"], found["signed_by"]) == ([THERE], ["aare"])
    assert nexapod("bootstrap", "verify", str(lab)) == (0, "1 of 1 members signed\n", "")
    code, _, err = nexapod("bootstrap", "verify", str(lab), "--by", "2")
    assert (code, "1 member signed lab.json, 2 wanted" in err) == (Exit.DISPUTED, True)
    assert nexapod("bootstrap", "verify", str(lab), "--by", "0")[0] == Exit.USAGE

    answer(nexapod, "init")  # a stranger's signature counts for nobody
    assert nexapod("bootstrap", "sign", str(lab), "--to", "two.json")[2].splitlines() == [
        "wrote two.json", "2 signatures",
    ]  # fmt: skip
    assert answer(nexapod, "bootstrap", "check", "two.json")["signed_by"][1].startswith("a stranger, ")
    assert nexapod("bootstrap", "verify", "two.json", "--by", "2")[0] == Exit.DISPUTED
    assert nexapod("bootstrap", "sign", str(lab))[0] == 0
    assert len(json.loads(lab.read_text())["signatures"]) == 2


def test_a_file_that_was_changed_is_refused(nexapod: Run, lab: Path) -> None:
    lab.write_text(lab.read_text().replace("192.0.2.7", "192.0.2.8"))
    code, _, err = nexapod("bootstrap", "verify", str(lab))
    assert code == Exit.USAGE
    assert "does not sign this manifest and these peers" in err


def test_import_without_a_daemon_joins_at_the_next_start(nexapod: Run, lab: Path, home: Home) -> None:
    answer(nexapod, "init")
    code, out, err = nexapod("bootstrap", "import", str(lab))
    assert (code, err) == (0, "on network lab with 1 known peer\n")
    assert out.startswith("feed  ")
    assert home.manifest_file.exists()
    assert nexapod("bootstrap", "list", "-o", "csv")[1] == f'peer,failures,addresses\n{ADDRESS},0,"[""{THERE}""]"\n'
    nexapod("--home", "third", "init", "--new-network", "other")
    code, _, err = nexapod("--home", "third", "bootstrap", "import", str(lab))
    assert (code, "belongs to another network" in err) == (Exit.REFUSED, True)


def test_import_with_a_daemon_is_the_daemons_to_do(nexapod: Run, lab: Path, standin: Standin) -> None:
    answer(nexapod, "init")
    standin.answers["POST /register"] = {"feed": "ab", "peer": "12D"}
    assert answer(nexapod, "bootstrap", "import", str(lab)) == {"feed": "ab", "peer": "12D"}
    assert standin.asked[-1] == ("POST /register", {"bootstrap": json.loads(lab.read_text())})
    assert not standin.home.manifest_file.exists()


def test_peers_are_added_listed_and_forgotten(nexapod: Run, standin: Standin) -> None:
    answer(nexapod, "init")
    standin.answers["POST /v1/swarm/connect"] = {}
    assert nexapod("bootstrap", "add", THERE)[2] == "remembered for the daemon's next start\nconnected\n"
    standin.answers["POST /v1/swarm/connect"] = (504, {"error": {"what": "nobody answers there", "exit_code": 1}})
    code, _, err = nexapod("bootstrap", "add", THERE)
    assert (code, err.splitlines()[0]) == (Exit.FAILURE, "remembered for the daemon's next start")
    for wrong in ("", "x", "/ip4/192.0.2.7/tcp/4001", f"/ip4/192.0.2.7/tcp/99999999/p2p/{ADDRESS}", "\x1b[2J"):
        code, out, err = nexapod("bootstrap", "add", wrong)
        assert (code, out, "\x1b" in err) == (Exit.USAGE, "", False)
    assert ADDRESS in nexapod("bootstrap", "list")[1]
    for wrong in ("", "zz"):
        assert nexapod("bootstrap", "rm", wrong)[0] == Exit.NOT_FOUND
    assert nexapod("bootstrap", "rm", ADDRESS[:20]) == (0, "", f"forgot {ADDRESS}\n")
    assert nexapod("bootstrap", "list") == (0, "", "the book is empty\n")


def test_export_names_where_the_daemon_listens(nexapod: Run, standin: Standin, tmp_path: Path) -> None:
    standin.answers["GET /status"] = {}
    code, _, err = nexapod("bootstrap", "export")
    assert (code, "next:" in err) == (Exit.FAILURE, True)
    answer(nexapod, "init", "--new-network", "lab")
    standin.answers["GET /status"] = {"addresses": [THERE]}
    assert json.loads(nexapod("bootstrap", "export")[1])["peers"] == [THERE]
    standin.answers["GET /status"] = {"addresses": None}
    code, out, err = nexapod("bootstrap", "export")
    assert (code, json.loads(out)["peers"]) == (0, [])
    assert "the file names no peer" in err
    (tmp_path / "folder.new").mkdir()
    code, _, err = nexapod("bootstrap", "export", "--file", "folder")
    assert (code, "folder cannot be written: Is a directory" in err.replace("\n  ", ": ")) == (Exit.FAILURE, True)


def test_export_without_a_daemon(nexapod: Run) -> None:
    answer(nexapod, "init", "--new-network", "lab")
    code, out, err = nexapod("bootstrap", "export")
    assert (code, json.loads(out)["peers"], "start the daemon first" in err) == (0, [], True)


def test_settings_are_shown_with_their_origin(nexapod: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXAPOD_SLOTS", "3")
    monkeypatch.setenv("NEXAPOD_WORK", "off")
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(nexapod("config", "show", "-o", "json")[1])}
    assert rows["slots"] == (3, "env NEXAPOD_SLOTS")
    assert rows["work"] == (False, "env NEXAPOD_WORK")
    assert rows["engine"] == ("auto", "default")
    assert "work          false" in nexapod("config", "show")[1]
    home.make_folders()
    home.config_file.write_text("slotz = 3\nname = '''a\nb'''\n")
    code, out, err = nexapod("config", "show")
    assert (code, out) == (Exit.USAGE, "")
    assert "did you mean slots?" in err
    assert "name" in err


def test_settings_read_again_say_what_waits_for_a_restart(nexapod: Run, standin: Standin) -> None:
    standin.answers["POST /v1/node/reload"] = (200, {"changed": ["slots"], "at_next_start": ["listen"]})
    code, out, err = nexapod("config", "reload")
    assert (code, out) == (0, "")
    assert "taken now: slots" in err
    assert "at the next start: listen" in err
    assert "daemon restart" in err
    standin.answers["POST /v1/node/reload"] = (200, {"changed": [], "at_next_start": []})
    assert "nothing has changed" in nexapod("config", "reload")[2]
