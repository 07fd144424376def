"""What the doctor looks at on this machine: Python, key, disk, clock, ports, graphics processors.

Knows files, clocks and sockets. Must never change anything; what it writes to try a folder is gone at once.
"""

import ipaddress
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nexapod.cli.finding import Finding, fail, ok, together, warn
from nexapod.config import Config
from nexapod.home import Home

GB = 10**9
INODES_LOW, INODES_NONE = 100_000, 1_000  # a blob is a file: a node without inodes stops like one without room
YEARS = range(2025, 2100)  # a clock outside of it was never set
CLOCK_LOOKS = 1_000_000  # a tenth of a second: the coarsest clock ticks within a fiftieth
COMMAND_S = 10.0


def python(version: Sequence[int]) -> Finding:
    """Whether this Python is one the libraries are made for."""
    text = ".".join(map(str, version))
    if (3, 11) <= tuple(version) < (3, 13):
        return ok(text)
    return fail(f"{text}; NEXAPod needs 3.11 or 3.12", "uv tool install --python 3.12 nexapod")


def key(home: Home, nexapod: str) -> Finding:
    """Whether the node's keys are there, and nobody else can read or replace them."""
    if not home.key_file.exists():
        return fail(f"{home.key_file} is missing", f"{nexapod} init")
    files = [path for path in (home.key_file, home.next_key_file) if path.exists()]
    return together([*map(_key_file, files), *_folders_above(home.key_file)], str(home.key_file))


def _key_file(path: Path) -> Finding:
    seen = path.stat()
    if seen.st_uid != os.geteuid():
        return fail(f"{path} belongs to another user", f"chown {os.geteuid()} {path}")
    if seen.st_mode & 0o077:
        return fail(f"{path} can be read by others", f"chmod 600 {path}")
    if not stat.S_ISREG(seen.st_mode) or not seen.st_size:
        return fail(f"{path} is not a key", "restore it from a backup, or begin a new home")
    return ok(str(path))


def _folders_above(path: Path) -> Iterator[Finding]:
    """Who may write to a folder may put another key in the place of ours."""
    own, *others = path.resolve().parents
    if own.stat().st_mode & 0o022:
        yield fail(f"others can write to {own}", f"chmod go-w {own}")
    for folder in others:
        mode = folder.stat().st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:
            yield warn(f"everybody can write to {folder}", f"chmod o-w {folder}")


def folders(home: Home) -> Finding:
    """Whether the node can write where it keeps its things."""
    places = dict.fromkeys((home.config, home.data, home.state, home.run))
    return together(map(_writable, places), f"writable: {home.data}")


def _writable(folder: Path) -> Finding:
    try:
        place = existing(folder)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        return fail(f"{folder} cannot be written: {error.strerror}", "choose another --home")
    return ok(str(folder))


def existing(folder: Path) -> Path:
    """The folder, or what it would be made in."""
    while not folder.exists():
        folder = folder.parent
    return folder


def disk(home: Home, config: Config | None) -> Finding:
    """Whether there is room for what the settings lend."""
    try:
        place = existing(home.data)
        seen = os.statvfs(place)
    except OSError as error:
        return fail(f"{home.data} cannot be looked at: {error.strerror}", "choose another --home")
    # A file system that makes inodes as it needs them says it has none in all.
    inodes = seen.f_favail if seen.f_files else None
    return free_room(seen.f_bavail * seen.f_frsize, inodes, config.disk_gb * GB if config else 0, str(place))


def free_room(free: int, inodes: int | None, wanted: int, place: str) -> Finding:
    """What so many free bytes and inodes mean for a node that lends `wanted` bytes."""
    detail = f"{free / GB:.0f} GB free in {place}"
    found = []
    if free < GB:
        found.append(fail(detail, "free some room: a node stops taking work without it"))
    elif free < wanted:
        lower = f"free some room, or set disk_gb = {max(1, free // GB)}"
        found.append(warn(f"{detail}, disk_gb lends {wanted / GB:.0f} in all", lower))
    if inodes is not None and inodes < INODES_LOW:
        few = f"{inodes} inodes free in {place}"
        found.append((fail if inodes < INODES_NONE else warn)(few, f"remove small files: du --inodes -d 2 {place}"))
    return together(found, detail)


def clock(home: Home) -> Finding:
    """Whether both clocks run and tell a time that can be true.

    Times in the ledger are for people and decide nothing; leases and deadlines hang on the monotonic clock.
    """
    stopped = [name for name, read in (("monotonic", time.monotonic_ns), ("wall", time.time_ns)) if not runs(read)]
    if stopped:
        return fail(f"the {' and the '.join(stopped)} clock stands still", "restart the machine")
    written = [path.stat().st_mtime for path in (Path(__file__), home.log_file, home.key_file) if path.exists()]
    return plausible(time.time(), max(written, default=0.0), synchronized())


