"""What a person meets in the first hour with real daemons: good answers, refusals that say everything, clean ends."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from daemon.core.states import WALK
from tests.process.mesh import PROGRAMS, Mesh, eventually, publish, shell_job, small_mesh

pytestmark = [pytest.mark.docker, pytest.mark.process]

LONG = "i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done"
SEED_EXAMPLE = (
    '{"schema_version": "1.0", "job_id": "fold_ensemble_v1", "type": "protein_folding", "input_files": '
    '["input1.fasta", "params.json"], "docker_image": "nexapod/folding:latest", "estimated_flops": 1.2e12, '
    '"tier": 1, "requirements": {"gpu": true, "ram_gb": 8}, "input_uri": "s3://nexapod-inputs/fold_ensemble_v1/", '
    '"tolerance": 0.01, "credit_rate": 1.0}'
)


def containers(engine: docker.APIClient, feed: str) -> list[dict[str, Any]]:
    return list(engine.containers(all=True, filters={"label": f"nexapod.node={feed}"}))


def _sums(document: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Balances without the names, which a node on its own knows fewer of."""
    return [(row["account"], row["colour"], row["balance_micro"]) for row in document["balances"]]


def test_results_reach_a_node_that_neither_published_nor_ran_them(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("some words\n")
    owner, workers = small_mesh(mesh, 2)
    reader = mesh.add("reader", "--no-work")
    mesh.start(reader)
    job = publish(owner, shell_job(
        tmp_path, "wc -w < /in/words.txt > /out/count; echo $NEXAPOD_TASK_INDEX > /out/part/index || true; "
        "mkdir /out/part; echo $NEXAPOD_TASK_INDEX > /out/part/index", tasks=2, label="words",
        inputs=[{"uri": "file:words.txt"}],
    ))  # fmt: skip
    assert reader.until_over(job)["state"] == "settled"
    steps = [line["step"] for line in owner.get(f"/v1/jobs/{job}/events")["events"]]
    assert tuple(dict.fromkeys(steps)) == WALK
    assert [row["state"] for row in reader.executions(job)] == ["settled"] * 4
    reader.nexapod("results", "get", "words", "--output-dir", str(tmp_path / "got"))
    got = {path.relative_to(tmp_path / "got").as_posix(): path.read_text() for path in (tmp_path / "got").rglob("*")
           if path.is_file()}  # fmt: skip
    assert got == {"0/count": "2\n", "0/part/index": "0\n", "1/count": "2\n", "1/part/index": "1\n"}
    # The same books from every node, and from the disk when no daemon runs.
    mesh.until_equal()
    online = json.loads(reader.nexapod("ledger", "balance", "-o", "json"))
    assert json.loads(workers[0].nexapod("ledger", "balance", "-o", "json")) == online
    assert reader.stop() == 0
    offline = json.loads(reader.nexapod("ledger", "balance", "--offline", "-o", "json"))
    assert _sums(offline) == _sums(online)
    assert offline["minted_micro"] == online["minted_micro"]
    reader.nexapod("ledger", "verify", "--offline")


def test_a_job_nobody_can_run_is_refused_with_everything_it_lacks(mesh: Mesh, tmp_path: Path) -> None:
    owner, _ = small_mesh(mesh, 2)
    (tmp_path / "seed.json").write_text(SEED_EXAMPLE)
    said = owner.nexapod("publish", str(tmp_path / "seed.json"), code=7)
    for wanted in ("nexapod/folding:latest", "input1.fasta", "params.json", "gpu", "tolerance", "tier"):
        assert wanted in said, said
    assert owner.get("/v1/jobs") == {"jobs": []}

    (tmp_path / "broken.json").write_text(
        '{"schema_version": "2.0", "job_id": "no spaces allowed", "imgae": "x:1", "tasks": 0, '
        '"requirements": {"ram": 1}}'
    )
    said = owner.nexapod("publish", str(tmp_path / "broken.json"), code=2)
    for wanted in ("schema_version", "job_id", "imgae", "did you mean image", "tasks", "requirements.ram", "ram_gb"):
        assert wanted in said, said


def test_a_stopped_node_leaves_no_container_and_its_task_goes_to_another(
    mesh: Mesh, tmp_path: Path, engine: docker.APIClient
) -> None:
    owner, workers = small_mesh(mesh, 3, "--drain-s", "1")
    job = publish(owner, shell_job(tmp_path, LONG))
    leaver = eventually(lambda: next((node for node in workers if node.running()), None), "a worker runs the task")
    feed = leaver.feed()
    assert containers(engine, feed)
    assert leaver.stop() == 0
    assert containers(engine, feed) == []
    rest = [node for node in workers if node is not leaver]
    given_back = next(row for row in owner.executions(job) if row["node"] == feed)
    assert given_back["state"] == "lost"  # at once, long before its lease of a minute ends
    assert "stopped by its owner" in given_back["why"]
    eventually(lambda: all(node.running() for node in rest), "both others run the task")
    owner.nexapod("job", "cancel", job)
    assert owner.until_over(job)["state"] == "cancelled"
    eventually(lambda: not any(node.running() for node in rest), "nobody runs a cancelled task")
    for node in rest:
        eventually(lambda node=node: not containers(engine, node.feed()), "cancelled containers are gone")
    mesh.until_equal(owner, *rest)


def test_a_node_asked_to_stop_finishes_what_it_has_begun(mesh: Mesh, tmp_path: Path) -> None:
    owner, workers = small_mesh(mesh, 2)
    job = publish(
        owner, shell_job(tmp_path, "i=0; while [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done; date > /dev/null")
    )
    for node in workers:
        eventually(node.running, f"{node.name} runs the task")
    assert [node.stop() for node in workers] == [0, 0]
    assert owner.until_over(job, 5)["state"] == "settled"
    assert {row["state"] for row in owner.executions(job)} == {"settled"}


def test_containers_of_a_killed_node_are_swept_when_it_starts_again(
    mesh: Mesh, tmp_path: Path, engine: docker.APIClient
) -> None:
    owner, workers = small_mesh(mesh, 2)
    publish(owner, shell_job(tmp_path, LONG))
    victim = workers[0]
    eventually(victim.running, "the worker runs the task")
    feed = victim.feed()
    before = {row["Id"] for row in containers(engine, feed)}
    victim.kill()
    assert {row["Id"] for row in containers(engine, feed)} == before  # nobody was left to remove them
    mesh.start(victim)
    assert before.isdisjoint(row["Id"] for row in containers(engine, feed))


def test_one_process_per_home_and_a_daemon_that_is_not_there(mesh: Mesh) -> None:
    node = mesh.add("alone", network="lab")
    said = node.nexapod("status", code=3)
    assert "daemon start" in said
    mesh.start(node)
    second = subprocess.run(
        [PROGRAMS / "nexapod-daemon", "--home", str(node.home.config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert "Traceback" not in second.stderr
    assert node.ready()
    node.nexapod("daemon", "stop")
    assert node.process is not None
    assert node.process.wait(timeout=20) == 0
    node.nexapod("status", code=3)


def test_a_node_without_a_network_waits_to_be_registered(mesh: Mesh) -> None:
    first = mesh.add("first", network="lab")
    mesh.start(first)
    mesh.write_bootstrap(first)
    late = mesh.add("late", network="")
    late.start()
    eventually(lambda: late.api.alive("/livez"), "the node without a network answers")
    assert late.status()["state"] == "unregistered"
    late.nexapod("job", "list", code=7)
    late.nexapod("bootstrap", "import", str(mesh.bootstrap_file))
    eventually(late.ready, "the node stands")
    mesh.until_connected()
    assert late.status()["network"] == "lab"


def test_settings_are_read_again_without_a_restart(mesh: Mesh) -> None:
    node = mesh.add("node", network="lab")
    mesh.start(node)
    config = node.home.config_file
    before, lent = config.read_text(), node.get("/v1/nodes")["nodes"][0]
    config.write_text(f"{before}\nslots = 7\nram_percent = 25\ngossip = false\n")
    said = node.nexapod("config", "reload", "-o", "json")
    assert json.loads(said) == {"changed": ["slots", "ram_percent"], "at_next_start": ["gossip"]}
    eventually(lambda: node.status()["slots"] == 7, "the core knows of the slots")
    eventually(lambda: node.get("/v1/nodes")["nodes"][0]["slots"] == 7, "the others are told")
    assert node.get("/v1/nodes")["nodes"][0]["ram_bytes"] == lent["ram_bytes"] // 2
    assert node.status()["gossip"]
    config.write_text(f"{before}\nslots = -3\nramp_percent = 25\n")
    said = node.nexapod("config", "reload", code=2)
    assert "slots" in said
    assert "did you mean ram_percent" in said
    config.write_text(f"{before}\nslots = 5\n")
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    eventually(lambda: node.status()["slots"] == 5, "SIGHUP does the same")
