"""The files of this checkout, as the tests about the tree itself see them.

Knows which folders are ours. Reads the file system and not git, so that a file counts before it is committed.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("nexapod", "daemon", "dht", "gossip", "ledger", "runtime", "bootstrap")
_SKIPPED = {"__pycache__", "dist", "build", "node_modules", "shared"}
_HIDDEN_BUT_OURS = {".ci", ".gitignore"}


@cache
def every_file() -> tuple[Path, ...]:
    """All files that are or will be tracked, relative to the root, in order."""
    return tuple(sorted(path.relative_to(ROOT) for path in _walk(ROOT)))


def python_files(*tops: str) -> list[Path]:
    """Python files below these top-level folders; all of them without any."""
    return [path for path in every_file() if path.suffix == ".py" and (not tops or path.parts[0] in tops)]


def source_files() -> list[Path]:
    """The modules of the seven packages."""
    return python_files(*ROOMS)


def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path), str(path))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in _SKIPPED or path.name.endswith(".egg-info"):
            continue
        if path.name.startswith(".") and path.name not in _HIDDEN_BUT_OURS:
            continue
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path
