"""Disks that are full or fail, under real daemons: they stop promising, stay readable, say why, and lose nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.mesh import ROOT, Mesh, Node, eventually, publish, shell_job
from tests.process.test_crashes import own_events

pytestmark = [pytest.mark.docker, pytest.mark.process]

QUICK = "echo $NEXAPOD_SEED > /out/seed"
DISK_MIB = 48


@pytest.fixture
def small_disk(mesh: Mesh) -> Iterator[Path]:
    """A file system of its own, too small."""
    folder = mesh.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        mesh.end()
        subprocess.run(["umount", "-l", folder], check=True)


def mesh_with_owner(mesh: Mesh, *program: str) -> tuple[Node, list[Node]]:
    """A witness, two workers, and an owner on the disk that will fail."""
    witness = mesh.add("witness", network="lab")
    mesh.start(witness)
    mesh.write_bootstrap(witness)
    workers = [mesh.add("worker1"), mesh.add("worker2")]
    owner = mesh.add("small/owner", "--no-work", program=program)
    mesh.start(*workers, owner)
    mesh.until_connected(witness, *workers)
    eventually(lambda: owner.status()["peers"] >= 3, "the owner has met the others")
    return owner, [witness, *workers]


def check_read_only(owner: Node, others: list[Node], why: str) -> list[str]:
    """The node promises nothing, can be read, and says what is wrong; its events, all of which the others have."""
    events = own_events(owner)
    status = owner.status()
    assert status["state"] == "read-only"
    assert not status["healthy"]
    assert why in status["why"][0]
    assert owner.process is not None
    assert owner.process.poll() is None
    assert own_events(owner) == events
    assert owner.get("/v1/jobs")["jobs"]
    owner.nexapod("ledger", "balance")
    feed = owner.feed()
    for other in others:
        told = other.get("/v1/ledger/log", feed=feed, after=-1, limit=1000)["events"]
        assert [row["id"] for row in told] == events
    return events


def check_mended(mesh: Mesh, owner: Node, events: list[str], file: Path) -> None:
    """Started again, the node goes on where it was."""
    assert owner.stop() == 0
    mesh.start(owner)
    assert own_events(owner)[: len(events)] == events
    job = publish(owner, file)
    assert owner.until_over(job)["state"] == "settled"
    mesh.until_equal()
    assert all(node.get("/v1/ledger/forks")["forks"] == [] for node in mesh.nodes)


def fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def test_a_full_disk_stops_promises_and_nothing_else(mesh: Mesh, small_disk: Path, tmp_path: Path) -> None:
    owner, others = mesh_with_owner(mesh)
    first = publish(owner, shell_job(tmp_path, QUICK, label="first"))
    assert owner.until_over(first)["state"] == "settled"
    mesh.until_equal()
    ballast, more = small_disk / "ballast", shell_job(tmp_path, QUICK, label="more")
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    assert "no room" in owner.nexapod("publish", str(more), code=1)  # its inputs would not fit
    # The others go on, and soon what they tell does not fit either.
    others_job = publish(others[0], more)
    assert others[0].until_over(others_job)["state"] == "settled"
    eventually(lambda: owner.status()["state"] == "read-only", "the node notices that its disk is full")
    events = check_read_only(owner, others, "No space left")
    ballast.unlink()
    check_mended(mesh, owner, events, more)


def test_a_disk_that_fails_stops_promises_and_nothing_else(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "broken"
    monkeypatch.setenv("NEXAPOD_TEST_BROKEN", str(switch))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (mesh.folder / "small").mkdir()
    owner, others = mesh_with_owner(mesh, sys.executable, "-P", str(ROOT / "tests/process/broken_disk.py"))
    first = publish(owner, shell_job(tmp_path, QUICK, label="first"))
    assert owner.until_over(first)["state"] == "settled"
    mesh.until_equal()
    switch.touch()
    more = shell_job(tmp_path, QUICK, label="more")
    assert "writes nothing more" in owner.nexapod("publish", str(more), code=1)
    events = check_read_only(owner, others, "Input/output error")
    switch.unlink()
    check_mended(mesh, owner, events, more)
