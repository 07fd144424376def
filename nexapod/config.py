"""The settings of a node: flag, then environment, then config.toml, then default; each value knows where it came from.

Knows keys, ranges and precedence. Must never know what a setting makes the daemon do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexapod import disk
from nexapod.home import Home
from nexapod.job_faults import DescriptorFaults, Fault, nearest, shown
from nexapod.job_shapes import FAULTS_MAX, REFUSED, Faults, Flag, ListOf, Shape, Text, Whole, refuse
from nexapod.limits import ADDRESSES_MAX, LEASE_MS, NAME_CHARS_MAX
from nexapod.toml import load_toml

CONFIG_BYTES_MAX = 64 * 1024
ADDRESS = Text(
    200,
    r"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]+/tcp/\d{1,5}(?:/p2p/[1-9A-HJ-NP-Za-km-z]{1,64})?",
    "must be an address such as /ip4/0.0.0.0/tcp/4001",
)
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Setting:
    """One key of config.toml: its shape, its default, what it is for, and whether a running node takes a new value."""

    shape: Shape
    default: object
    about: str
    live: bool = True


SETTINGS: dict[str, Setting] = {
    "name": Setting(Text(NAME_CHARS_MAX, min_chars=0), "", "what others call this node"),
    "listen": Setting(
        ListOf(ADDRESS, ADDRESSES_MAX, unique=True, min_items=1),
        ("/ip4/0.0.0.0/tcp/4001",),
        "addresses to listen on",
        live=False,
    ),
    "engine": Setting(
        Text(16, choices=("auto", "docker", "none")), "auto", "what runs tasks: auto, docker or none", live=False
    ),
    "work": Setting(Flag(), True, "whether this node runs tasks of others"),
    "slots": Setting(Whole(0, 1024), 0, "tasks at a time; 0: as many as the machine carries"),
    "cpus_percent": Setting(Whole(1, 100), 100, "share of the processors lent"),
    "ram_percent": Setting(Whole(1, 100), 50, "share of the memory lent"),
    "disk_gb": Setting(Whole(1, 1_000_000), 20, "room for inputs and results, in gigabytes"),
    "lease_ms": Setting(Whole(1_000, 3_600_000), LEASE_MS, "how long an assignment lives without renewal", live=False),
    "drain_s": Setting(Whole(0, 86_400), 20, "when asked to stop, seconds for running tasks to finish"),
    "gossip": Setting(Flag(), True, "off: everything travels by direct exchange only, more slowly", live=False),
    "log_level": Setting(Text(16, choices=("debug", "info", "warning", "error")), "info", "how much is logged"),
}


@dataclass(frozen=True)
class Config:
    """Checked settings. `origins` says for each key: flag, env NEXAPOD_..., the file, or default."""

    name: str
    listen: tuple[str, ...]
    engine: str
    work: bool
    slots: int
    cpus_percent: int
    ram_percent: int
    disk_gb: int
    lease_ms: int
    drain_s: int
    gossip: bool
    log_level: str
    origins: Mapping[str, str] = field(default_factory=dict)


def load_config(home: Home, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Config:
    """The settings in force. `flags` holds only what the person gave on the command line (None means not given).

    Raises:
        DescriptorFaults: every unknown key and wrong value of file, environment and flags.
    """
    faults: Faults = []
    values: dict[str, Any] = {key: setting.default for key, setting in SETTINGS.items()}
    origins = dict.fromkeys(SETTINGS, "default")
    layers: list[tuple[str, Mapping[str, object]]] = [
        (str(home.config_file), _from_file(home.config_file, faults)),
        ("env", _from_environment(environ)),
        ("flag", {key: value for key, value in (flags or {}).items() if value is not None}),
    ]
    for origin, layer in layers:
        for key, value in layer.items():
            setting = SETTINGS.get(key)
            if setting is None:
                meant = nearest(key, SETTINGS) if len(faults) < FAULTS_MAX else ""
                refuse(faults, key, value, f"is not a setting ({origin})", meant)
                continue
            checked = setting.shape.check(key, value, faults)
            if checked is not REFUSED:
                values[key], origins[key] = checked, f"env NEXAPOD_{key.upper()}" if origin == "env" else origin
    if faults:
        raise DescriptorFaults(faults, subject="settings", result="nothing was started", remedy=_remedy(home))
    return Config(**values, origins=origins)


def write_config(home: Home, *, name: str, listen: tuple[str, ...]) -> None:
    """Write a new config.toml that says every setting and what it is for; only what was chosen is not a comment.

    Raises:
        DescriptorFaults: a value is not allowed.
        FileExistsError: there is one already.
    """
    faults: Faults = []
    SETTINGS["name"].shape.check("name", name, faults)
    SETTINGS["listen"].shape.check("listen", listen, faults)
    if faults:
        raise DescriptorFaults(faults, subject="settings", result="nothing was written", remedy="correct the flag")
    lines = ["# Settings of this node. A flag or NEXAPOD_<KEY> in the environment comes before this file."]
    for key, setting in SETTINGS.items():
        chosen = {"name": name, "listen": listen}.get(key)
        value = setting.default if chosen is None else chosen
        lines += ["", f"# {setting.about}", f"{'# ' if chosen is None else ''}{key} = {_toml(value)}"]
    disk.write_new(home.config_file, ("\n".join(lines) + "\n").encode(), 0o644)


def _from_file(path: Path, faults: Faults) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
        if len(raw) > CONFIG_BYTES_MAX:
            raise ValueError(f"is larger than {CONFIG_BYTES_MAX} bytes")
        return load_toml(raw.decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        faults.append(Fault(str(path), "", f"cannot be read: {shown(str(error))}"))
        return {}


def _from_environment(environ: Mapping[str, str]) -> Mapping[str, object]:
    """Values of NEXAPOD_<KEY>; other variables with that beginning belong to other parts and are left alone."""
    found: dict[str, object] = {}
    for key, setting in SETTINGS.items():
        text = environ.get(f"NEXAPOD_{key.upper()}")
        if text is None:
            continue
        match setting.shape:
            case Flag():
                found[key] = WORDS.get(text.lower(), text)
            case Whole():
                found[key] = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text
            case ListOf():
                found[key] = [part.strip() for part in text.split(",")]
            case _:
                found[key] = text
    return found


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # The shapes of all settings refuse control characters, so these two are all that needs escaping.
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            return str(value)


def _remedy(home: Home) -> str:
    return f"correct {home.config_file}, the environment or the flag (see: nexapod config show --origin)"
