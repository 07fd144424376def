"""What a mesh of real daemons does when the container engine under some of them is killed, restarted, or gone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.engine import PrivateEngine, private_engine, require_private_engine
from tests.process.mesh import Mesh, Node, eventually, publish, shell_job, small_mesh

pytestmark = [pytest.mark.docker, pytest.mark.process]

IMAGE = "nexapod-test:process"
PRICE = 1_000_000  # micro-credits of a task of 1e12 operations
SLOW = "i=0; while [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done; echo $NEXAPOD_SEED > /out/seed"
QUICK = "echo $NEXAPOD_SEED > /out/seed"


@pytest.fixture
def fragile(engine: docker.APIClient) -> Iterator[PrivateEngine]:
    """An engine that may be killed, with the same test image as the engine all others use."""
    require_private_engine()
    with private_engine() as made:
        with docker.APIClient(base_url=made.host, version="auto") as api:
            saved = b"".join(engine.get_image(IMAGE))
            assert [line for line in api.load_image(saved) if "error" in line] == []
            assert api.inspect_image(IMAGE)["Id"] == engine.inspect_image(IMAGE)["Id"]
        yield made


def left(engine: PrivateEngine) -> list[str]:
    """Containers and volumes of any node that the engine has."""
    ours = {"label": "nexapod.node"}
    with docker.APIClient(base_url=engine.host, version="auto") as api:
        containers = [found["Names"][0] for found in api.containers(all=True, filters=ours)]
        return containers + [found["Name"] for found in api.volumes(filters=ours)["Volumes"] or ()]


def engine_of(node: Node) -> dict[str, Any]:
    (found,) = node.status()["engines"]
    return dict(found)


def states(node: Node, job: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in node.executions(job)}


def test_an_engine_killed_under_its_tasks_and_started_again(
    mesh: Mesh, fragile: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers of a small mesh lose their engine at once: nobody else could take over, so they must try again."""
    monkeypatch.setenv("DOCKER_HOST", fragile.host)
    owner, workers = small_mesh(mesh, 2)
    job = publish(owner, shell_job(tmp_path, SLOW))
    eventually(lambda: len(fragile_tasks(fragile)) == 2, "both workers run the task")
    fragile.kill()
    fragile.start()
    assert owner.until_over(job)["state"] == "settled"
    assert states(owner, job) == {worker.name: "settled" for worker in workers}
    eventually(lambda: left(fragile) == [], "no container and no volume is left")
    mesh.until_equal()
    assert [owner.balance(node.feed()) for node in workers] == [PRICE, PRICE]
    for node in workers:
        eventually(lambda node=node: node.status()["healthy"], f"{node.name} is well again")


def fragile_tasks(engine: PrivateEngine) -> list[str]:
    """Containers in which a task's program runs now."""
    with docker.APIClient(base_url=engine.host, version="auto") as api:
        names = [found["Names"][0] for found in api.containers(filters={"label": "nexapod.node"})]
    return [name for name in names if name.endswith("-task")]


def test_a_node_whose_engine_is_gone_gives_its_task_back_and_takes_none_until_it_is_there_again(
    mesh: Mesh, fragile: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, (healthy,) = small_mesh(mesh, 1)
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", fragile.host)
        doomed = mesh.add("doomed")
        mesh.start(doomed)
    mesh.until_connected()
    job = publish(owner, shell_job(tmp_path, SLOW, timeouts={"run_s": 60, "queue_s": 90}))
    eventually(lambda: fragile_tasks(fragile), "the node runs the task")
    fragile.kill()
    second = mesh.add("second")
    mesh.start(second)
    assert owner.until_over(job, 120)["state"] == "settled"
    assert states(owner, job) == {"doomed": "lost", healthy.name: "settled", "second": "settled"}
    (lost,) = [row for row in owner.executions(job) if row["name"] == "doomed"]
    assert "engine-down" in lost["why"], lost
    (tried,) = doomed.get("/v1/node/executions")["executions"]
    assert tried["task"] == 0, "it took the task once"

    # It says what is wrong, and takes nothing on.
    why = eventually(lambda: not engine_of(doomed)["ready"] and engine_of(doomed)["why"], "the node knows it")
    assert "no container engine answers" in why
    status = doomed.status()
    assert not status["healthy"]
    assert any("no engine can run tasks" in line for line in status["why"])
    other = publish(owner, shell_job(tmp_path, QUICK, label="other", tasks=3))
    assert owner.until_over(other)["state"] == "settled"
    assert "doomed" not in states(owner, other)

    # By itself it is what it was, and removes what it could not remove then.
    fragile.start()
    assert left(fragile) != []
    eventually(lambda: engine_of(doomed)["ready"], "the node has found its engine again")
    assert left(fragile) == []
    assert doomed.status()["healthy"]
    healthy.stop()
    job = publish(owner, shell_job(tmp_path, QUICK, label="again"))
    assert owner.until_over(job)["state"] == "settled"
    assert states(owner, job) == {"doomed": "settled", "second": "settled"}
    mesh.until_equal(owner, doomed, second)
