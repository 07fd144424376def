"""Saving results: below one folder, whole or not at all, and only the bytes that the ledger's hash names.

Knows paths, sizes and hashes, and believes none of them before it has looked: the daemon may be hostile, or repeat what
a hostile peer told it. Must never know what is in a file.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from nexapod.errors import Exit, LocalError

PATH_BYTES_MAX, PART_BYTES_MAX, DEPTH_MAX = 1024, 255, 16  # as in runtime/outputs.py
FILES_MAX = 1_000_000
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ResultFile(NamedTuple):
    """One file of one task: its path below /out, size in bytes, SHA-256 in hexadecimal."""

    task: int
    path: str
    size: int
    sha256: str


class Saved(NamedTuple):
    """Where a file lies now; `kept`: it was there already, byte for byte."""

    file: ResultFile
    place: Path
    kept: bool


class Check:
    """Passes the bytes of one file on to `sink` while it counts and hashes them."""

    def __init__(self, file: ResultFile, sink: Callable[[bytes], object]) -> None:
        self._file, self._sink, self._hash, self._size = file, sink, hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        """
        Raises:
            LocalError: more bytes than the file has, or they cannot be written.
        """
        self._size += len(chunk)
        if self._size > self._file.size:
            raise _false(self._file, f"more than {self._file.size} bytes came")
        self._hash.update(chunk)
        try:
            self._sink(chunk)
        except OSError as error:
            raise _unwritten(self._file.path, error) from None

    def finish(self) -> None:
        """
        Raises:
            LocalError: the bytes are not the file's.
        """
        if self._size < self._file.size:
            what = f"{self._file.path} of task {self._file.task} came only in part"
            raise LocalError(what, f"{self._size} of {self._file.size} bytes", "try again")
        if self._hash.hexdigest() != self._file.sha256:
            raise _false(self._file, f"its SHA-256 is {self._hash.hexdigest()}, not {self._file.sha256}")


def read_files(document: dict[str, Any]) -> list[ResultFile]:
    """The files of an answer about results; one that could not have come from a task condemns the answer.

    Raises:
        LocalError: a path that leaves its folder, a size or hash that is none, a file named twice.
    """
    found: dict[tuple[int, str], ResultFile] = {}
    for task in _list(document.get("tasks")):
        for one in _list(_dict(task).get("files")):
            file = _file(_dict(task).get("task"), _dict(one))
            if (file.task, file.path) in found or len(found) >= FILES_MAX:
                raise _untrue(f"{file.path} of task {file.task} is named twice")
            found[file.task, file.path] = file
    return list(found.values())


def default_folder(document: dict[str, Any]) -> Path:
    """./LABEL-JOB.

    Raises:
        LocalError: label or job is not what it should be.
    """
    label, job = document.get("job_id"), document.get("job")
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise _untrue(f"the job's label is {str(label)[:80]!r}")
    if not isinstance(job, str) or not re.fullmatch(r"[0-9a-f]{4,64}", job):
        raise _untrue(f"the job's id is {str(job)[:80]!r}")
    return Path(f"{label}-{job[:12]}")


def save_all(
    folder: Path, files: Iterable[ResultFile], download: Callable[[ResultFile, Callable[[bytes], None]], object]
) -> Iterator[Saved]:
    """Save each file as folder/TASK/PATH, and say so one by one. `download` hands a file's bytes to a function.

    Raises:
        LocalError: a file is not what its hash says, something else is in its place, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritten(str(folder), error) from None
    try:
        for file in files:
            *folders, name = [str(file.task), *file.path.split("/")]
            with _inside(root, folders, file.path) as place:
                kept = _is_there(place, name, file, folder)
                if not kept:
                    _save(place, name, file, download)
            yield Saved(file, folder.joinpath(*folders, name), kept)
    finally:
        os.close(root)


def _save(
    place: int, name: str, file: ResultFile, download: Callable[[ResultFile, Callable[[bytes], None]], object]
) -> None:
    draft = f".nexapod-{secrets.token_hex(8)}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=place)
    except OSError as error:
        raise _unwritten(file.path, error) from None
    whole = False
    try:
        check = Check(file, lambda chunk: _write(fd, chunk))
        download(file, check.write)
        check.finish()
        os.rename(draft, name, src_dir_fd=place, dst_dir_fd=place)
        whole = True
    finally:
        os.close(fd)
        if not whole:  # half a file must not stay
            os.unlink(draft, dir_fd=place)


def _write(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]


@contextmanager
def _inside(root: int, folders: list[str], path: str) -> Iterator[int]:
    """The folder below `root`, made where missing. Links are never followed: none of ours is one."""
    fd = os.dup(root)
    try:
        for part in folders:
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                deeper = os.open(part, _FOLDER, dir_fd=fd)
            except OSError as error:
                raise _unwritten(path, error) from None
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def _is_there(place: int, name: str, file: ResultFile, folder: Path) -> bool:
    """Whether exactly this file lies there already.

    Raises:
        LocalError: something else does, and it is not ours to replace.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritten(file.path, error) from None
    try:
        with os.fdopen(fd, "rb") as there:
            same = os.fstat(fd).st_size == file.size and hashlib.file_digest(there, "sha256").hexdigest() == file.sha256
    except OSError:  # a folder, or no longer readable
        same = False
    if not same:
        what = f"{folder / str(file.task) / file.path} is there already and differs"
        raise LocalError(what, "nothing is overwritten", "remove it, or choose another --output-dir")
    return True


def _file(task: object, one: dict[str, Any]) -> ResultFile:
    path, size, digest = one.get("path"), one.get("size"), one.get("sha256")
    if not isinstance(task, int) or isinstance(task, bool) or not 0 <= task < 2**31:
        raise _untrue(f"a task is numbered {str(task)[:80]!r}")
    if not isinstance(path, str) or not _safe(path):
        raise _untrue(f"a file is called {str(path)[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _untrue(f"{path} has {str(size)[:80]} bytes")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise _untrue(f"the hash of {path} is {str(digest)[:80]!r}")
    return ResultFile(task, path, size, digest)


def _safe(path: str) -> bool:
    parts = path.split("/")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return False
    return (
        len(parts) <= DEPTH_MAX
        and sum(lengths) + len(parts) - 1 <= PATH_BYTES_MAX
        and all(1 <= length <= PART_BYTES_MAX for length in lengths)
        and not any(part in (".", "..") for part in parts)
        and path.isprintable()
        and "\\" not in path
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _untrue(why: str) -> LocalError:
    what = "the daemon's list of results cannot be true"
    return LocalError(what, why, "nothing more was saved; see: nexapod ledger verify", Exit.DISPUTED)


def _false(file: ResultFile, why: str) -> LocalError:
    what = f"what came is not {file.path} of task {file.task}"
    return LocalError(what, why, "it was not saved; see: nexapod ledger verify", Exit.DISPUTED)


def _unwritten(path: str, error: OSError) -> LocalError:
    return LocalError(f"{path} cannot be written", error.strerror or "", "choose another --output-dir")
