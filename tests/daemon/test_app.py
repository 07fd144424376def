"""Whole nodes: they survive crashes, notice what changes around them, and end well."""

from pathlib import Path

import pytest
import trio

from bootstrap.setup import found_network, load_node
from daemon import app
from daemon.app import engines_of
from daemon.core.states import ExecutionState
from daemon.core.step import Cancelled
from daemon.local.job_documents import find_job
from nexapod.cli.client import DaemonDown, Refusal
from nexapod.config import load_config
from nexapod.errors import LocalError
from nexapod.home import find_home
from nexapod.messages import Kind
from tests.daemon.standing import (
    PATIENCE_S,
    Standing,
    eventually,
    job_of,
    meet,
    new_home,
    program,
    running,
    settled,
    standing_mesh,
    standing_node,
    until_equal,
    until_met,
)

RARE = "nexapod/rare:1"


async def publish(node: Standing, base: Path, **changes: object) -> str:
    return str((await node.post("/submit-job", {"descriptor": job_of(**changes), "base": str(base)}))["job"])


def close_gates(*nodes: Standing) -> trio.Event:
    """Tasks of these nodes begin and do not end until the event is set."""
    gate = trio.Event()
    for node in nodes:
        node.engine.gate = gate
    return gate


async def check_books(*nodes: Standing) -> None:
    """All ledgers are equal, and every credit in them was minted by a settled task."""
    await until_equal(*nodes)
    for node in nodes:
        fold = node.parts.ledger.replica.fold
        assert sum(fold.net.values()) == sum(fold.minted.values())
        assert (await node.parts.ledger.audit()).ok
        node.parts.core.check_invariants()
        node.parts.ledger.replica.check_invariants()


async def test_a_job_is_published_run_twice_and_settled(tmp_path: Path) -> None:
    tmp_path.joinpath("a.txt").write_bytes(b"abc")
    async with standing_mesh(tmp_path, 3) as nodes:
        job = await publish(nodes[0], tmp_path, tasks=3, input_files=["a.txt"])
        document = await settled(nodes[0], job)
        assert (document["state"], document["ended"], document["paid_micro"]) == ("settled", 3, 6_000_000)
        await check_books(*nodes)
        for worker in nodes[1:]:
            assert worker.parts.ledger.replica.fold.earned[worker.feed, nodes[0].feed] == 3_000_000
            assert worker.engine.runs == 3


async def test_an_owner_that_crashes_finishes_its_job_in_its_next_life(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, *workers):
        gate = close_gates(*workers)
        job = await publish(owner, tmp_path, tasks=2)
        tasks = owner.parts.core.owner.book.jobs[bytes.fromhex(job)].tasks
        await eventually(lambda: [e.state for t in tasks for e in t.executions] == [ExecutionState.RUNNING] * 4)
        await owner.parts.loop.ask(Cancelled(bytes(32)))  # whatever made it so is on disk now
        await owner.crash()
        gate.set()  # they commit while nobody is there to hear it
        for worker in workers:
            await eventually(lambda worker=worker: worker.engine.runs == 2)
        async with running(owner.home) as again:
            document = await settled(again, job)
            assert (document["state"], document["paid_micro"]) == ("settled", 4_000_000)
            await check_books(again, *workers)


async def test_a_worker_that_crashes_runs_its_task_again_and_is_paid_once(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, first, second):
        gate = close_gates(first, second)
        job = await publish(owner, tmp_path)
        await eventually(lambda: first.engine.running and second.engine.running)
        await first.crash()
        assert first.engine.runs == 0
        async with running(first.home) as again:
            gate.set()
            document = await settled(owner, job)
            assert (document["state"], document["paid_micro"]) == ("settled", 2_000_000)
            await check_books(owner, again, second)
            assert again.engine.runs == 1
            commits = [event.kind for event in await owner.parts.ledger.log(again.feed, 0, 100)].count(Kind.COMMIT)
            assert commits == 1


async def test_an_image_that_was_loaded_later_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LOOK_S", 0.05)
    async with standing_mesh(tmp_path, 3) as (owner, *workers):
        owner.engine.programs[RARE] = program
        job = await publish(owner, tmp_path, image=RARE)
        for worker in workers:
            await eventually(lambda worker=worker: bytes.fromhex(job) in worker.parts.core.worker.offers)
            worker.engine.programs[RARE] = program
        assert (await settled(owner, job))["state"] == "settled"


