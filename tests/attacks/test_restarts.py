"""The host of a running daemon dies: connections go, everything that was promised goes on."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.attacks.frail import FRAIL_PROTOCOL
from tests.attacks.siege import HonestProcess, Siege, attacker, besieged, send_raw
from tests.daemon.standing import job_of
from tests.process.mesh import Node, eventually, new_mesh, small_mesh

pytestmark = pytest.mark.process

FRAIL = (sys.executable, "-P", str(Path(__file__).with_name("frail.py")))
TASK_S = "3"


@pytest.fixture(scope="module")
def frail() -> Iterator[Siege]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        with besieged(program=FRAIL) as siege:
            yield siege


def kill_host(node: Node) -> None:
    """Make a service of the node's network host raise."""
    assert node.process is not None
    before = node.status()["network_restarts"]
    node.process.send_signal(signal.SIGUSR1)
    eventually(lambda: node.status()["network_restarts"] == before + 1, "the host has died")


async def test_a_handler_that_raises(camp: object, frail: Siege) -> None:
    async with frail.attack("C2 a handler that raises"), attacker(frail) as foe:
        for _ in range(40):
            await send_raw(foe, frail, FRAIL_PROTOCOL, b"x")
        assert foe.key.public in await frail.peers()  # it cost a stream, not the connection


async def test_a_frozen_peer_is_noticed_and_slows_nobody(camp: object, frail: Siege) -> None:
    other = HonestProcess(frail.netid, frail.key, frail.address)
    try:
        async with frail.attack("W6 a peer that is frozen"):
            other.process.send_signal(signal.SIGSTOP)
            await frail.until_sent_away(other.key, within_s=20)
    finally:
        other.process.send_signal(signal.SIGCONT)
        other.end()


async def test_the_host_is_started_again_and_serves_whoever_comes_back(camp: object, frail: Siege) -> None:
    assert frail.node.process is not None
    pid, address = frail.node.process.pid, frail.node.status()["addresses"]
    await trio.to_thread.run_sync(kill_host, frail.node)
    frail.restarts += 1
    assert frail.node.process.pid == pid
    await trio.to_thread.run_sync(eventually, lambda: frail.node.status()["addresses"] == address, "it listens again")
    await trio.to_thread.run_sync(eventually, lambda: frail.node.status()["peers"] >= 1, "the honest peer is back")
    async with frail.attack("after the host was started again"), attacker(frail) as peer:
        assert await peer.mesh.ping(frail.key) < 3


def test_duties_and_jobs_go_on_when_hosts_die(camp: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's host dies while its tasks run, then a worker's; the job settles, nobody is assigned anew."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("NEXAPOD_TEST_TASK_S", TASK_S)
    with new_mesh() as mesh:
        owner, workers = frail_mesh(mesh)
        file = tmp_path / "job.json"
        file.write_text(json.dumps(job_of("frail", tasks=2)))
        job = owner.nexapod("publish", str(file)).strip()
        busy = eventually(lambda: next((node for node in workers if node.running()), None), "a worker runs a task")
        kill_host(owner)
        kill_host(busy)
        found = owner.until_over(job)
        assert found["state"] == "settled"
        assert {row["state"] for row in owner.executions(job)} == {"settled"}  # no lease was lost
        mesh.until_equal()


def frail_mesh(mesh: object) -> tuple[Node, list[Node]]:
    from tests.process.mesh import Mesh

    assert isinstance(mesh, Mesh)
    add = mesh.add
    mesh.add = lambda *args, **kwargs: add(*args, **({"program": FRAIL} | kwargs))  # type: ignore[method-assign]
    return small_mesh(mesh, 2)
