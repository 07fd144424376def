"""Content on disk under its own hash.

Knows files, hashes and a quota. Must never know what a blob means or who wants it. All calls block: callers use
threads.

Layout: `<folder>/<2 hex>/<62 hex>` holds finished blobs (mode 0444, never changed), `tmp/` what is being written
(swept when the store opens), `partial/` downloads that go on after a restart (checked as a whole before they become
blobs).
"""

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from nexapod.errors import LocalError, PeerError
from nexapod.hashing import HASH_BYTES

_CHUNK_BYTES = 1 << 20
_SYNCS_MAX = 16  # files flushed to the disk at once
_TMP, _PARTIAL = "tmp", "partial"


class NoRoom(LocalError):
    """The blob store is at its quota or the disk is full."""

    def __init__(self, why: str) -> None:
        super().__init__("no room for more blobs", why, "raise the storage quota or remove old results")


class NotTheBlob(PeerError):
    """What was downloaded is not the content its hash promised."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not the promised content: {why}", section="blobs", cost=10)


class BlobStore:
    """Blobs by their hash, at most `quota_bytes` in all, unfinished ones included. Safe to use from many threads."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self.folder, self.quota_bytes = folder, quota_bytes
        self._lock = threading.Lock()
        self._used = 0
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / _TMP, ignore_errors=True)
        (folder / _TMP).mkdir()
        (folder / _PARTIAL).mkdir(exist_ok=True)
        self._used = sum(_size_of(path) for path in self._files()) + sum(
            _size_of(path) for path in (folder / _PARTIAL).iterdir()
        )

    @property
    def total_bytes(self) -> int:
        """Bytes of all blobs, finished and unfinished."""
        return self._used

    def path(self, sha: bytes) -> Path:
        """Where a blob is or would be; read it or link it, never write it."""
        assert len(sha) == HASH_BYTES, "a blob id has 32 bytes"
        name = sha.hex()
        return self.folder / name[:2] / name[2:]

    def has(self, sha: bytes) -> bool:
        return self.path(sha).is_file()

    def size(self, sha: bytes) -> int:
        """Bytes of a blob. Raises: KeyError when it is not here."""
        try:
            return self.path(sha).stat().st_size
        except FileNotFoundError:
            raise KeyError(sha.hex()) from None

    def read(self, sha: bytes, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a blob from `offset`, to its end or `length` of them. Raises: KeyError when it is not here."""
        try:
            with self.path(sha).open("rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        except FileNotFoundError:
            raise KeyError(sha.hex()) from None

    def put(self, content: bytes) -> bytes:
        """Keep content and return its id. Raises: NoRoom."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()[0]

    def put_file(self, path: Path) -> tuple[bytes, int]:
        """Keep a copy of a file and return its id and size. Raises: NoRoom, OSError when it cannot be read."""
        with path.open("rb") as file, self.writer() as writer:
            while chunk := file.read(_CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit()

    def writer(self) -> "BlobWriter":
        """A new blob of unknown hash; a context that leaves nothing behind unless it was committed."""
        return BlobWriter(self)

    def commit_all(self, writers: Sequence["BlobWriter"]) -> None:
        """Make blobs of what several writers hold, of all or, without room, of none. Raises: NoRoom."""
        folders = {self.path(writer.finish()[0]).parent for writer in writers} | {self.folder}
        # Together, since a disk takes hardly longer for many than for one.
        with ThreadPoolExecutor(min(_SYNCS_MAX, len(writers) + 1)) as pool:
            list(pool.map(BlobWriter._sync, writers))
            for writer in writers:
                writer._move()
            list(pool.map(_sync_folder, folders))

    def partial(self, sha: bytes, size_max: int) -> "Partial":
        """A download of at most `size_max` bytes that goes on where it stopped; one writer at a time per blob."""
        return Partial(self, sha, size_max)

    def remove(self, sha: bytes) -> bool:
        """Forget a blob; False when it was not here. A task that has it mounted keeps its own link."""
        path = self.path(sha)
        with self._lock:
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return False
            self._used -= size
        return True

    def ids(self) -> Iterator[bytes]:
        """The ids of all finished blobs, in no order."""
        for path in self._files():
            yield bytes.fromhex(path.parent.name + path.name)

    def _files(self) -> Iterator[Path]:
        for fan in self.folder.iterdir():
            if len(fan.name) == 2 and fan.is_dir():
                yield from (path for path in fan.iterdir() if len(path.name) == 2 * HASH_BYTES - 2)

    def _reserve(self, size: int) -> None:
        with self._lock:
            if self._used + size > self.quota_bytes:
                raise NoRoom(f"{self._used} of {self.quota_bytes} bytes are taken")
            self._used += size

    def _refund(self, size: int) -> None:
        with self._lock:
            self._used -= size

    def _adopt(self, file: Path, sha: bytes, size: int) -> None:
        """Move a finished, synced file to its place; its bytes are already reserved. It lasts once the folders are
        synced. Raises: NoRoom, and nothing moved.
        """
        target = self.path(sha)
        with _disk(), self._lock:
            file.chmod(0o444)
            if target.exists():
                file.unlink()
                self._used -= size
                return
            target.parent.mkdir(exist_ok=True)
            file.rename(target)


class BlobWriter:
    """One blob being written. `finish` ends and hashes it, `commit` keeps it, leaving without a commit is abort."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._path = store.folder / _TMP / secrets.token_hex(16)
        with _disk():
            # Without a buffer: what a full disk did not take must not come back when the file is closed.
            self._file = self._path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._size = 0
        self._reserved = 0  # bytes of the quota this writer holds until they belong to a blob

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises: NoRoom."""
        size = len(chunk)
        self._store._reserve(size)
        self._reserved += size
        with _disk():
            _write_all(self._file, chunk)
        self._hash.update(chunk)
        self._size += size

    def finish(self) -> tuple[bytes, int]:
        """End the content; id and size. Writing is over, committing or aborting is still to come. Raises: NoRoom."""
        sha = self._hash.digest()
        if not self._file.closed:
            with _disk():
                self._store.path(sha).parent.mkdir(exist_ok=True)
                self._file.close()
        return sha, self._size

    def commit(self) -> tuple[bytes, int]:
        """Make it a blob; id and size. Raises: NoRoom."""
        self._store.commit_all((self,))
        return self.finish()

    def _sync(self) -> None:
        """Have the finished content on the disk. All that needs room is done then."""
        with _disk(), self._path.open("rb") as file:
            os.fsync(file.fileno())

    def _move(self) -> None:
        """Make the synced content a blob; it lasts once its folder is synced."""
        sha, size = self.finish()
        self._store._adopt(self._path, sha, size)
        self._reserved = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._store._refund(self._reserved)
        self._reserved = 0


class Partial:
    """A download in pieces, in order. What is on disk survives a crash; nothing is believed before `commit`."""

    def __init__(self, store: BlobStore, sha: bytes, size_max: int) -> None:
        self._store, self.sha, self.size_max = store, sha, size_max
        self._path = store.folder / _PARTIAL / sha.hex()
        if self.have > size_max:
            self.abandon()

    @property
    def have(self) -> int:
        """Bytes already here; the next piece begins there."""
        return _size_of(self._path)

    def append(self, chunk: bytes) -> None:
        """Add the next piece. Raises: NoRoom, NotTheBlob when it is longer than allowed."""
        if self.have + len(chunk) > self.size_max:
            self.abandon()
            raise NotTheBlob(f"more than {self.size_max} bytes")
        self._store._reserve(len(chunk))
        reserved = self.have + len(chunk)
        try:
            with _disk(), self._path.open("ab", buffering=0) as file:
                _write_all(file, chunk)
        except NoRoom:
            self._path.unlink(missing_ok=True)
            self._store._refund(reserved)
            raise

    def commit(self) -> None:
        """Check the whole and make it a blob; otherwise it is gone. Raises: NotTheBlob, NoRoom."""
        have = self.have
        try:
            with _disk():
                self._path.touch()
                with self._path.open("rb") as file:
                    os.fsync(file.fileno())
                    digest = hashlib.file_digest(file, "sha256").digest()
            if digest != self.sha:
                raise NotTheBlob(f"{have} bytes with another hash")
            self._store._adopt(self._path, self.sha, have)
            _sync_folder(self._store.path(self.sha).parent)
            _sync_folder(self._store.folder)
        except (NoRoom, NotTheBlob):
            self.abandon()
            raise

    def abandon(self) -> None:
        """Drop what is here; the next download begins at zero."""
        have = self.have
        self._path.unlink(missing_ok=True)
        self._store._refund(have)


@contextmanager
def _disk() -> Iterator[None]:
    """What a disk refuses is room."""
    try:
        yield
    except OSError as error:
        raise NoRoom(str(error)) from error


def _write_all(file: FileIO, chunk: bytes) -> None:
    """A disk that is nearly full takes the first part of a chunk and says nothing."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # what lies there is whole; at worst a power cut takes it away again
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
