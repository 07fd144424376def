"""The blob store: content under its hash, a quota, and nothing left behind."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexapod.errors import LocalError, PeerError
from runtime.blobs import BlobStore, NoRoom, NotTheBlob

CONTENT = b"some content"
SHA = hashlib.sha256(CONTENT).digest()


def test_what_is_put_can_be_read(blobs: BlobStore, tmp_path: Path) -> None:
    assert not blobs.has(SHA)
    assert blobs.put(CONTENT) == SHA
    assert blobs.has(SHA)
    assert blobs.size(SHA) == len(CONTENT)
    assert blobs.read(SHA, 5, 3) == b"con"
    assert blobs.read(SHA) == CONTENT
    assert blobs.read(SHA, 100, 3) == b""
    assert blobs.path(SHA).stat().st_mode & 0o777 == 0o444
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    assert blobs.put_file(file) == (SHA, len(CONTENT))
    assert blobs.total_bytes == len(CONTENT)
    assert list(blobs.ids()) == [SHA]
    assert blobs.remove(SHA)
    assert not blobs.remove(SHA)
    assert blobs.total_bytes == 0


def test_what_is_not_here(blobs: BlobStore) -> None:
    with pytest.raises(KeyError):
        blobs.read(SHA)
    with pytest.raises(KeyError):
        blobs.size(SHA)


def test_an_aborted_writer_leaves_nothing(blobs: BlobStore) -> None:
    with blobs.writer() as writer:
        writer.write(CONTENT)
        assert blobs.total_bytes == len(CONTENT)
    assert blobs.total_bytes == 0
    assert not [path for path in blobs.folder.rglob("*") if path.is_file()]


def test_the_quota_counts_finished_and_unfinished(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", quota_bytes=10)
    store.put(b"12345")
    with store.writer() as writer:
        writer.write(b"1234")
        with pytest.raises(NoRoom) as caught:
            store.put(b"ab")
        assert isinstance(caught.value, LocalError)
    partial = store.partial(SHA, 100)
    with pytest.raises(NoRoom):
        partial.append(b"123456")
    partial.append(b"12345")
    with pytest.raises(NoRoom):
        store.put(b"a")
    assert store.total_bytes == 10


def test_opening_again_counts_and_sweeps(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", quota_bytes=1000)
    store.put(CONTENT)
    (tmp_path / "b" / "tmp" / "lost-in-a-crash").write_bytes(b"half a blob")
    store.partial(bytes(32), 50).append(b"half")
    again = BlobStore(tmp_path / "b", quota_bytes=1000)
    assert again.total_bytes == len(CONTENT) + 4
    assert not list((tmp_path / "b" / "tmp").iterdir())
    assert again.partial(bytes(32), 50).have == 4


def test_a_download_goes_on_where_it_stopped(blobs: BlobStore) -> None:
    blobs.partial(SHA, len(CONTENT)).append(CONTENT[:5])
    again = blobs.partial(SHA, len(CONTENT))
    again.append(CONTENT[again.have :])
    again.commit()
    assert blobs.read(SHA) == CONTENT
    assert blobs.total_bytes == len(CONTENT)
    assert blobs.partial(SHA, len(CONTENT)).have == 0


@pytest.mark.parametrize("content", [b"some cont", b"SOME content", b""])
def test_another_content_is_refused_and_gone(blobs: BlobStore, content: bytes) -> None:
    partial = blobs.partial(SHA, len(CONTENT))
    if content:
        partial.append(content)
    with pytest.raises(NotTheBlob) as caught:
        partial.commit()
    assert isinstance(caught.value, PeerError)
    assert (partial.have, blobs.total_bytes, blobs.has(SHA)) == (0, 0, False)


def test_more_than_promised_is_refused_before_it_is_written(blobs: BlobStore) -> None:
    partial = blobs.partial(SHA, 5)
    partial.append(b"1234")
    with pytest.raises(NotTheBlob):
        partial.append(b"56")
    assert blobs.total_bytes == 0


@given(steps=st.lists(st.tuples(st.sampled_from(["put", "remove", "abort", "reopen"]), st.binary(max_size=4))))
def test_the_sum_is_always_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("sum")
    store = BlobStore(folder, quota_bytes=1 << 20)
    known: dict[bytes, bytes] = {}
    for step, content in steps:
        sha = hashlib.sha256(content).digest()
        match step:
            case "put":
                known[store.put(content)] = content
            case "remove":
                assert store.remove(sha) == (known.pop(sha, None) is not None)
            case "abort":
                with store.writer() as writer:
                    writer.write(content)
            case _:
                store = BlobStore(folder, quota_bytes=1 << 20)
        assert store.total_bytes == sum(map(len, known.values()))
        assert set(store.ids()) == set(known)
