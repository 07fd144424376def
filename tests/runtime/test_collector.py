"""Archives: the honest one becomes blobs, a hostile one leaves nothing at all."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.blobs import BlobStore, NoRoom
from runtime.collector import Collected, OutputsRefused, Selection, collect
from runtime.outputs import ENTRIES_MAX, FILES_MAX, parse_manifest

Fill = Callable[[tarfile.TarFile], None]
SELECTION = Selection("out", (), (), bytes_max=10_000)


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files(**contents: bytes) -> bytes:
    return archive(*((entry(f"out/{name}", content), content) for name, content in contents.items()))


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[at : at + size] for at in range(0, len(raw), size))


def run(raw: bytes, blobs: BlobStore, selection: Selection = SELECTION, exit_code: int = 0) -> Collected:
    return collect(pieces(raw, 1000), selection, exit_code, blobs)


def nothing_left(blobs: BlobStore) -> bool:
    return blobs.total_bytes == 0 and not [path for path in blobs.folder.rglob("*") if path.is_file()]


def test_files_become_blobs(blobs: BlobStore) -> None:
    folder = (entry("out/", kind=tarfile.DIRTYPE), b"")
    deep = (entry("out/sub/b", b"22"), b"22")
    kept = run(
        archive(folder, (entry("out/sub", kind=tarfile.DIRTYPE), b""), deep, (entry("out/a", b"1"), b"1")),
        blobs,
        exit_code=4,
    )
    assert {file.path: blobs.read(file.sha256) for file in kept.files} == {"a": b"1", "sub/b": b"22"}
    assert blobs.read(kept.root) == kept.manifest
    assert parse_manifest(kept.manifest) == (4, kept.files)


def test_times_owners_modes_and_order_do_not_show(blobs: BlobStore) -> None:
    first = archive((entry("out/a", b"1", mtime=5, uid=7, mode=0o7777), b"1"), (entry("out/b", b"2"), b"2"))
    second = archive((entry("out/b", b"2", uname="x"), b"2"), (entry("out/a", b"1"), b"1"), form=tarfile.GNU_FORMAT)
    assert run(first, blobs).root == run(second, blobs).root


@given(size=st.integers(1, 3000))
def test_pieces_of_any_size_are_the_same_archive(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    blobs = BlobStore(tmp_path_factory.mktemp("blobs"), 1 << 20)
    raw = files(a=b"x" * 700, b=b"", c=b"y")
    kept = collect(pieces(raw, size), SELECTION, 0, blobs)
    assert [(file.path, file.size) for file in kept.files] == [("a", 700), ("b", 0), ("c", 1)]


def test_an_empty_result_is_a_result(blobs: BlobStore) -> None:
    assert run(archive((entry("out", kind=tarfile.DIRTYPE), b"")), blobs).files == ()


def test_unselected_links_are_left_where_they_are(blobs: BlobStore) -> None:
    raw = archive(
        (entry("out/latest", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), b""), (entry("out/a.dat", b"1"), b"1")
    )
    kept = run(raw, blobs, Selection("out", ("*.dat",), (), 10_000))
    assert [file.path for file in kept.files] == ["a.dat"]


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": "900000000000"}
LINK: dict[str, Any] = {"linkname": "/etc/passwd"}
HOSTILE = {
    "symlink": archive((entry("out/x", kind=tarfile.SYMTYPE, **LINK), b"")),
    "hardlink": archive((entry("out/x", kind=tarfile.LNKTYPE, **LINK), b"")),
    "fifo": archive((entry("out/x", kind=tarfile.FIFOTYPE), b"")),
    "device": archive((entry("out/x", kind=tarfile.BLKTYPE), b"")),
    "unknown-kind": archive((entry("out/x", kind=b"Z"), b"")),
    "contiguous": archive((entry("out/x", kind=tarfile.CONTTYPE), b"")),
    "outside": archive((entry("elsewhere/x", b"1"), b"1")),
    "absolute": archive((entry("/etc/cron.d/x", b"1"), b"1")),
    "climbing": archive((entry("out/../../x", b"1"), b"1")),
    "climbing-folder": archive((entry("out/..", kind=tarfile.DIRTYPE), b"")),
    "twice": archive((entry("out/x", b"1"), b"1"), (entry("out/x", b"2"), b"2")),
    "file-as-folder": archive((entry("out/x", b"1"), b"1"), (entry("out/x/y", b"2"), b"2")),
    "deep": archive((entry("out/" + "d/" * 300 + "x", b"1"), b"1")),
    "long-part": archive((entry("out/" + "x" * 300, b"1"), b"1")),
    "decomposed": archive((entry("out/e\u0301", b"1"), b"1")),
    "not-utf8": archive((entry("out/\udcff", b"1"), b"1")),
    "terminal": archive((entry("out/\x1b[2J", b"1"), b"1")),
    "too-large": archive((entry("out/a", b"1" * 6000), b"1" * 6000), (entry("out/b", b"1" * 6000), b"1" * 6000)),
    "large-unselected": archive((entry("out/.progress", b"1" * 11_000), b"1" * 11_000)),
    "too-many-files": archive(*((entry(f"out/{n}"), b"") for n in range(FILES_MAX + 1))),
    "too-many-folders": archive(*((entry(f"out/{n}", kind=tarfile.DIRTYPE), b"") for n in range(ENTRIES_MAX + 1))),
    "long-attributes": archive((entry("out/x", pax_headers={"comment": "x" * 100_000}), b"")),
    "long-name": archive((entry("out/" + "x" * 100_000), b""), form=tarfile.GNU_FORMAT),
    "pax-sparse": archive((entry("out/x", b"1", pax_headers=SPARSE), b"1")),
    "noise": b"\xff" * 5000,
    "short": files(a=b"x" * 3000)[:2000],
    "cut-between-files": files(a=b"x" * 600, b=b"y")[:1536],
    "broken-header": (lambda raw: raw[:1536] + b"\xff" * 512 + raw[2048:])(files(a=b"x" * 600, b=b"y")),
    "cut-in-a-header": files(a=b"x" * 600, b=b"y")[:1800],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_archive_leaves_nothing(blobs: BlobStore, kind: str, tmp_path: Path) -> None:
    with pytest.raises(OutputsRefused) as caught:
        run(HOSTILE[kind], blobs)
    assert str(caught.value)
    assert nothing_left(blobs)
    assert [path.name for path in tmp_path.iterdir()] == ["blobs"]


def test_an_archive_without_end_is_given_up(blobs: BlobStore) -> None:
    head = archive((entry("out/x", b"1"), b"1"))[:1024]

    def endless() -> Iterator[bytes]:
        yield head
        while True:
            yield archive((entry("out/y", b"1"), b"1"))[:1024]

    with pytest.raises(OutputsRefused):
        collect(endless(), SELECTION, 0, blobs)
    assert nothing_left(blobs)


def test_a_full_store_keeps_nothing_of_it(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "b", quota_bytes=1500)
    with pytest.raises(NoRoom):
        run(files(a=b"1" * 1000, b=b"2" * 1000), blobs)
    assert nothing_left(blobs)


@given(cut=st.integers(0, 20_000), flips=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=8))
def test_damage_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    blobs = BlobStore(tmp_path_factory.mktemp("blobs"), 1 << 20)
    raw = bytearray(files(a=b"x" * 3000, b=b"y" * 10))
    for at, value in flips:
        raw[at % len(raw)] = value
    try:
        kept = run(bytes(raw[: max(cut, 1)]), blobs)
    except OutputsRefused:
        assert nothing_left(blobs)
    else:
        assert parse_manifest(kept.manifest)[1] == kept.files