def runs(read: Callable[[], int]) -> bool:
    """Whether a clock moves on while it is looked at."""
    first = read()
    return any(read() != first for _ in range(CLOCK_LOOKS))


def plausible(now: float, newest: float, ntp: str) -> Finding:
    """What a time (seconds since 1970) means next to the newest file of this node and what systemd says of NTP."""
    set_it = "timedatectl set-ntp true"
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    if time.gmtime(now).tm_year not in YEARS:
        return fail(f"{shown} cannot be the time", set_it)
    if now + 60 < newest:
        return fail(f"{shown} is {(newest - now) / 3600:.1f} hours behind files on this disk", set_it)
    if ntp == "no":
        return warn(f"{shown}, not kept right by NTP", set_it)
    return ok(shown + (", kept right by NTP" if ntp == "yes" else ""))


def synchronized() -> str:
    """yes or no, as systemd says of NTP; empty where there is no systemd to ask."""
    code, text = _output("timedatectl", "show", "-p", "NTPSynchronized")
    answer = text.strip().removeprefix("NTPSynchronized=")
    return answer if code == 0 and answer in ("yes", "no") else ""


def ports(home: Home, config: Config | None, status: dict[str, object] | None) -> Finding:
    """Whether this node can listen, or its running daemon (`status` is its answer) does."""
    if config is None:
        return warn("not looked at: the settings have faults")
    wanted = {address: port for address in config.listen if (port := port_of(address))}
    if status is not None:
        listening = _addresses(status)
        held = {port_of(address) for address in listening}
        others = [address for address, port in wanted.items() if port not in held]
        if listening and others:
            return warn(f"the daemon does not listen on {', '.join(others)}", "nexapod daemon restart")
        return ok(f"the daemon listens on {', '.join(listening)}" if listening else "the daemon listens nowhere yet")
    found = [
        fail(f"{address}: {why}", f"end what listens there (ss -ltnp), or change listen in {home.config_file}")
        for address in config.listen
        if (why := in_the_way(address))
    ]
    if len(wanted) < len(config.listen):
        found.append(warn("port 0 is another one at each start: others do not find this node again",
                          f"name a port in {home.config_file}, such as 4001"))  # fmt: skip
    return together(found, f"free: {', '.join(config.listen)}")


def reach(home: Home, config: Config | None, status: dict[str, object] | None) -> Finding:
    """Whether another machine could reach this one at all; whether one does, only the others can say."""
    addresses = _addresses(status or {}) or list(config.listen if config else ())
    if addresses and all(map(is_loopback, addresses)):
        fix = f'listen = ["/ip4/0.0.0.0/tcp/4001"] in {home.config_file}'
        return warn(f"only this machine can reach {', '.join(addresses)}", fix)
    return ok("other machines may connect" if addresses else "not known")


def in_the_way(address: str) -> str:
    """Why a TCP address such as /ip4/0.0.0.0/tcp/4001 cannot be listened on, or empty."""
    kind, host = host_of(address)
    if kind not in ("ip4", "ip6"):
        return ""  # a name is looked up by the daemon
    try:
        ipaddress.ip_address(host)  # anything else would be looked up, and might take for ever
        with socket.socket(socket.AF_INET if kind == "ip4" else socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port_of(address)))
    except (OSError, OverflowError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def host_of(address: str) -> tuple[str, str]:
    """The kind (ip4, ip6, dns...) and the host of an address."""
    parts = address.split("/")
    return (parts[1], parts[2]) if len(parts) > 2 else ("", "")


def port_of(address: str) -> int:
    """The TCP port of an address; 0 where there is none, or any will do."""
    found = address.partition("/tcp/")[2].partition("/")[0]
    return int(found) if found.isascii() and found.isdigit() and len(found) < 7 else 0


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    kind, host = host_of(address)
    if kind not in ("ip4", "ip6"):
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def gpus() -> tuple[list[str], Finding]:
    """Names of NVIDIA's processors, as the driver's own command tells them, and what to say of them."""
    if shutil.which("nvidia-smi") is None:
        return [], ok("no NVIDIA GPU (there is no nvidia-smi)")
    code, text = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    names = [line.strip() for line in text.splitlines() if line.strip()] if code == 0 else []
    if code != 0:
        return [], warn(f"nvidia-smi fails: {text.strip()[:200] or code}", "install the driver again, or restart")
    return names, ok(", ".join(names) or "no NVIDIA GPU")


def _output(*words: str) -> tuple[int, str]:
    """What a command wrote, and its exit code; 127 when it cannot be run, 124 when it takes too long."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {COMMAND_S:.0f} s"
    except OSError as error:
        return 127, error.strerror or ""
    return done.returncode, done.stdout.decode(errors="replace")


def _addresses(status: dict[str, object]) -> list[str]:
    found = status.get("addresses")
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
