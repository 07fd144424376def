"""Before a job is offered: everything that is missing is told at once, and nothing half done is left."""

import os
from pathlib import Path
from typing import Any

import pytest

from daemon import publishing as publishing_file
from daemon.local.job_documents import known_jobs
from daemon.publishing import Receipt
from nexapod.encoding import encode
from nexapod.errors import Exit, LocalError
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.job import parse
from nexapod.job_faults import DescriptorFaults
from nexapod.messages import Gpu, Offer
from runtime.blobs import BlobStore
from runtime.engine import EngineInfo
from runtime.memory import MemoryEngine
from tests.daemon.standing import IMAGE, PROFILE, Standing, job_of, meet, seed_job, signed_advert, standing_node


@pytest.fixture(autouse=True)
def _quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing_file, "LOOK_S", 0.05)
    monkeypatch.setattr(publishing_file, "SPREAD_S", 0.05)


async def publish(node: Standing, base: Path, document: dict[str, Any], *, dry_run: bool = False) -> Receipt:
    return await node.parts.publisher.publish(parse(document), base, node.key, dry_run=dry_run)


async def faults_of(node: Standing, base: Path, document: dict[str, Any], **options: bool) -> list[tuple[str, str]]:
    with pytest.raises(DescriptorFaults) as caught:
        await publish(node, base, document, **options)
    assert caught.value.exit_code == Exit.REFUSED
    return [(fault.path, f"{fault.value} {fault.reason}") for fault in caught.value.faults]


async def test_an_offer_pins_image_and_inputs_and_stands_for_its_descriptor(tmp_path: Path) -> None:
    tmp_path.joinpath("in").mkdir()
    tmp_path.joinpath("in/a.txt").write_bytes(b"abc")
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        document = job_of(tasks=3, input_uri="file:in", input_files=["a.txt"])
        receipt = await publish(node, tmp_path, document)
        assert receipt.offer is not None
        event = await node.parts.ledger.event(receipt.offer)
        assert event is not None
        assert isinstance(event.data, Offer)
        assert event.data.descriptor == blob_id(encode(receipt.resolved))
        assert node.parts.transfer.held([event.data.descriptor, blob_id(b"abc")]) == (0, 1)
        assert receipt.resolved.image_digest == MemoryEngine.digest_of(IMAGE)
        assert [(item.path, item.sha256, item.size) for item in receipt.resolved.inputs] == [
            ("a.txt", blob_id(b"abc"), 3)
        ]
        assert (receipt.price, receipt.lock) == (1_000_000, 1_000_000 * 3 * 4)
        assert (receipt.holders, receipt.unmet) == (0, ())


async def test_a_dry_run_offers_nothing_and_says_what_is_not_met(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        receipt = await publish(node, tmp_path, job_of(), dry_run=True)
        assert receipt.offer is None
        assert [reason.code for reason in receipt.unmet] == ["no-nodes"]
        meet(node, 1)
        assert [r.code for r in (await publish(node, tmp_path, job_of(), dry_run=True)).unmet] == ["too-few-nodes"]
        meet(node, 2)
        receipt = await publish(node, tmp_path, job_of(), dry_run=True)
        assert (receipt.offer, receipt.unmet, receipt.price) == (None, (), 1_000_000)
        assert known_jobs(node.parts) == {}
        assert node.parts.ledger.replica.heads[node.feed].seq <= 1  # its genesis, and perhaps an ack


async def test_an_unverified_result_costs_nothing(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 1)
        receipt = await publish(node, tmp_path, job_of(redundancy={"replicas": 1, "quorum": 1}))
        assert (receipt.price, receipt.lock) == (0, 0)


# --- refusals ---------------------------------------------------------------------------------------------------------
async def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 3)
        document = job_of(image="nobody/has:this", input_files=["a", "b"], requirements={"ram_gb": 900, "gpu": True})
        found = await faults_of(node, tmp_path, document)
        assert [path for path, _ in found] == ["inputs", "inputs", "image", "requirements", "requirements"]
        told = "\n".join(text for _, text in found)
        for word in ("a", "b", "nobody/has:this", "ram none of 3 nodes", "gpu none of 3 nodes"):
            assert word in told
        assert known_jobs(node.parts) == {}
        assert not list(node.parts.transfer.blobs.ids())


