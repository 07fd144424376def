"""What an owner may tell a node: join a network while it runs, pause, resume."""

import math
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import trio

from bootstrap.bootstrap_file import new_bootstrap
from bootstrap.manifest import genesis_manifest
from bootstrap.setup import export_bootstrap
from daemon.local.desk import Desk
from nexapod.cli.client import Refusal
from nexapod.config import load_config
from nexapod.errors import Exit, LocalError
from nexapod.hashing import blob_id
from nexapod.home import find_home
from nexapod.identity import Key
from tests.daemon.standing import PATIENCE_S, Standing, eventually, new_home, running, standing_node, until_met


async def refusal(asked: Awaitable[Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await asked
    return caught.value


async def register(node: Standing, body: dict[str, Any]) -> dict[str, Any]:
    answer = await node.post("/register", body)
    await eventually(lambda: node.desk.parts is not None)
    return answer


# --- belonging to a network -------------------------------------------------------------------------------------------
async def test_a_node_without_a_network_answers_four_things_and_then_stands(tmp_path: Path) -> None:
    async with running(new_home(tmp_path, "node"), stands=False) as node:
        assert await node.get("/livez") == {"ok": True}
        assert (await refusal(node.get("/readyz"))).exit_code == Exit.FAILURE
        status = await node.get("/status")
        assert (status["state"], status["healthy"], status["name"]) == ("unregistered", False, "node")
        wishes = [node.get("/v1/jobs"), node.get("/v1/ledger"), node.post("/submit-job"), node.post("/v1/node/pause")]
        for wish in wishes:
            error = await refusal(wish)
            assert (error.what, error.exit_code) == ("this node belongs to no network yet", Exit.REFUSED)
            assert error.next_step
        answer = await register(node, {"new_network": "lab"})
        assert answer == {
            "feed": node.feed.hex(), "peer": node.parts.node.peer, "network": "lab",
            "netid": node.parts.node.netid.hex(),
        }  # fmt: skip
        assert await node.get("/readyz") == {"ok": True}
        assert (await node.get("/status"))["state"] == "running"


async def test_a_node_joins_by_a_bootstrap_file_and_finds_its_peers(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as founder:
        bootstrap = export_bootstrap(founder.home, founder.parts.mesh.addresses())
        async with running(new_home(tmp_path, "late"), stands=False) as node:
            answer = await register(node, {"bootstrap": bootstrap.document()})
            assert answer["netid"] == founder.parts.node.netid.hex()
            await until_met(founder, node)
            # Registered again with the same network, it only learns the peers.
            assert await node.post("/register", {"bootstrap": bootstrap.document()}) == answer


async def test_one_home_belongs_to_one_network(tmp_path: Path) -> None:
    other = new_bootstrap(genesis_manifest("other", Key.from_seed(bytes(32)).public, blob_id(b"next")))
    async with standing_node(tmp_path) as node:
        for body in ({"bootstrap": other.document()}, {"new_network": "another"}):
            error = await refusal(node.post("/register", body))
            assert error.exit_code == Exit.REFUSED
            assert "belongs to another network" in error.what
        assert (await node.get("/status"))["network"] == "lab"


async def test_a_registration_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with running(new_home(tmp_path, "node"), stands=False) as node:
        good = new_bootstrap(genesis_manifest("other", Key.from_seed(bytes(32)).public, blob_id(b"next"))).document()
        bodies: list[dict[str, Any]] = [
            {}, {"new_network": "lab", "bootstrap": good}, {"new_network": ""}, {"new_network": 7},
            {"new_network": "not a name!"}, {"bootstrap": None}, {"bootstrap": good | {"netid": "00"}}, {"netid": "x"},
        ]  # fmt: skip
        for body in bodies:
            assert (await refusal(node.post("/register", body))).exit_code == Exit.USAGE
        error = await refusal(node.post("/register", {"bootstrap": good | {"netid": "00", "network": "x"}}))
        assert {fault["path"] for fault in error.faults} == {"netid", "network"}
        assert not node.home.manifest_file.exists()
        assert (await node.get("/status"))["state"] == "unregistered"


async def test_before_it_stands_a_registered_node_is_starting(tmp_path: Path) -> None:
    home = find_home(str(tmp_path / "node"), {})
    desk = Desk(home, load_config(home, {}, {}))
    assert desk.status()["state"] == "unregistered"
    home.make_folders()
    home.manifest_file.write_bytes(b"")
    assert desk.status()["state"] == "starting"
    for wish in (desk.pause(None), desk.resume()):
        with pytest.raises(LocalError, match="no network"):
            await wish


# --- lending ----------------------------------------------------------------------------------------------------------
async def test_pause_and_resume_change_why_this_node_works_or_not(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        worker = node.parts.core.worker
        assert await node.post("/v1/node/pause") == {}
        await eventually(lambda: not worker.capacity.willing)
        assert worker.capacity.why_not == "paused by its owner"
        status = await node.get("/status")
        assert status["state"] == "paused"
        assert any("paused" in why for why in status["why"])
        assert node.parts.lending.paused_until == math.inf
        (me,) = (await node.get("/v1/nodes"))["nodes"]
        assert me["me"]
        assert await node.post("/v1/node/resume") == {}
        await eventually(lambda: worker.capacity.willing)
        assert (await node.get("/status"))["state"] == "running"


async def test_a_pause_for_some_time_ends_by_itself(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        await node.post("/v1/node/pause", {"for_s": 1})
        await eventually(lambda: not node.parts.core.worker.capacity.willing)
        with trio.fail_after(PATIENCE_S):
            await eventually(lambda: node.parts.core.worker.capacity.willing)
        assert (await node.get("/status"))["state"] == "running"


@pytest.mark.parametrize("for_s", [0, -1, 1.5, True, "60", 2**63, []])
async def test_a_pause_of_no_length_is_refused(tmp_path: Path, for_s: object) -> None:
    async with standing_node(tmp_path) as node:
        assert (await refusal(node.post("/v1/node/pause", {"for_s": for_s}))).exit_code == Exit.USAGE
        assert node.parts.core.worker.capacity.willing
