"""Container images as blobs, so that they travel between peers like any other content.

Knows that an image is its configuration and its layers, and that the configuration names each layer by the SHA-256 of
its uncompressed bytes. So the image digest is the blob id of the configuration, and everything else follows from that.
Must never know an engine. Blocking.

An archive for an engine is always put together here, out of verified blobs: nobody's archive is ever loaded, so none
can bring names of its own or something to unpack without end.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

import msgspec

from runtime.archives import BROKEN, BoundedEntry
from runtime.blobs import BlobStore

CONFIG_BYTES_MAX = 1 << 20
LAYERS_MAX = 128  # engines stop at 127
_CHUNK_BYTES = 1 << 20


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Config(msgspec.Struct):
    """The part of a configuration that counts here; the rest is passed over and never becomes objects."""

    rootfs: _Rootfs


class NotAnImage(ValueError):
    """The blobs are no image an engine may be given; the message says why."""


def layers_of(config: bytes) -> tuple[bytes, ...]:
    """The blob ids of the layers, lowest first. Raises: NotAnImage."""
    if len(config) > CONFIG_BYTES_MAX:
        raise NotAnImage(f"a configuration of more than {CONFIG_BYTES_MAX} bytes")
    try:
        names = msgspec.json.decode(config, type=_Config).rootfs.diff_ids
        layers = tuple(bytes.fromhex(name.removeprefix("sha256:")) for name in names)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotAnImage(f"a configuration that cannot be read: {error}"[:200]) from None
    if not 0 < len(layers) <= LAYERS_MAX or any(len(layer) != 32 for layer in layers):
        raise NotAnImage(f"not 1 to {LAYERS_MAX} layers named by SHA-256")
    return layers


def missing(digest: bytes, blobs: BlobStore) -> tuple[bytes, ...]:
    """What to fetch next to have the image: its configuration, then its layers, then nothing. Raises: NotAnImage."""
    if not blobs.has(digest):
        return (digest,)
    return tuple(layer for layer in dict.fromkeys(_layers_here(digest, blobs)) if not blobs.has(layer))


def keep(saved: Iterable[bytes], digest: bytes, layers: tuple[bytes, ...], blobs: BlobStore) -> None:
    """Take an image out of what an engine saved.

    Only content that is wanted is kept, whatever the engine calls it. Raises: NotAnImage when some of it is not there,
    NoRoom.
    """
    wanted = {digest, *layers}
    try:
        source = cast("IO[bytes]", _Readable(saved))
        with tarfile.open(fileobj=source, mode="r|", tarinfo=BoundedEntry, bufsize=_CHUNK_BYTES) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None:
                    continue
                with blobs.writer() as writer:
                    while chunk := content.read(_CHUNK_BYTES):
                        writer.write(chunk)
                    if writer.finish()[0] in wanted:
                        writer.commit()
    except BROKEN as error:
        raise NotAnImage(f"the engine saved something unreadable: {error}") from None
    if any(not blobs.has(sha) for sha in wanted):
        raise NotAnImage("the engine does not keep this image as it was built")


def archive(digest: bytes, blobs: BlobStore) -> Iterator[bytes]:
    """The archive an engine loads, without a name for the image. Check with `verify` first."""
    names = []
    yield from _file(f"{digest.hex()}.json", digest, blobs)
    for number, layer in enumerate(_layers_here(digest, blobs)):
        names.append(f"{number}/layer.tar")
        yield from _file(names[-1], layer, blobs)
    index = json.dumps([{"Config": f"{digest.hex()}.json", "RepoTags": None, "Layers": names}]).encode()
    yield _header("manifest.json", len(index)) + index + _padding(len(index))
    yield bytes(2 * tarfile.BLOCKSIZE)


def verify(digest: bytes, blobs: BlobStore) -> None:
    """Refuse what an engine may choke on: a layer unpacks to no more than its length. Raises: NotAnImage, KeyError."""
    for layer in dict.fromkeys(_layers_here(digest, blobs)):
        size, content = blobs.size(layer), 0
        try:
            # "r:" takes no compression: an engine would unpack a compressed layer before it finds the hash is another.
            with tarfile.open(blobs.path(layer), mode="r:", tarinfo=BoundedEntry) as entries:
                for entry in entries:
                    # tarfile keeps all it has seen; a layer may have millions.
                    entries.members.clear()  # type: ignore[attr-defined]
                    if entry.size < 0 or entry.issparse():
                        raise NotAnImage("a layer with sparse files, or a file of negative size")
                    content += entry.size if entry.isreg() else 0
                    if content > size:
                        raise NotAnImage("a layer that holds more than it is long")
        except NotAnImage:
            raise
        except BROKEN as error:
            raise NotAnImage(f"a layer that cannot be read: {error}") from None


def _layers_here(digest: bytes, blobs: BlobStore) -> tuple[bytes, ...]:
    return layers_of(blobs.read(digest, 0, CONFIG_BYTES_MAX + 1))


def _file(name: str, sha: bytes, blobs: BlobStore) -> Iterator[bytes]:
    size = blobs.size(sha)
    yield _header(name, size)
    with blobs.path(sha).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
    if padding := _padding(size):
        yield padding


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


class _Readable(io.RawIOBase):
    """Chunks of bytes as the file tarfile reads from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._ready = iter(chunks), b""

    def read(self, size: int = -1) -> bytes:
        while len(self._ready) < size and (chunk := next(self._chunks, b"")):
            self._ready += chunk
        part, self._ready = self._ready[:size], self._ready[size:]
        return part
