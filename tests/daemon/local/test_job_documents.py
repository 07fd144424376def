"""What a job's documents say on its owner's node and on others, from the first claim to the last line."""

from pathlib import Path
from typing import Any

import pytest

from daemon.local import job_documents as documents
from nexapod.errors import Exit, LocalError
from nexapod.hashing import blob_id
from runtime.task import Broke, Reason
from tests.daemon.standing import (
    Standing,
    eventually,
    job_of,
    meet,
    program,
    settled,
    standing_mesh,
    standing_node,
    until_equal,
)

RARE = "nexapod/rare:1"


async def publish(node: Standing, base: Path, **changes: Any) -> bytes:
    answer = await node.post("/submit-job", {"descriptor": job_of(**changes), "base": str(base)})
    return bytes.fromhex(answer["job"])


def known(node: Standing, job: bytes) -> documents.Known:
    return documents.find_job(node.parts, job.hex())


async def until_over(job: bytes, *nodes: Standing) -> None:
    for node in nodes:
        await eventually(lambda node=node: documents.is_over(known(node, job)))


async def test_a_settled_job_as_its_owner_and_as_others_tell_it(tmp_path: Path) -> None:
    tmp_path.joinpath("a.txt").write_bytes(b"abc")
    async with standing_mesh(tmp_path, 3) as nodes:
        owner, other, third = nodes
        job = await publish(owner, tmp_path, tasks=2, input_files=["a.txt"])
        own = await settled(owner, job.hex())
        await until_over(job, other, third)
        await until_equal(*nodes)
        seen = await documents.job_document(other.parts, known(other, job))
        assert (own["mine"], seen["mine"]) == (True, False)
        assert own["image"] == seen["image"] == "nexapod/test:1"
        differ = {"mine", "task_list"}
        assert {key: own[key] for key in own.keys() - differ} == {key: seen[key] for key in seen.keys() - differ}
        assert own["paid_micro"] == 4_000_000
        assert [(row["state"], row["exit_code"], row["paid_micro"]) for row in own["task_list"]] == [
            ("settled", 0, 2_000_000)
        ] * 2
        assert [row["root"] for row in own["task_list"]] == [row["root"] for row in seen["task_list"]]
        for node in nodes:
            (row,) = (await documents.job_list(node.parts))["jobs"]
            assert (row["job"], row["owner_name"], row["state"], row["ended"]) == (job.hex(), "node0", "settled", 2)
            rows = (await documents.executions(node.parts, known(node, job)))["executions"]
            assert [(row["task"], row["state"], row["amount_micro"]) for row in rows] == [
                (task, "settled", 1_000_000) for task in (0, 0, 1, 1)
            ]
            assert {row["name"] for row in rows} == {"node1", "node2"}
            assert {row["root"] for row in rows} == {row["root"] for row in own["task_list"]}
            story = await documents.story(node.parts, known(node, job), 0)
            assert story["over"]
            assert story["events"][0]["step"] == "offer"
            assert story["events"][-1]["step"] == "close"
            later = await documents.story(node.parts, known(node, job), 2)
            assert later["events"] == story["events"][2:]
            assert (later["next"], story["next"]) == (len(story["events"]), len(story["events"]))
            results = await documents.results(node.parts, known(node, job))
            assert [task["root"] for task in results["tasks"]] == [row["root"] for row in own["task_list"]]
            sha, size = await documents.result_file(node.parts, known(node, job), 1, "back/a.txt")
            assert (sha, size) == (blob_id(b"cba"), 3)
            assert node.parts.transfer.blobs.read(sha) == b"cba"
            with pytest.raises(LocalError) as caught:
                await documents.result_file(node.parts, known(node, job), 0, "../key")
            assert caught.value.exit_code == Exit.NOT_FOUND
        assert documents.logs(owner.parts, known(owner, job), None) == {"logs": []}
        logs = documents.logs(other.parts, known(other, job), 1)["logs"]
        assert [row["task"] for row in logs] == [1]
        explained = await documents.explain(owner.parts, known(owner, job))
        assert {row["name"]: [reason["code"] for reason in row["reasons"]] for row in explained["nodes"]} == {
            "node0": ["owner"], "node1": [], "node2": [],
        }  # fmt: skip


