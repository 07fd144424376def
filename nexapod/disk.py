"""Files that are whole or not there: a crash while one is written leaves no half of it.

Knows names, bytes and how a file system keeps a promise. Must never know what the bytes mean.
"""

import os
from pathlib import Path


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a new file in place in one step, and on the disk before this returns.

    Raises:
        FileExistsError: there is one already; it is left as it is.
        OSError: the folder does not exist, is full, or does not let us.
    """
    draft = _draft(path, content, mode)
    try:
        os.link(draft, path)  # unlike a rename, this never replaces what is there
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        draft.replace(path)  # a file system without links, such as that of a memory card
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in place of the one that may be there, in one step.

    Raises:
        OSError: the folder does not exist, is full, or does not let us.
    """
    _draft(path, content, mode).replace(path)
    _sync_folder(path.parent)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)  # of an earlier crash
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
