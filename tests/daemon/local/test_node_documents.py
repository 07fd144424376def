"""This node, its peers and its executions as documents, also when not all is well."""

from pathlib import Path

import pytest
import trio

from daemon.local import node_documents as documents
from daemon.loop import now
from nexapod.identity import peer_id
from runtime.engine import EngineInfo
from runtime.memory import MemoryEngine
from runtime.task import Broke, Reason
from tests.daemon.standing import PROFILE, eventually, job_of, program, settled, standing_mesh, standing_node, stranger


async def test_a_node_alone_says_so(tmp_path: Path) -> None:
    async with standing_node(tmp_path, name="lonely", slots=3) as node:
        status = documents.status(node.parts, now().mono_ms / 1000 - 7)
        assert (status["state"], status["name"], status["slots"], status["uptime_s"]) == ("running", "lonely", 3, 7)
        assert not status["healthy"]
        assert status["why"] == ["no peer is connected; see: nexapod bootstrap list"]
        assert status["engines"] == [{"name": "docker", "version": "0", "ready": True, "why": ""}]
        assert status["key"] == node.key.hex()
        assert status["peer"] == peer_id(node.key)
        assert status["jobs"] == {}
        assert documents.peers(node.parts) == {"peers": []}
        assert documents.executions(node.parts) == {"executions": []}
        (me,) = documents.nodes(node.parts)["nodes"]
        assert (me["me"], me["seen"], me["name"], me["slots"]) == (True, "this node", "lonely", 3)
        assert me["addresses"] == status["addresses"] == node.parts.mesh.addresses()


async def test_everything_that_is_wrong_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(self: MemoryEngine) -> EngineInfo:
        return EngineInfo("docker", "", ready=False, why="the socket is gone")

    monkeypatch.setattr(MemoryEngine, "probe", down)
    async with standing_node(tmp_path) as node:
        await node.post("/v1/node/pause", {"for_s": 60})
        status = documents.status(node.parts, 0.0)
        assert status["state"] == "paused"
        told = "\n".join(status["why"])
        for word in ("no peer", "the socket is gone", "nexapod doctor", "nexapod node resume"):
            assert word in told
        node.parts.lending.stopping = True
        assert documents.status(node.parts, 0.0)["state"] == "stopping"


async def test_peers_are_listed_whether_they_have_said_who_they_are_or_not(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        peer.greets = False
        await peer.mesh.connect(node.key, node.parts.mesh.addresses())
        await eventually(lambda: peer.key.public in node.parts.mesh.connected())
        (row,) = documents.peers(node.parts)["peers"]
        assert (row["name"], row["feed"], row["peer"], row["inbound"]) == ("", "", peer_id(peer.key.public), True)
        assert row["address"].startswith("/ip4/127.0.0.1/tcp/")
        await peer.hello(node, advert=peer.advert(name="stranger"))
        (row,) = documents.peers(node.parts)["peers"]
        assert (row["name"], row["feed"]) == ("stranger", peer.feed.hex())
        found = {row["name"]: row for row in documents.nodes(node.parts)["nodes"]}
        assert list(found)[0] == "node0"  # noqa: RUF015 - the order is what is tested
        assert found["stranger"]["seen"] == "connected"
        assert (found["stranger"]["cores"], found["stranger"]["class"]) == (PROFILE.cores, PROFILE.numeric_class)
        node.parts.connections.forget(peer.key.public)
        await peer.mesh.disconnect(node.key)
        await eventually(lambda: peer.key.public not in node.parts.mesh.connected())
        assert {row["name"]: row["seen"] for row in documents.nodes(node.parts)["nodes"]}["stranger"].endswith("s ago")


async def test_executions_are_followed_from_waiting_to_their_end(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, *workers):
        for worker in workers:
            worker.engine.gate = trio.Event()
        job = (await owner.post("/submit-job", {"descriptor": job_of(), "base": str(tmp_path)}))["job"]
        for worker in workers:
            await eventually(lambda worker=worker: worker.engine.running)
            (row,) = documents.executions(worker.parts)["executions"]
            assert (row["job"], row["state"], row["ended_ms"]) == (job, "running", 0)
            assert row["running_ms"] >= row["fetching_ms"] > 0
            assert documents.status(worker.parts, 0.0)["tasks"] == {"running": 1, "done": 0}
            assert worker.engine.gate is not None
            worker.engine.gate.set()
        await settled(owner, job)
        for worker in workers:
            await eventually(lambda worker=worker: documents.status(worker.parts, 0.0)["tasks"]["done"] == 1)
            (row,) = documents.executions(worker.parts)["executions"]
            assert row["state"] == "ended"
            assert row["what"].startswith("exit code 0")
        assert documents.status(owner.parts, 0.0)["jobs"] == {"settled": 1}


async def test_why_a_node_does_not_work_on_an_offer(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, first, second):
        owner.engine.programs["nexapod/rare:1"] = program
        second.engine.fail = Broke(Reason.NO_ROOM, "full")
        body = {"descriptor": job_of("rare", image="nexapod/rare:1"), "base": str(tmp_path)}
        job = (await owner.post("/submit-job", body))["job"]
        await eventually(lambda: documents.why_not(first.parts)["reasons"])
        (row,) = documents.why_not(first.parts)["reasons"]
        assert (row["offer"], row["job_id"], row["reason"]) == (job, "rare", "image-missing")
        assert "nexapod/rare:1" in row["detail"]
        assert documents.why_not(owner.parts) == {"reasons": []}