async def test_the_clients_own_example_is_refused_with_every_reason(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        told = "\n".join(f"{path} {text}" for path, text in await faults_of(node, tmp_path, seed_job()))
        for word in (
            "nexapod/folding:latest", "input1.fasta", "params.json", "s3", "verify.mode tolerance", "requirements gpu",
        ):  # fmt: skip
            assert word in told
        # With a GPU in the mesh that one reason is gone, the others stay.
        gpu = (Gpu("nvidia", "card", 8 * 2**30),)
        for number in (11, 12):
            profile = type(PROFILE)(8, 64 * 10**9, 10**12, 10**9, "x86-64-v3", gpu)
            advert = signed_advert(Key.from_seed(bytes([number]) * 32), node.parts.node.netid, tier=1, profile=profile)
            node.parts.neighbours.learn(advert)
        told = "\n".join(f"{path} {text}" for path, text in await faults_of(node, tmp_path, seed_job()))
        assert "requirements" not in told
        assert "verify.mode tolerance" in told


async def test_what_this_node_itself_lends_does_not_count(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        found = await faults_of(node, tmp_path, job_of())
        assert [path for path, _ in found] == ["requirements"]
        assert "no other node" in found[0][1]


async def test_nodes_that_do_not_work_do_not_count(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 2, slots=0)
        assert "not-working" in (await faults_of(node, tmp_path, job_of()))[0][1]


async def test_an_engine_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(self: MemoryEngine) -> EngineInfo:
        return EngineInfo("docker", "", ready=False, why="no socket")

    async with standing_node(tmp_path) as node:
        meet(node, 2)
        monkeypatch.setattr(MemoryEngine, "probe", down)
        ((path, text),) = await faults_of(node, tmp_path, job_of())
        assert path == "image"
        assert "no socket" in text


# --- hostile and unlucky inputs ---------------------------------------------------------------------------------------
async def test_no_input_is_taken_from_outside_the_folder(tmp_path: Path) -> None:
    base, secret = tmp_path / "job", tmp_path / "secret"
    base.mkdir()
    secret.write_text("key")
    base.joinpath("link").symlink_to(secret)
    base.joinpath("up").symlink_to(tmp_path)
    base.joinpath("folder").mkdir()
    os.mkfifo(base / "pipe")
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        document = job_of(input_files=["link", "up/secret", "folder", "pipe"])
        found = await faults_of(node, base, document)
        assert [path for path, _ in found] == ["inputs"] * 4
        assert blob_id(b"key") not in set(node.parts.transfer.blobs.ids())
        for document in (job_of(input_files=["../secret"]), job_of(inputs=[{"uri": f"file:{secret}"}])):
            with pytest.raises(DescriptorFaults):
                await publish(node, base, document)


async def test_a_base_that_is_no_folder_lacks_every_input(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        tmp_path.joinpath("circle").symlink_to("circle")
        for base in (tmp_path / "nowhere", Path("/dev/null"), tmp_path / ("x" * 300), tmp_path / "circle"):
            found = await faults_of(node, base, job_of(input_files=["a"]))
            assert [path for path, _ in found] == ["inputs"]


async def test_an_input_that_is_not_what_the_file_pins_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("a").write_bytes(b"abc")
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        document = job_of(inputs=[{"uri": "file:a", "sha256": bytes(32).hex()}])
        with pytest.raises(LocalError, match="not what the descriptor pins") as caught:
            await publish(node, tmp_path, document)
        assert caught.value.exit_code == Exit.REFUSED
        assert known_jobs(node.parts) == {}


async def test_without_room_for_the_inputs_nothing_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("a").write_bytes(bytes(100))
    async with standing_node(tmp_path) as node:
        meet(node, 2)
        store: BlobStore = node.parts.transfer.blobs
        monkeypatch.setattr(store, "quota_bytes", store.total_bytes + 99)
        with pytest.raises(LocalError, match="no room"):
            await publish(node, tmp_path, job_of(input_files=["a"]))
        assert known_jobs(node.parts) == {}
