"""One engine and one image for all tests of the room; a fresh blob store for each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runtime.blobs import BlobStore
from runtime.task import Limits, TaskSpec
from tests import engine as test_engine

MIB = 1 << 20


@pytest.fixture(scope="session")
def engine_host() -> Iterator[str]:
    with test_engine.engine_host() as host:
        yield host


@pytest.fixture(scope="session")
def api(engine_host: str) -> Iterator[Any]:
    client = docker.APIClient(base_url=engine_host, version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", quota_bytes=256 * MIB)


def _task(**changes: Any) -> TaskSpec:
    limits = {"cpus_milli": 1000, "ram_bytes": 64 * MIB, "disk_bytes": 8 * MIB, "gpus": 0, "run_ms": 20_000}
    limits |= {name: changes.pop(name) for name in tuple(changes) if name in limits}
    fields: dict[str, Any] = {
        "offer": bytes(32), "job_id": "test", "index": 0, "count": 1, "engine": "docker", "image": "test:1",
        "image_digest": bytes(32), "command": (), "env": (), "inputs": (), "outputs": (), "volatile": (), "seed": 7,
    }  # fmt: skip
    return TaskSpec(**(fields | changes), limits=Limits(**limits))


@pytest.fixture
def task() -> Callable[..., TaskSpec]:
    """Makes a task; limits and fields by name."""
    return _task