async def test_a_node_that_is_asked_to_stop_keeps_its_record_and_leaves_nothing(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        job = await publish(node, tmp_path)
        socket = node.home.socket()
        with trio.fail_after(PATIENCE_S):
            await node.stop()
        assert not socket.exists()
        with pytest.raises(DaemonDown):
            await node.get("/livez")
        async with running(node.home) as again:
            assert find_job(again.parts, job).own is not None
            assert again.parts.ledger.replica.heads[again.feed].seq >= 1


async def test_a_node_whose_disk_is_full_can_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*record: object) -> None:
        raise LocalError("the disk is full", "", "make room and start it again")

    async with standing_node(tmp_path) as node:
        meet(node, 2)
        job = await publish(node, tmp_path)
        monkeypatch.setattr(node.parts.ledger._store, "write", full)
        with pytest.raises(Refusal, match="the disk is full"):
            await publish(node, tmp_path, label="another")
        status = await node.get("/status")
        assert (status["state"], status["healthy"]) == ("read-only", False)
        assert any("make room and start it again" in why for why in status["why"])
        assert job in {row["job"] for row in (await node.get("/v1/jobs"))["jobs"]}
        assert (await node.get("/v1/ledger/log", feed="node0"))["events"]


async def test_a_node_that_starts_again_listens_where_it_did(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 2) as (first, second):
        before = second.parts.mesh.addresses()
        await second.stop()
        async with running(second.home) as again:
            assert again.parts.mesh.addresses() == before
            await until_met(first, again)


async def test_a_port_of_another_node_is_not_shared_with_it(tmp_path: Path) -> None:
    """The library would let both listen there, and each connection would come to one of them by chance."""
    async with standing_node(tmp_path) as node:
        where = node.parts.mesh.addresses()[0].partition("/p2p/")[0]
        home = new_home(tmp_path, "other")
        found_network(home, "other", node_name="other")
        with pytest.raises(ExceptionGroup) as caught:
            await run_until_it_fails(home, where)
        assert caught.group_contains(LocalError, match="cannot listen on")
        assert (await node.get("/livez"))["ok"]


async def run_until_it_fails(home: object, listen: str) -> None:
    with trio.fail_after(PATIENCE_S):
        async with running(home, listen=[listen]):  # type: ignore[arg-type]
            pass


def test_what_runs_tasks_follows_the_settings(tmp_path: Path) -> None:
    home = new_home(tmp_path, "node")
    found_network(home, "lab", node_name="")
    node = load_node(home)
    found = {
        name: list(engines_of(home, load_config(find_home(str(tmp_path), {}), {}, {"engine": name}), node))
        for name in ("auto", "docker", "none")
    }
    assert found == {"auto": ["docker"], "docker": ["docker"], "none": []}


async def test_a_node_that_is_asked_to_stop_lets_its_tasks_finish(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, leaving, other):
        gate = close_gates(leaving)
        job = await publish(owner, tmp_path)
        await eventually(lambda: leaving.engine.running)
        leaving.ending.soon.set()
        await eventually(lambda: not leaving.parts.core.worker.capacity.willing)
        assert (await leaving.get("/status"))["state"] == "stopping"
        gate.set()
        with trio.fail_after(PATIENCE_S):
            await leaving.ended.wait()
        document = await settled(owner, job)
        assert (document["state"], document["paid_micro"]) == ("settled", 2_000_000)
        await check_books(owner, other)


async def test_a_node_that_is_asked_to_stop_at_once_gives_its_tasks_back(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, leaving, _):
        close_gates(leaving)
        job = await publish(owner, tmp_path)
        await eventually(lambda: leaving.engine.running)
        leaving.ending.soon.set()
        leaving.ending.now.set()
        with trio.fail_after(PATIENCE_S):
            await leaving.ended.wait()
        rows = (await owner.get(f"/v1/jobs/{job}/executions"))["executions"]
        (given,) = [row for row in rows if row["name"] == "node1"]
        assert given["state"] == "lost"  # long before its lease would have ended
        assert "stopped by its owner" in given["why"]
        assert leaving.engine.runs == 0
