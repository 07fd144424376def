"""One engine and one image for all tests with real daemons, and a mesh for each."""

import os
from collections.abc import Iterator

import docker
import pytest

from tests.engine import busybox_image, engine_host
from tests.process.mesh import Mesh, new_mesh


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[docker.APIClient]:
    """An engine every daemon of these tests finds, with the test image in it."""
    for name in [name for name in os.environ if name.startswith("NEXAPOD_") and name != "NEXAPOD_REQUIRE_DOCKER"]:
        del os.environ[name]
    with engine_host() as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        api = docker.APIClient(base_url=host, version="auto", timeout=60)
        busybox_image(api, "nexapod-test:process")
        yield api
        api.close()


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with new_mesh() as made:
        yield made
