"""One engine and one image for all tests of the room; a fresh blob store and an adapter for each.

NEXAPOD_SANDBOX_WITHOUT names a line of the sandbox (sandbox_lines.py) to be left out, to show which test then fails.
"""

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runtime.blobs import BlobStore
from runtime.docker import DockerEngine
from runtime.task import Limits, Outcome, TaskSpec
from tests import engine as test_engine
from tests.runtime import boxes, sandbox_lines

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


@pytest.fixture(scope="session", autouse=True)
def weakened() -> Iterator[None]:
    """The sandbox without one of its lines, when that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        if line := os.environ.get("NEXAPOD_SANDBOX_WITHOUT"):
            sandbox_lines.leave_out(line, patch)
        yield


@pytest.fixture(scope="session")
def x86(api: Any) -> None:
    if api.version()["Arch"] != "amd64":
        pytest.skip("the programs that make system calls are written for x86-64")


@pytest.fixture(scope="session")
def image(api: Any) -> bytes:
    return test_engine.busybox_image(api, "nexapod-test:1", boxes.programs())


@pytest.fixture
async def docker_engine(engine_host: str, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    """An adapter of its own for each test, which leaves nothing behind."""
    # Of its own also beside another run of the same test on the same engine: what it reaps must be its own.
    adapter = DockerEngine(node=secrets.token_hex(8), scratch=tmp_path / "scratch", host=engine_host, back_s=1.0)
    assert (await adapter.probe()).ready
    yield adapter
    assert await adapter.reap() == 0, "a run left a container, a volume or a folder behind"
    await adapter.aclose()


@pytest.fixture
def sh(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: Callable[..., TaskSpec]
) -> Callable[..., Any]:
    """Runs a shell script as a task."""

    async def run(script: str, **changes: Any) -> Outcome:
        spec = task(**({"image_digest": image, "command": ("/bin/sh", "-c", script)} | changes))
        return await docker_engine.run(spec, {}, blobs, lambda state: None)

    return run
