"""One daemon for all attacks, another one when an attack has ended the first, and the table of what they cost."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime.blobs import BlobStore
from tests.attacks.siege import REPORTS, Siege, besieged
from tests.process.mesh import Node

OURS = ("NEXAPOD_FLOOD_S", "NEXAPOD_TEST_WITHOUT", "NEXAPOD_REQUIRE_DOCKER")
BLOB = bytes(range(256)) * 4096 * 16  # 16 MiB: four windows
UNGUARDED = (sys.executable, "-P", str(Path(__file__).with_name("unguarded.py")))
SOCKETS = 8192  # open files this process may need


def keep_blob(node: Node) -> None:
    """Put a blob into a node's store before it starts."""
    node.home.make_folders()
    BlobStore(node.home.blobs_dir, 10**9).put(BLOB)


@pytest.fixture(scope="session")
def camp() -> Iterator[dict[str, Any]]:
    """Where the daemon under attack is kept between tests."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in [name for name in os.environ if name.startswith("NEXAPOD_") and name not in OURS]:
            patch.delenv(name)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, SOCKETS), hard), hard))
        yield {"stack": stack}


@pytest.fixture
def siege(camp: dict[str, Any]) -> Siege:
    """The daemon under attack, alive, with an honest peer beside it."""
    found: Siege | None = camp.get("siege")
    if found is None or not found.lives():
        camp["stack"].close()
        program = UNGUARDED if os.environ.get("NEXAPOD_TEST_WITHOUT") else ()
        found = camp["siege"] = camp["stack"].enter_context(besieged(program=program, prepare=keep_blob))
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if REPORTS:
        terminalreporter.section("attacks")
        for line in REPORTS:
            terminalreporter.line(line)
