"""What a mesh of real daemons does when nodes die, lie, or cannot gossip."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.mesh import ROOT, Mesh, Node, eventually, publish, shell_job, small_mesh

pytestmark = [pytest.mark.docker, pytest.mark.process]

PRICE = 1_000_000  # micro-credits of a task of 1e12 operations
LEASE = ("--lease-ms", "3000")
SLOW = "i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); done; echo $NEXAPOD_SEED > /out/seed"
QUICK = "echo $NEXAPOD_SEED $NEXAPOD_TASK_INDEX > /out/seed"


def paid(node: Node, job: str) -> dict[str, int]:
    """Micro-credits each node got for a job, summed over the tasks."""
    amounts: dict[str, int] = {}
    for row in node.executions(job):
        amounts[row["name"]] = amounts.get(row["name"], 0) + row["amount_micro"]
    return amounts


def credited(nodes: list[Node], by: Node) -> int:
    return sum(by.balance(node.feed()) for node in nodes)


def check_books(mesh: Mesh, *nodes: Node) -> None:
    """All ledgers are equal, hold what was minted, and stand a check from the first event."""
    mesh.until_equal(*nodes)
    for node in nodes or mesh.nodes:
        document = node.get("/v1/ledger/balances")
        assert sum(row["balance_micro"] for row in document["balances"]) == sum(document["minted_micro"].values())
        audit = node.get("/v1/ledger/verify")
        assert audit["ok"], audit["faults"]
        assert audit["refuted"] == []


def test_a_worker_killed_in_mid_task_is_replaced_and_credit_is_given_once(mesh: Mesh, tmp_path: Path) -> None:
    owner, workers = small_mesh(mesh, 3, *LEASE)
    job = publish(owner, shell_job(tmp_path, SLOW))
    victim: Node = eventually(
        lambda: next((node for node in workers if node.running()), None), "a worker runs the task"
    )
    victim.kill()
    survivors = [node for node in workers if node is not victim]
    found = owner.until_over(job)
    assert found["state"] == "settled"
    states = {row["name"]: row["state"] for row in owner.executions(job)}
    assert states[victim.name] == "lost"
    assert sorted(states.values()) == ["lost", "settled", "settled"]
    check_books(mesh, owner, *survivors)
    assert [owner.balance(node.feed()) for node in survivors] == [PRICE, PRICE]
    # Back again, it finds its duty is no longer wanted, and the ledger the others have.
    mesh.start(victim)
    check_books(mesh)
    assert victim.balance(victim.feed()) == 0
    eventually(lambda: not victim.running(), "the old task runs no more")


def test_an_owner_killed_and_started_again_finishes_its_job(mesh: Mesh, tmp_path: Path) -> None:
    owner, workers = small_mesh(mesh, 2, *LEASE)
    job = publish(owner, shell_job(tmp_path, SLOW, tasks=3))
    eventually(lambda: any(node.running() for node in workers), "a worker runs a task")
    before = owner.status()["ledger"]["events"]
    owner.kill()
    mesh.start(owner)
    assert owner.status()["ledger"]["events"] >= before
    # Killed once more while results come in, at a moment nobody chose.
    eventually(lambda: any(row["state"] == "committed" for row in owner.executions(job)), "a commit is there")
    owner.kill()
    mesh.start(owner)
    found = owner.until_over(job)
    assert (found["state"], found["ended"]) == ("settled", 3)
    check_books(mesh)
    assert sum(paid(owner, job).values()) == 6 * PRICE
    assert credited(workers, by=workers[0]) == 6 * PRICE


def test_a_forged_output_is_not_paid_and_a_third_execution_decides(mesh: Mesh, tmp_path: Path) -> None:
    owner = mesh.add("witness", network="lab")
    mesh.start(owner)
    mesh.write_bootstrap(owner)
    honest = [mesh.add("honest1"), mesh.add("honest2")]
    liar = mesh.add("liar", program=(sys.executable, "-P", str(ROOT / "tests/process/liar.py")))
    mesh.start(*honest, liar)
    mesh.until_connected()
    job = publish(owner, shell_job(tmp_path, QUICK, tasks=4))
    found = owner.until_over(job)
    assert found["state"] == "settled"
    rows = owner.executions(job)
    forged = [row for row in rows if row["name"] == "liar"]
    assert forged, "the draw gave the liar nothing in four tasks"
    assert {row["state"] for row in forged} == {"differed"}
    assert {row["amount_micro"] for row in forged} == {0}
    for row in forged:
        third = [other for other in rows if other["task"] == row["task"] and other["round"] == 1]
        assert [other["state"] for other in third] == ["settled"]
    assert any("differs" in line["text"] for line in owner.get(f"/v1/jobs/{job}/events")["events"])
    check_books(mesh)
    assert owner.balance(liar.feed()) == 0
    assert credited(honest, by=owner) == 8 * PRICE


def test_a_mesh_goes_on_when_every_bootstrap_node_is_dead(mesh: Mesh, tmp_path: Path) -> None:
    owner = mesh.add("witness", network="lab")
    mesh.write_bootstrap(owner)  # the network without a peer: the witness is no bootstrap node here
    guide = mesh.add("guide")
    mesh.start(guide)
    mesh.write_bootstrap(guide)
    workers = [mesh.add("worker1"), mesh.add("worker2")]
    owner.nexapod("bootstrap", "import", str(mesh.bootstrap_file))
    mesh.start(owner, *workers)
    mesh.until_connected()
    guide.kill()
    job = publish(owner, shell_job(tmp_path, QUICK, tasks=2))
    assert owner.until_over(job)["state"] == "settled"
    check_books(mesh, owner, *workers)
    # A node that starts again finds its way by the peers it remembers.
    workers[0].kill()
    mesh.start(workers[0])
    mesh.until_connected(owner, *workers)


def test_a_job_completes_with_all_gossip_dropped(mesh: Mesh, tmp_path: Path) -> None:
    owner, workers = small_mesh(mesh, 2, "--no-gossip")
    assert not owner.status()["gossip"]
    job = publish(owner, shell_job(tmp_path, QUICK, tasks=2))
    assert owner.until_over(job)["state"] == "settled"
    check_books(mesh)
    assert credited(workers, by=workers[1]) == 4 * PRICE


def seed_job(folder: Path) -> dict[str, Any]:
    return {
        "schema_version": "1.0", "job_id": "fold_ensemble_v1", "type": "protein_folding",
        "input_files": ["input1.fasta", "params.json"], "docker_image": "nexapod/folding:latest",
        "estimated_flops": 1.2e12, "tier": 1, "requirements": {"gpu": True, "ram_gb": 8},
        "input_uri": "s3://nexapod-inputs/fold_ensemble_v1/", "tolerance": 0.01, "credit_rate": 1.0,
    }  # fmt: skip
