"""This node and its neighbours: id, status, peers, node, swarm, version."""

import json
from typing import Any

import click
import pytest

from nexapod.cli.node import seconds
from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import ADDRESS, Standin

NODES: list[dict[str, Any]] = [
    {"name": "inn", "feed": "aa11" * 16, "peer": "12D3a", "tier": 1, "engines": ["docker"], "cores": 8,
     "ram_bytes": 16e9, "gpus": [{"name": "x"}], "flops": 2_500_000_000, "class": "x86-64-v3", "seen": "now"},
    {"name": "aare", "feed": "aa22" * 16, "peer": "12D3b", "tier": 0, "gpus": []},
    {"name": "aa11", "feed": "bb33" * 16, "peer": "12D3c"},
]  # fmt: skip
STATUS: dict[str, Any] = {
    "state": "running", "healthy": False, "why": ["the disk is full", "no peer answers"], "name": "inn", "peers": 1,
    "peer": "12D3a", "feed": "aa", "key": "bb", "network": "lab", "netid": "cc" * 32, "addresses": ["/ip4/a", "/ip4/b"],
    "engines": [{"name": "docker", "version": "20.10", "ready": True, "why": ""},
                {"name": "wasm", "version": "", "ready": False, "why": "off"}],
    "tasks": {"running": 2, "done": 5}, "jobs": {"settled": 1, "failed": 0},
    "ledger": {"events": 40, "feeds": 4, "certified_events": 39, "provisional": False,
               "minted_micro": {"c0": 1_500_000, "c1": 500_000}, "state_root": "dd" * 32},
}  # fmt: skip


def test_status_says_the_verdict_first_and_why(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /status"] = STATUS
    code, out, err = nexapod("status")
    assert (code, err) == (0, "")
    shown = out.splitlines()
    assert shown[0] == "Running · 1 peer · 2 tasks · not healthy"
    assert shown[1:3] == ["  why: the disk is full", "  why: no peer answers"]
    assert "network  lab  cccccccccccc  /ip4/a, /ip4/b" in shown
    assert "engine   docker 20.10  ready" in shown
    assert "engine   wasm   not ready: off" in shown
    assert "jobs     1 settled" in shown
    assert shown[-1] == "ledger   40 events of 4 feeds, 39 certified, 2 credits, state dddddddddddd"
    assert json.loads(nexapod("status", "-o", "json")[1]) == STATUS
    assert nexapod("daemon", "status")[1] == out


def test_status_of_a_node_without_a_network_is_short(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /status"] = {"state": "unregistered", "healthy": True}
    code, out, _ = nexapod("status")
    assert code == 0
    assert out.startswith("Unregistered · 0 peers · 0 tasks · healthy\nnode     (no name)")


def test_the_identity_needs_no_daemon(nexapod: Run, standin: Standin) -> None:
    nexapod("init", "--new-network", "lab", "--name", "inn")
    standin.answers["GET /status"] = STATUS
    shown = nexapod("id")[1].splitlines()
    assert shown[0] == "peer        12D3a"
    assert shown[-2:] == ["addresses   /ip4/a", "            /ip4/b"]
    standin.answers["GET /status"] = (500, {})
    assert nexapod("id")[0] == Exit.FAILURE  # a daemon that answers nonsense is not passed over


def test_the_identity_of_a_home_alone(nexapod: Run) -> None:
    code, _, err = nexapod("id")
    assert code == Exit.FAILURE
    assert "next:" in err
    made = json.loads(nexapod("init", "--new-network", "lab", "-o", "json")[1])
    found = json.loads(nexapod("id", "-o", "json")[1])
    assert found == {key: made[key] for key in ("peer", "feed", "key", "network", "netid")} | {"addresses": []}


def test_peers_and_nodes_are_lists(nexapod: Run, standin: Standin) -> None:
    peer = {"name": "inn", "feed": "aa" * 32, "peer": "12D3", "address": "/ip4/x", "inbound": True, "latency_ms": 3}
    standin.answers |= {"GET /v1/peers": {"peers": [peer]}, "GET /v1/nodes": {"nodes": NODES}}
    assert nexapod("peers")[1].splitlines()[1].split() == ["inn", "aa" * 6, "/ip4/x", "yes", "12D3"]
    shown = nexapod("node", "list")[1].splitlines()
    assert shown[1].split() == ["inn", "aa11" * 3, "1", "docker", "8", "16.0", "GB", "1", "2.5", "x86-64-v3", "now"]
    assert json.loads(nexapod("node", "list", "-o", "json")[1]) == NODES
    standin.answers |= {"GET /v1/peers": {"peers": []}, "GET /v1/nodes": {}}
    assert nexapod("peers") == (0, "", "no peer is connected\n")
    assert nexapod("node", "list") == (0, "", "no node is known\n")


def test_one_node_is_found_by_name_or_beginning(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /v1/nodes"] = {"nodes": NODES}
    for name in ("inn", "12D3a"):
        assert json.loads(nexapod("node", "show", name, "-o", "json")[1]) == NODES[0]
    for name, code, says in (
        ("aa", Exit.USAGE, "may be one of 2 nodes"),
        ("aa11", Exit.USAGE, "may be one of 2 nodes"),
        ("zz", Exit.NOT_FOUND, "no node is called zz"),
        ("", Exit.NOT_FOUND, "no node is called"),
    ):
        got, out, err = nexapod("node", "show", name)
        assert (got, out) == (code, "")
        assert says in err


def test_why_pause_resume_connect(nexapod: Run, standin: Standin) -> None:
    standin.answers |= {
        "GET /v1/node/why": {"reasons": [{"offer": "ab" * 32, "reason": "memory", "detail": "8 GB wanted"}]},
        "POST /v1/node/pause": {}, "POST /v1/node/resume": {}, "POST /v1/swarm/connect": {},
    }  # fmt: skip
    assert nexapod("node", "why")[1].splitlines()[1].split() == ["ab" * 6, "memory", "8", "GB", "wanted"]
    assert "Undo: nexapod node resume" in nexapod("node", "pause", "--for", "2h")[2]
    assert standin.asked[-1] == ("POST /v1/node/pause", {"for_s": 7200})
    assert nexapod("node", "pause")[0] == 0
    assert standin.asked[-1] == ("POST /v1/node/pause", {"for_s": None})
    assert nexapod("node", "resume") == (0, "", "resumed\n")
    address = f"/ip4/192.0.2.7/tcp/4001/p2p/{ADDRESS}"
    assert nexapod("swarm", "connect", address) == (0, "", f"connected to {address}\n")
    standin.answers["POST /v1/swarm/connect"] = (504, {"error": {"what": "nobody answers there", "exit_code": 1}})
    code, _, err = nexapod("swarm", "connect", address)
    assert (code, "nobody answers there" in err) == (Exit.FAILURE, True)


def test_times_have_units(nexapod: Run, standin: Standin) -> None:
    assert [seconds(text) for text in ("90", "90s", "30m", "2h", "1d")] == [90, 90, 1800, 7200, 86_400]
    for nonsense in ("", "s", "0", "-1", "1.5h", "1w", "٣", "9" * 10, "1h30m"):
        with pytest.raises(click.BadParameter):
            seconds(nonsense)
    assert nexapod("node", "pause", "--for", "soon")[0] == Exit.USAGE
    assert not standin.asked


def test_the_version_is_the_one_installed(nexapod: Run) -> None:
    code, out, _ = nexapod("version")
    assert (code, out.startswith("nexapod 0.")) == (0, True)
