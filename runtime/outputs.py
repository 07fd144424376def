"""What a result is, to the byte: the list of files a task left and the one hash that stands for it.

Knows paths, globs and the manifest. Must never know where the bytes came from. Nothing enters a manifest that two
honest machines could write differently: no times, owners, modes or order of creation.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from nexapod.encoding import Wire, check_text, decode, encode
from nexapod.errors import PeerError
from nexapod.hashing import HASH_BYTES, blob_id
from nexapod.limits import RESULT_BYTES_MAX
from runtime.task import OutputFile

FILES_MAX = 4_096  # files of one result; a task with more packs them into one
ENTRIES_MAX = 2 * FILES_MAX  # files and folders; also the inodes of the volume, so a task meets it as a full disk
PATH_BYTES_MAX = 1_024
PART_BYTES_MAX = 255  # what a file system takes
DEPTH_MAX = 16
_NO_PARTS = frozenset({"", ".", ".."})
_VERSION = "nexapod/result/1"
_BIG = 2**63 - 1

# Progress for people to look at: written at any moment, so never part of a result.
ALWAYS_VOLATILE = (".progress",)


class _Line(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    path: str
    size: Annotated[int, Meta(ge=0, le=_BIG)]
    sha256: Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class _Page(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: str
    exit_code: Annotated[int, Meta(ge=0, le=255)]
    files: tuple[_Line, ...]


class NotAResult(PeerError):
    """The bytes are not the manifest of a result."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not a result manifest: {why}", section="results", cost=10)


def manifest_of(exit_code: int, files: Iterable[OutputFile]) -> bytes:
    """The canonical manifest, sorted by the UTF-8 bytes of the paths.

    Raises:
        NotAResult: a path that is not safe or there twice, too many files, or a manifest beyond RESULT_BYTES_MAX.
    """
    ordered = sorted(files, key=lambda file: file.path.encode("utf-8", "surrogatepass"))
    _check(tuple(file.path for file in ordered))
    lines = tuple(_Line(file.path, file.size, file.sha256) for file in ordered)
    raw = encode(_Page(_VERSION, exit_code, lines))
    if len(raw) > RESULT_BYTES_MAX:
        raise NotAResult(f"{len(raw)} bytes, at most {RESULT_BYTES_MAX} allowed")
    return raw


def result_root(manifest: bytes) -> bytes:
    """The hash executions are compared by; also the blob id of the manifest, so a root can be fetched as a blob."""
    return blob_id(manifest)


def parse_manifest(raw: bytes) -> tuple[int, tuple[OutputFile, ...]]:
    """Exit code and files of a manifest.

    Raises:
        NotAResult: anything `manifest_of` would not have written, byte for byte.
    """
    try:
        page = decode(raw, _Page, size_max=RESULT_BYTES_MAX)
    except PeerError as error:
        raise NotAResult(error.what) from None
    if page.version != _VERSION:
        raise NotAResult("another version")
    paths = tuple(line.path for line in page.files)
    _check(paths)
    if list(paths) != sorted(paths, key=str.encode):
        raise NotAResult("files out of order")
    return page.exit_code, tuple(OutputFile(line.path, line.size, line.sha256) for line in page.files)


def _check(paths: tuple[str, ...]) -> None:
    if len(paths) > FILES_MAX:
        raise NotAResult(f"{len(paths)} files, at most {FILES_MAX} allowed")
    for path in paths:
        if why := fault_of_path(path):
            raise NotAResult(f"{path[:80]!r} {why}")
    if len(set(paths)) != len(paths):
        raise NotAResult("a path is there twice")
    # With the lowest character between its parts, what lies below a path comes right behind it.
    ordered = sorted(path.replace("/", "\0") for path in paths)
    for above, path in pairwise(ordered):
        if path.startswith(above + "\0"):
            raise NotAResult(f"{path.replace(chr(0), '/')[:80]!r} lies below a file")


def safe_path(path: str) -> bool:
    """Whether a path stays inside its folder and is spelled the one way it can be."""
    return not fault_of_path(path)


def fault_of_path(path: str) -> str:
    """Why a path is not safe, in words that follow the path; empty when it is."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not 0 < len(raw) <= PATH_BYTES_MAX:
        return f"has not 1 to {PATH_BYTES_MAX} bytes"
    try:
        check_text(path)  # by one table of characters: nodes must not disagree about what is a path
    except ValueError:
        return "is not plain text in Unicode normal form C"
    if "\\" in path:
        return "holds a backslash"
    parts = path.split("/")
    if len(parts) > DEPTH_MAX:
        return f"is more than {DEPTH_MAX} folders deep"
    if not _NO_PARTS.isdisjoint(parts):
        return "is not a plain relative path"
    if len(raw) > PART_BYTES_MAX and any(len(part.encode()) > PART_BYTES_MAX for part in parts):
        return f"has a part of more than {PART_BYTES_MAX} bytes"
    return ""


def selected(path: str, outputs: tuple[str, ...], volatile: tuple[str, ...]) -> bool:
    """Whether a file is part of the result: in a glob of `outputs` (or they are empty) and in none of `volatile`."""
    parts = tuple(path.split("/"))
    if any(_matches(glob, parts) for glob in (*ALWAYS_VOLATILE, *volatile)):
        return False
    return not outputs or any(_matches(glob, parts) for glob in outputs)


def _matches(glob: str, parts: tuple[str, ...]) -> bool:
    """* and ? stay within a part, ** stands for any number of parts, a trailing / means all below, brackets are plain.

    Part by part with a set of places, never by trying every way: a hostile glob costs no more than an honest one.
    """
    reached = {0}
    for piece in (glob + "**" if glob.endswith("/") else glob).removeprefix("/out/").split("/"):
        if piece == "**":
            reached = set(range(min(reached), len(parts) + 1))
        else:
            pattern = _pattern(piece)
            reached = {at + 1 for at in reached if at < len(parts) and pattern.fullmatch(parts[at])}
        if not reached:
            return False
    return len(parts) in reached


@lru_cache(maxsize=1024)
def _pattern(piece: str) -> re.Pattern[str]:
    """One part of a glob. Between two stars the leftmost place is as good as any, so it is taken for good."""
    texts = ["".join("." if char == "?" else re.escape(char) for char in text) for text in re.split(r"\*+", piece)]
    if len(texts) == 1:
        return re.compile(texts[0], re.DOTALL)
    middle = "".join(f"(?>.*?{text})" for text in texts[1:-1])
    return re.compile(f"{texts[0]}{middle}.*{texts[-1]}", re.DOTALL)
