"""Inputs as one folder a task can look into.

Knows paths and links. Must never know an engine. Blobs are linked, not copied: a folder costs nothing, and a task that
only reads cannot change them.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from runtime.outputs import fault_of_path


class BadInput(ValueError):
    """A path no folder of inputs can hold; the message says why."""


def stage(inputs: Mapping[str, Path], folder: Path) -> None:
    """Make `folder` hold exactly the inputs, readable by anybody who is let into it. Blocking.

    Raises:
        BadInput: an unsafe path, or a file where another path needs a folder.
        OSError: a blob that is gone, or a full disk.
    """
    for path in inputs:
        if why := fault_of_path(path):
            raise BadInput(f"{path[:80]!r} {why}")
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # the umask of the daemon is none of the task's business
    for path, blob in sorted(inputs.items()):
        target = folder / path
        try:
            for parent in reversed(target.relative_to(folder).parents):
                (folder / parent).mkdir(exist_ok=True)
                (folder / parent).chmod(0o755)
        except (FileExistsError, NotADirectoryError):
            raise BadInput(f"{path[:80]!r} lies below a file") from None
        try:
            os.link(blob, target)
        except OSError as error:
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise
            shutil.copyfile(blob, target)  # another file system, or one without links
            target.chmod(0o444)
