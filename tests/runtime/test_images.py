"""Images as blobs: what makes one, and what no engine is given."""

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

import pytest

from runtime.blobs import BlobStore
from runtime.images import NotAnImage, archive, keep, layers_of, missing, verify


def layer(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return buffer.getvalue()


def entry(name: str, size: int = 0, **headers: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = size, headers
    return info


def config(*layers: bytes, **more: Any) -> bytes:
    names = ["sha256:" + hashlib.sha256(content).hexdigest() for content in layers]
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": names}} | more).encode()


def test_what_is_missing_is_found_step_by_step(blobs: BlobStore) -> None:
    one, two = layer(entry("a", 5)), layer(entry("b"))
    digest = hashlib.sha256(config(one, two, one)).digest()
    assert missing(digest, blobs) == (digest,)
    blobs.put(config(one, two, one))
    assert missing(digest, blobs) == (hashlib.sha256(one).digest(), hashlib.sha256(two).digest())
    blobs.put(one)
    blobs.put(two)
    assert missing(digest, blobs) == ()
    verify(digest, blobs)


def test_an_archive_can_be_taken_apart_again(blobs: BlobStore, tmp_path: Any) -> None:
    one, two = layer(entry("a", 5)), layer(entry("b", 700))
    digest = blobs.put(config(one, two))
    layers = (blobs.put(one), blobs.put(two))
    raw = b"".join(archive(digest, blobs))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        index = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert index[0]["RepoTags"] is None
    again = BlobStore(tmp_path / "again", 1 << 20)
    keep(iter([raw[:700], raw[700:]]), digest, layers, again)
    assert set(again.ids()) == {digest, *layers}
    assert b"".join(archive(digest, again)) == raw


def test_an_archive_without_a_wanted_layer_is_refused(blobs: BlobStore) -> None:
    one = layer(entry("a"))
    digest = blobs.put(config(one))
    blobs.put(one)
    raw = b"".join(archive(digest, blobs))
    with pytest.raises(NotAnImage):
        keep(iter([raw]), digest, (bytes(32),), blobs)
    with pytest.raises(NotAnImage):
        keep(iter([b"noise" * 400]), digest, (bytes(32),), blobs)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{}", b"null", b'{"rootfs":{"diff_ids":[]}}', b'{"rootfs":{"diff_ids":["sha256:00"]}}',
        b'{"rootfs":{"diff_ids":[7]}}', b"[" * 100_000, b" " * (1 << 21), b"\xff", config(*[b"x"] * 129),
    ],
)  # fmt: skip
def test_what_is_no_configuration(raw: bytes) -> None:
    with pytest.raises(NotAnImage):
        layers_of(raw)


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": "900000000000"}


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(layer(entry("a", 1 << 20))),
        layer(entry("a", 1, **SPARSE)),
        b"noise" * 500,
        layer(entry("a", 100_000))[:2000],
    ],
    ids=["compressed", "sparse", "noise", "longer-than-it-is"],
)
def test_layers_an_engine_might_choke_on_are_refused(blobs: BlobStore, content: bytes) -> None:
    digest = blobs.put(config(content))
    blobs.put(content)
    with pytest.raises(NotAnImage):
        verify(digest, blobs)
