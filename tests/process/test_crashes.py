"""Power cuts and wrong clocks, done to real daemons that are at work.

NEXAPOD_KILLS says how often a daemon is killed (25; the campaign takes 200).
"""

import os
import random
import sys
import time
from pathlib import Path

import pytest

from tests.process.mesh import ROOT, Mesh, Node, eventually, publish, shell_job, small_mesh

pytestmark = [pytest.mark.docker, pytest.mark.process]

KILLS = int(os.environ.get("NEXAPOD_KILLS", "25"))
DAY_S = 86_400
QUICK = "echo $NEXAPOD_SEED > /out/seed"


def own_events(node: Node) -> list[str]:
    """Ids of all events of the node's own feed, as it tells them: what it has acknowledged."""
    ids: list[str] = []
    while True:
        page = node.get("/v1/ledger/log", feed=node.feed(), after=len(ids) - 1, limit=1000)["events"]
        ids += [row["id"] for row in page]
        if len(page) < 1000:
            return ids


def test_killed_at_any_instant_a_node_loses_nothing_it_acknowledged(mesh: Mesh, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    owner, workers = small_mesh(mesh, 2, "--lease-ms", "30000", "--slots", "2")
    jobs: list[str] = []
    for number in range(KILLS):
        victim = owner if number % 3 else workers[number % 2]
        if number % 4 == 0 and number < KILLS - 2:
            mesh.until_connected()
            jobs.append(publish(owner, shell_job(tmp_path, QUICK, tasks=3, label=f"job{number}")))
        told = own_events(victim)
        until = time.monotonic() + chance.uniform(0, 1.0)
        while time.monotonic() < until:  # what it tells up to the last moment counts
            told = own_events(victim)
        victim.kill()
        mesh.start(victim)
        kept = own_events(victim)
        assert kept[: len(told)] == told, f"kill {number}: {len(told)} events told, other ones kept"
    for job in jobs:
        assert owner.until_over(job, 120)["state"] == "settled"
    mesh.until_equal()
    for node in mesh.nodes:
        assert node.get("/v1/ledger/forks")["forks"] == []
        audit = node.get("/v1/ledger/verify")
        assert audit["ok"], audit["faults"]
        assert audit["refuted"] == []
    paid = sum(owner.balance(worker.feed()) for worker in workers)
    assert paid == len(jobs) * 3 * 2 * 1_000_000
    print(f"{KILLS} kills, {len(jobs)} jobs, {owner.status()['ledger']['events']} events, none lost")


def test_clocks_a_day_wrong_change_no_outcome(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (sys.executable, "-P", str(ROOT / "tests/process/skewed.py"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    owner = mesh.add("witness", program=program, network="lab")
    monkeypatch.setenv("NEXAPOD_TEST_SKEW_S", str(-DAY_S))
    mesh.start(owner)
    mesh.write_bootstrap(owner)
    early = mesh.add("early", program=program)
    right = mesh.add("right")
    monkeypatch.setenv("NEXAPOD_TEST_SKEW_S", str(DAY_S))
    mesh.start(early, right)
    mesh.until_connected()
    job = publish(owner, shell_job(tmp_path, QUICK, tasks=2))
    assert owner.until_over(job)["state"] == "settled"
    mesh.until_equal()
    assert [right.balance(node.feed()) for node in (early, right)] == [2_000_000, 2_000_000]
    # Right again, the node goes on with a clock that is two days behind its last start.
    owner.kill()
    monkeypatch.setenv("NEXAPOD_TEST_SKEW_S", str(-2 * DAY_S))
    mesh.start(owner)
    job = publish(owner, shell_job(tmp_path, QUICK, label="again"))
    assert owner.until_over(job)["state"] == "settled"
    mesh.until_equal()
    said = [row["ts_ms"] for row in owner.get("/v1/ledger/log", job=job)["events"]]
    assert max(said) - min(said) > DAY_S * 1000, "the clocks were right"
    eventually(lambda: owner.status()["healthy"], "the node is well")
