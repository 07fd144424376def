"""A disk that is really full: every way into the store says so, and leaves it as it was."""

import hashlib
import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.blobs import BlobStore, NoRoom, NotTheBlob
from runtime.collector import Selection, collect
from runtime.docker import DockerEngine
from runtime.task import Broke, Outcome, Reason, TaskSpec
from tests.engine import busybox_image

MIB = 1 << 20
DISK_BYTES = 2 * MIB
INODES = 64
OLD = b"was here before" * 1000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB and few files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={DISK_BYTES},nr_inodes={INODES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def store(disk: Path) -> Iterator[BlobStore]:
    """A store that believes it has a gigabyte, with one blob in it; afterwards it is what it was, and works."""
    made = BlobStore(disk / "blobs", quota_bytes=1 << 30)
    old = made.put(OLD)
    yield made
    assert list(made.ids()) == [old]
    assert made.total_bytes == len(OLD)
    assert [path for path in made.folder.rglob("*") if path.is_file()] == [made.path(old)]
    again = BlobStore(made.folder, quota_bytes=1 << 30)
    assert again.total_bytes == len(OLD)
    content = os.urandom(MIB)
    assert again.read(again.put(content)) == content
    assert hashlib.sha256(again.read(old)).digest() == old


def fill(folder: Path) -> Path:
    """Take every byte that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk has no end")


def take_inodes(folder: Path) -> list[Path]:
    """Take every inode that is left."""
    taken = []
    for number in range(INODES):
        try:
            (folder / f"file-{number}").touch()
        except OSError:
            return taken
        taken.append(folder / f"file-{number}")
    raise AssertionError("inodes have no end")


def archive(*sizes: int) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, size in enumerate(sizes):
            entry = tarfile.TarInfo(f"out/{number}")
            entry.size = size
            tar.addfile(entry, io.BytesIO(os.urandom(size)))
    raw = buffer.getvalue()
    return (raw[at : at + 10_000] for at in range(0, len(raw), 10_000))


def test_a_blob_that_does_not_fit(store: BlobStore) -> None:
    with pytest.raises(NoRoom):
        store.put(os.urandom(3 * MIB))


def test_a_small_blob_on_a_full_disk(store: BlobStore, disk: Path) -> None:
    filler = fill(disk)
    with pytest.raises(NoRoom):
        store.put(b"one byte is too much")
    filler.unlink()


def test_a_disk_that_has_bytes_but_no_files_left(store: BlobStore, disk: Path) -> None:
    taken = take_inodes(disk)
    with pytest.raises(NoRoom):
        store.put(b"x")
    taken.pop().unlink()
    with pytest.raises(NoRoom):  # there is one for the file, and none for the folder it belongs into
        store.put(b"x")
    for path in taken:
        path.unlink()


def test_a_file_that_does_not_fit(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3 * MIB))
    with pytest.raises(NoRoom):
        store.put_file(tmp_path / "large")


def test_a_download_that_does_not_fit_is_abandoned(store: BlobStore) -> None:
    partial = store.partial(bytes(32), 10 * MIB)
    for _ in range(19):
        partial.append(os.urandom(100_000))
    assert partial.have == 1_900_000
    with pytest.raises(NoRoom):
        partial.append(os.urandom(300_000))
    assert partial.have == 0


def test_a_download_goes_on_when_there_is_room_again(store: BlobStore, disk: Path) -> None:
    content = os.urandom(MIB)
    sha = hashlib.sha256(content).digest()
    filler = fill(disk)
    partial = store.partial(sha, MIB)
    with pytest.raises(NoRoom):
        partial.append(content[:1000])
    filler.unlink()
    assert store.partial(sha, MIB).have == 0
    for at in range(0, MIB, 100_000):
        partial.append(content[at : at + 100_000])
    partial.commit()
    assert store.read(sha) == content
    assert store.remove(sha)


def test_a_download_that_cannot_be_moved_to_its_place(store: BlobStore, disk: Path) -> None:
    content = b"all of it"
    partial = store.partial(hashlib.sha256(content).digest(), 100)
    partial.append(content)
    taken = take_inodes(disk)
    with pytest.raises(NoRoom):
        partial.commit()
    for path in taken:
        path.unlink()
    empty = store.partial(bytes(32), 100)
    with pytest.raises(NotTheBlob):
        empty.commit()


@pytest.mark.parametrize("sizes", [(3 * MIB,), (MIB, MIB, MIB), (1000,) * 80, (0,) * 80, (MIB, 900_000, 200_000)])
def test_outputs_that_do_not_fit(store: BlobStore, sizes: tuple[int, ...]) -> None:
    with pytest.raises(NoRoom):
        collect(archive(*sizes), Selection("out", (), (), 10 * MIB), 0, store)


# --- whole tasks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(engine_host: str, api: Any, store: BlobStore, task: Callable[..., TaskSpec]) -> Callable[..., Outcome]:
    """Runs a script with the store on the small disk, and sees that nothing stays in the scratch folder."""
    image = busybox_image(api, "nexapod-test:full")

    def once(script: str, scratch: Path, files: dict[str, Path] | None = None) -> Outcome:
        engine = DockerEngine(node=secrets.token_hex(8), scratch=scratch, host=engine_host)
        spec = task(image_digest=image, command=("/bin/sh", "-c", script))

        async def main() -> Outcome:
            try:
                return await engine.run(spec, files or {}, store, lambda state: None)
            finally:
                assert await engine.reap() == 0
                await engine.aclose()

        return trio.run(main)

    return once


def broke(outcome: Outcome, reason: Reason) -> Broke:
    assert isinstance(outcome, Broke), outcome
    assert outcome.reason == reason, outcome
    return outcome


@pytest.mark.docker
def test_a_task_whose_outputs_find_no_room(run: Callable[..., Outcome], tmp_path: Path) -> None:
    script = "head -c 3000000 /dev/urandom > /out/x; echo 1 > /out/y"
    broke(run(script, tmp_path / "scratch"), Reason.NO_ROOM)


@pytest.mark.docker
def test_a_task_whose_inputs_find_no_room(run: Callable[..., Outcome], disk: Path, tmp_path: Path) -> None:
    # On another file system than the scratch folder, so that it is copied and not linked.
    (tmp_path / "large").write_bytes(bytes(3 * MIB))
    outcome = run("true", disk / "scratch", {"data/small": Path("/etc/hostname"), "data/x": tmp_path / "large"})
    assert "space" in broke(outcome, Reason.NO_ROOM).detail


@pytest.mark.docker
def test_a_task_whose_input_is_gone(run: Callable[..., Outcome], tmp_path: Path) -> None:
    broke(run("true", tmp_path / "scratch", {"data": tmp_path / "gone"}), Reason.INPUT_MISSING)
