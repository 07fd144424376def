"""Every reason for which a node does not run a job, and for which no node of a mesh can."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as changed

from daemon.core.matching import reasons_against, reasons_against_offer, terms_of, unmet_requirements
from daemon.core.step import Capacity
from nexapod.hashing import blob_id
from nexapod.messages import Advert, Mode, Policy, Profile
from tests.daemon.core.simulation import CAPACITY, job_of

GPU_NODE = replace(CAPACITY, gpus=(("nvidia", 24 * 2**30), ("nvidia", 8 * 2**30)))


def codes(job: Any, capacity: Capacity, *, image_here: bool = True) -> list[str]:
    return [reason.code for reason in reasons_against(job, capacity, image_here=image_here)]


def needing(**needs: Any) -> Any:
    return job_of(requirements=needs)


def test_a_node_that_meets_everything_has_no_reason() -> None:
    assert codes(job_of(), CAPACITY) == []
    assert codes(needing(gpus=1, vram_gb=16, gpu_vendor="nvidia", arch="x86_64", cpus=8), GPU_NODE) == []


@pytest.mark.parametrize(
    ("capacity", "code"),
    [
        (replace(CAPACITY, willing=False, why_not="paused"), "not-working"),
        (replace(CAPACITY, slots=0), "no-slots"),
        (replace(CAPACITY, engines=frozenset()), "engine"),
        (replace(CAPACITY, cores=0), "cpus"),
        (replace(CAPACITY, ram_bytes=1), "ram"),
        (replace(CAPACITY, disk_bytes=1), "disk"),
    ],
)
def test_what_a_node_lacks(capacity: Capacity, code: str) -> None:
    assert codes(job_of(), capacity) == [code]


def test_what_a_job_needs() -> None:
    assert codes(job_of(), CAPACITY, image_here=False) == ["image-missing"]
    assert codes(changed(job_of(), tier=2), replace(CAPACITY, tier=1)) == ["tier"]
    assert codes(needing(arch="aarch64"), CAPACITY) == ["arch"]
    assert codes(needing(arch="x86_64"), replace(CAPACITY, numeric_class="")) == ["arch"]
    assert codes(needing(gpus=1), CAPACITY) == ["gpu"]
    assert codes(needing(gpus=2, vram_gb=16), GPU_NODE) == ["gpu"]
    assert codes(needing(gpus=1, gpu_vendor="amd"), GPU_NODE) == ["gpu"]
    assert codes(changed(job_of(), mode=Mode.TOLERANCE), CAPACITY) == ["mode"]
    assert codes(changed(job_of(), policy=Policy.ADAPTIVE), CAPACITY) == ["policy"]


def test_the_offer_of_a_descriptor() -> None:
    job = job_of(tasks=3, estimated_flops=2 * 10**12)
    offer = terms_of(job, blob_id(b"descriptor"), blob_id(b"seed"))
    assert (offer.price, offer.lock) == (2_000_000, 2_000_000 * 3 * 4)
    assert reasons_against_offer(offer, job) == ()
    assert terms_of(job_of(redundancy={"replicas": 1}), b"", b"").price == 0


@pytest.mark.parametrize("field", ["price", "lock", "tasks", "quorum", "executions_max"])
def test_an_offer_that_contradicts_its_descriptor(field: str) -> None:
    job = job_of(tasks=3)
    offer = terms_of(job, blob_id(b"descriptor"), blob_id(b"seed"))
    (reason,) = reasons_against_offer(changed(offer, **{field: getattr(offer, field) + 1}), job)
    assert reason == ("terms", f"the offer contradicts its descriptor in {field}")


def advert(**changes: Any) -> Advert:
    profile = Profile(8, 2**34, 2**36, 10**9, "x86-64-v3", ())
    whole = Advert(blob_id(b"key"), blob_id(b"feed"), 1, 1, "n", (), ("docker",), 2, 2, profile)
    return changed(whole, **changes)


def test_what_no_node_of_the_mesh_meets() -> None:
    assert [reason.code for reason in unmet_requirements(job_of(), [])] == ["no-nodes"]
    assert unmet_requirements(job_of(), [advert(), advert()]) == ()
    (few,) = unmet_requirements(job_of(), [advert(), advert(engines=())])
    assert few == ("too-few-nodes", "1 of 2 nodes could run it, 2 replicas need as many")
    (none,) = unmet_requirements(needing(gpus=1), [advert(), advert()])
    assert none.code == "gpu"
    assert none.detail.startswith("none of 2 nodes: ")
    (mixed,) = unmet_requirements(job_of(), [advert(slots=0), advert(engines=())])
    assert mixed.code == "too-few-nodes"