async def test_a_job_nobody_can_run_says_why_and_ends_when_it_is_taken_back(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, other, third):
        owner.engine.programs[RARE] = program
        job = await publish(owner, tmp_path, label="rare", image=RARE, tasks=3)
        assert documents.state_of(known(owner, job)) == "queued"
        for node in (other, third):
            await eventually(lambda node=node: job in node.parts.core.worker.offers)
            await eventually(lambda node=node: node.parts.core.worker.offers[job].reasons)
        explained = await documents.explain(owner.parts, known(owner, job))
        codes = {row["name"]: [reason["code"] for reason in row["reasons"]] for row in explained["nodes"]}
        assert codes == {"node0": ["owner"], "node1": ["no-claim"], "node2": ["no-claim"]}
        assert "3 of 3 tasks wait for executors" in explained["why"]
        assert (await documents.executions(owner.parts, known(owner, job)))["executions"] == []
        seen = await documents.job_document(other.parts, known(other, job))
        assert (seen["state"], seen["ended"], seen["paid_micro"]) == ("queued", 0, 0)
        await owner.post(f"/v1/jobs/{job.hex()}/cancel")
        await until_over(job, owner, other, third)
        for node in (owner, other, third):
            found = await documents.job_document(node.parts, known(node, job))
            assert found["state"] == "cancelled"
            assert {row["state"] for row in found["task_list"]} == {"cancelled"}
        own = await documents.job_document(owner.parts, known(owner, job))
        assert own["why"] == ["taken back by its owner (3 tasks)"]


async def test_failed_and_disputed_jobs_are_told_alike_on_every_node(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as nodes:
        owner, *workers = nodes
        for worker in workers:
            worker.engine.exit_code = 3
        failed = await publish(owner, tmp_path, label="fails")
        document = await settled(owner, failed.hex())
        assert (document["state"], document["paid_micro"]) == ("failed", 0)
        for number, worker in enumerate(workers):
            worker.engine.exit_code = 0
            worker.engine.forge = lambda spec, left, number=number: left | {"task.txt": b"%d" % number}
        disputed = await publish(owner, tmp_path, label="differs", redundancy={"replicas": 2, "quorum": 2, "max": 2})
        document = await settled(owner, disputed.hex())
        assert (document["state"], document["paid_micro"]) == ("disputed", 0)
        assert document["why"]
        await until_over(failed, *workers)
        await until_over(disputed, *workers)
        for node in nodes:
            states = {row["job_id"]: row["state"] for row in (await documents.job_list(node.parts))["jobs"]}
            assert states == {"fails": "failed", "differs": "disputed"}
            assert (await documents.results(node.parts, known(node, disputed)))["tasks"] == []
            rows = (await documents.executions(node.parts, known(node, disputed)))["executions"]
            assert len({row["root"] for row in rows}) == 2
            assert {row["state"] for row in rows} == {"differed"}
            story = (await documents.story(node.parts, known(node, disputed), 0))["events"]
            assert {"void", "close"} <= {line["step"] for line in story}


async def test_an_execution_that_broke_says_why_to_its_owner(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3) as (owner, first, second):
        first.engine.fail = Broke(Reason.OUT_OF_MEMORY, "it wanted all of it", log=b"last \xffwords")
        job = await publish(owner, tmp_path, redundancy={"replicas": 2, "quorum": 2})

        def lost() -> bool:
            return any(execution.why for task in known(owner, job).own.tasks for execution in task.executions)  # type: ignore[union-attr]

        await eventually(lost)
        rows = (await documents.executions(owner.parts, known(owner, job)))["executions"]
        (broken,) = [row for row in rows if row["why"]]
        assert (broken["name"], broken["state"]) == ("node1", "lost")
        assert "out-of-memory: it wanted all of it" in broken["why"]
        (log,) = documents.logs(first.parts, known(first, job), None)["logs"]
        assert log["text"] == "last \ufffdwords"
        assert second.engine.runs <= 1


async def test_a_job_is_meant_by_its_label_or_the_beginning_of_its_id(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as owner:
        meet(owner, 2)
        job = await publish(owner, tmp_path, label="one")
        whole, part = [await publish(owner, tmp_path, label=label) for label in (job.hex(), job.hex()[:8])]
        for reference in ("one", job.hex(), job.hex().upper()):  # nobody hides a job behind a label
            assert documents.find_job(owner.parts, reference).id == job
        assert documents.find_job(owner.parts, whole.hex()[:16]).id == whole
        for nobody in ("", "none", job.hex()[:3], "0" * 64):
            with pytest.raises(LocalError) as caught:
                documents.find_job(owner.parts, nobody)
            assert caught.value.exit_code == Exit.NOT_FOUND
        with pytest.raises(LocalError) as caught:
            documents.find_job(owner.parts, job.hex()[:8])
        assert caught.value.exit_code == Exit.USAGE
        assert {line.split()[0] for line in caught.value.why.splitlines()} == {job.hex(), part.hex()}
