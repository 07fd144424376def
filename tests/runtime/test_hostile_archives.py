"""Hostile archives: each is refused or kept correctly, writes nothing outside of the store, and costs little."""

import hashlib
import time
import tracemalloc
from pathlib import Path

import pytest

from runtime.blobs import BlobStore
from runtime.collector import Collected, OutputsRefused, Selection, collect
from tests.runtime.hostile_archives import KEPT, REFUSED, truncated

SELECTION = Selection("out", (), (), bytes_max=10_000)
MEMORY_BYTES_MAX = 24 << 20  # 8,192 entries and their names, a chunk, and room to breathe
CPU_S_MAX = 10.0
OLD = b"a blob of another task"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """A store with one blob in it, beside files that are nobody's business; the collector works in their folder."""
    host = tmp_path / "host" / "etc"
    host.mkdir(parents=True)
    (host / "passwd").write_text("root:x:0:0")
    (tmp_path / "host" / "out").mkdir()
    monkeypatch.chdir(tmp_path / "host")
    made = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20)
    made.put(OLD)
    return made


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a folder but empty folders: mode, links, time of change, content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() or path.is_symlink() or not path.is_dir():
            about = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (about.st_mode, about.st_nlink, about.st_mtime_ns, hashlib.sha256(content).digest())
    return found


def run(raw: bytes, blobs: BlobStore) -> Collected:
    """Collect, within bounds of memory and time."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        return collect((raw[at : at + 65_536] for at in range(0, len(raw), 65_536)), SELECTION, 0, blobs)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY_BYTES_MAX, f"{peak} bytes of memory"
        assert time.process_time() - begun < CPU_S_MAX


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) + len(KEPT) > 100
    assert len({hashlib.sha256(raw).digest() for raw in (*REFUSED.values(), *(raw for raw, _ in KEPT.values()))}) > 100


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_comes_of_a_hostile_archive(world: BlobStore, tmp_path: Path, kind: str) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(OutputsRefused) as caught:
        run(REFUSED[kind], world)
    assert 0 < len(str(caught.value)) < 500
    assert snapshot(tmp_path) == before
    assert world.total_bytes == len(OLD)


@pytest.mark.parametrize("kind", KEPT)
def test_an_odd_archive_is_kept_as_what_it_is(world: BlobStore, tmp_path: Path, kind: str) -> None:
    raw, contents = KEPT[kind]
    before = snapshot(tmp_path)
    kept = run(raw, world)
    assert {file.path: world.read(file.sha256) for file in kept.files} == contents
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    added = {world.path(file.sha256) for file in kept.files} | {world.path(kept.root)}
    assert after.keys() - before.keys() == {str(path) for path in added}
    assert world.total_bytes == len(OLD) + sum(path.stat().st_size for path in added)


def test_an_archive_cut_anywhere_is_refused(world: BlobStore, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    for number, raw in enumerate(truncated()):
        with pytest.raises(OutputsRefused):
            print(number, run(raw, world))
    assert snapshot(tmp_path) == before
    assert world.total_bytes == len(OLD)
