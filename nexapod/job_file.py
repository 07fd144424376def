"""Reading a job file: bytes of JSON, YAML or TOML become one plain document, and its local inputs become paths.

Knows files and formats. Must never know what the keys mean: job.py checks the document.
A job file may come from a stranger.
"""

import json
from pathlib import Path
from typing import Any

from nexapod.errors import Exit, LocalError
from nexapod.job import Descriptor, parse
from nexapod.job_faults import DescriptorFaults, Fault
from nexapod.toml import load_toml

FILE_BYTES_MAX = 1024 * 1024  # far beyond any job a person writes


def load(path: Path) -> Descriptor:
    """Read and check a job file.

    Raises:
        LocalError: there is no such file, or it is too large or not readable.
        DescriptorFaults: with every fault found.
    """
    return parse(read_document(path), subject=path.name)


def read_document(path: Path) -> Any:
    """The unchecked document of a .json, .yaml, .yml or .toml file.

    Raises:
        LocalError, DescriptorFaults: as `load`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise LocalError(f"there is no file {path}", "", "give the path of a job file", Exit.USAGE) from None
    except OSError as error:
        raise LocalError(
            f"{path} cannot be read", error.strerror or "", "give the path of a job file", Exit.USAGE
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise LocalError(
            f"{path.name} is too large", f"more than {FILE_BYTES_MAX} bytes", "is it a job file?", Exit.USAGE
        )
    try:
        text = raw.decode()
        match path.suffix.lower():
            case ".yaml" | ".yml":
                return _from_yaml(text)
            case ".toml":
                return load_toml(text)
            case _:
                return json.loads(text, object_pairs_hook=_pairs, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:  # each format's own error is a ValueError; depth is not
        reason = "is nested too deep" if isinstance(error, RecursionError) else f"cannot be read: {str(error)[:300]}"
        raise DescriptorFaults([Fault("", "", reason)], subject=path.name) from None


def local_path(base: Path, uri: str) -> Path:
    """The file a `file:` address means: it must lie below `base`, links followed.

    Raises:
        LocalError: not there, not a regular file, or a link leads out of the folder.
    """
    inside = base.resolve()
    found = (base / uri.removeprefix("file:")).resolve()
    if not found.is_relative_to(inside):
        raise LocalError(
            f"input {uri} lies outside {base}", "a link leads out of the folder", "copy the file", Exit.REFUSED
        )
    if not found.is_file():
        raise LocalError(f"input {uri} is missing", f"no file {found}", "put it beside the descriptor", Exit.REFUSED)
    return found


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"the key {name[:80]!r} stands twice in one table")
        table[name] = value
    return table


def _not_a_number(word: str) -> object:
    raise ValueError(f"{word} is not a number a job can use")


def _from_yaml(text: str) -> Any:
    import yaml  # only when asked for: most job files are JSON

    from nexapod.job_yaml import load_yaml

    try:
        return load_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
