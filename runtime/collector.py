"""From the archive an engine hands over to blobs and a manifest.

Knows tar as a stream of entries and the rules for what may come out of a box. Must never know an engine, and never
writes anywhere but into the blob store: an entry's name is compared and hashed, no file is ever called by it.
Blocking.
"""

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Self, cast

import msgspec

from runtime.archives import BROKEN, BoundedEntry
from runtime.blobs import BlobStore, BlobWriter
from runtime.outputs import ENTRIES_MAX, FILES_MAX, NotAResult, fault_of_path, manifest_of, result_root, selected
from runtime.task import OutputFile

_OVERHEAD_BYTES = 8 * 1024  # headers and padding of one entry
_CHUNK_BYTES = 1 << 20


class OutputsRefused(Exception):
    """What a task left is not what a result may hold; the message says which and why."""


class Selection(msgspec.Struct, frozen=True):
    """What to keep: `prefix` is the folder the archive was made of, `outputs` and `volatile` are globs below it."""

    prefix: str
    outputs: tuple[str, ...]
    volatile: tuple[str, ...]
    bytes_max: int


class Collected(msgspec.Struct, frozen=True):
    """A result whose bytes, manifest included, are all in the blob store."""

    files: tuple[OutputFile, ...]
    manifest: bytes
    root: bytes


def collect(stream: Iterable[bytes], selection: Selection, exit_code: int, blobs: BlobStore) -> Collected:
    """Read a tar stream to its end and keep what is selected; all of it or nothing.

    Raises:
        OutputsRefused: a hostile, broken or oversized archive. The store is as before.
        NoRoom: the blob store is full. The store is as before.
    """
    files: list[OutputFile] = []
    with ExitStack() as writers:
        pending: list[BlobWriter] = []
        source = cast("IO[bytes]", _Chunks(stream, selection.bytes_max + ENTRIES_MAX * _OVERHEAD_BYTES))
        try:
            with tarfile.open(
                fileobj=source, mode="r|", tarinfo=_Entry, bufsize=_CHUNK_BYTES, errorlevel=2, errors="surrogateescape"
            ) as archive:
                for path, entry in _admitted(archive, selection):
                    if len(files) == FILES_MAX:  # the manifest would say so too, but after all of them were written
                        raise OutputsRefused(f"more than {FILES_MAX} files")
                    writer = writers.enter_context(blobs.writer())
                    _copy(archive, entry, writer)
                    sha, size = writer.finish()
                    pending.append(writer)
                    files.append(OutputFile(path, size, sha))
        except BROKEN as error:
            raise OutputsRefused(f"the archive is broken: {error}") from None
        try:
            manifest = manifest_of(exit_code, files)
        except NotAResult as error:
            raise OutputsRefused(error.what) from None
        last = writers.enter_context(blobs.writer())
        last.write(manifest)
        pending.append(last)
        blobs.commit_all(pending)
    ordered = tuple(sorted(files, key=lambda file: file.path.encode()))
    return Collected(ordered, manifest, result_root(manifest))


def _admitted(archive: tarfile.TarFile, selection: Selection) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files to keep, each checked before its content is touched."""
    seen: set[str] = set()
    room = selection.bytes_max
    for count, entry in enumerate(archive, start=1):
        if count > ENTRIES_MAX:
            raise OutputsRefused(f"more than {ENTRIES_MAX} files and folders")
        # Also of what is passed over: tarfile would look for its end in steps, for ever.
        if not 0 <= entry.size <= room:
            raise OutputsRefused(f"more than {selection.bytes_max} bytes, from {entry.name[:80]!r} on")
        path = _relative(entry.name, selection.prefix)
        if path is None:
            continue
        if why := fault_of_path(path):
            raise OutputsRefused(f"{path[:80]!r} {why}")
        if path in seen:
            raise OutputsRefused(f"{path[:80]!r} is there twice")
        seen.add(path)
        room -= entry.size
        if entry.type == tarfile.DIRTYPE or not selected(path, selection.outputs, selection.volatile):
            continue
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
            raise OutputsRefused(f"{path[:80]!r} is {_kind(entry)}, not a regular file")
        yield path, entry


def _relative(name: str, prefix: str) -> str | None:
    """The path below the prefix; None for the folder itself. Engines write `out`, `out/` or `./out`."""
    name = name.removeprefix("./").rstrip("/")
    if name in ("", ".", prefix):
        return None
    head, _, rest = name.partition("/")
    if head != prefix:
        raise OutputsRefused(f"{name[:80]!r} is outside of the outputs")
    return rest


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.issym():
        return "a symbolic link"
    if entry.islnk():
        return "a hard link"
    if entry.isfifo():
        return "a pipe"
    if entry.isdev():
        return "a device"
    return "a sparse file" if entry.issparse() else "something unusual"


def _copy(archive: tarfile.TarFile, entry: tarfile.TarInfo, writer: BlobWriter) -> None:
    content = archive.extractfile(entry)  # reads the stream in place; nothing is extracted anywhere
    assert content is not None, "a regular file has content"
    left = entry.size
    while left:
        chunk = content.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise OutputsRefused("the archive ends too early")
        writer.write(chunk)
        left -= len(chunk)


class _Entry(BoundedEntry):
    """An entry that is refused where tarfile would be kind.

    It takes a header it cannot read, or none at all, for the end of the archive: then a broken connection would look
    like a task that left fewer files.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):
                raise  # the one true end
            raise OutputsRefused("the archive is broken or ends too early") from None


class _Chunks:
    """Chunks of bytes as the readable file tarfile wants, with an end to patience."""

    def __init__(self, chunks: Iterable[bytes], bytes_max: int) -> None:
        self._chunks, self._left, self._ready = iter(chunks), bytes_max, b""

    def read(self, size: int) -> bytes:
        parts, wanted = [], size
        while wanted:
            if not self._ready:
                self._ready = next(self._chunks, b"")
                if not self._ready:
                    break
                self._left -= len(self._ready)
                if self._left < 0:
                    raise OutputsRefused("the archive is longer than the outputs may be")
            part, self._ready = self._ready[:wanted], self._ready[wanted:]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)
