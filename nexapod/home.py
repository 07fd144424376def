"""Where a node keeps its things: one folder per purpose, and a socket whose path the kernel accepts.

Knows names of files. Must never know what is in them.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nexapod.errors import LocalError

SOCKET_PATH_BYTES_MAX = 107  # sun_path holds 108 bytes, the last is zero


@dataclass(frozen=True)
class Home:
    """The folders of one node. `together` says that all of them lie in one folder the person chose."""

    config: Path
    data: Path
    state: Path
    run: Path
    together: bool

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def key_file(self) -> Path:
        return self.config / "key"

    @property
    def next_key_file(self) -> Path:
        """The key the feed has promised to rotate to."""
        return self.config / "next-key"

    @property
    def manifest_file(self) -> Path:
        """Canonical bytes of the network manifest."""
        return self.config / "network.manifest"

    @property
    def peerbook_file(self) -> Path:
        return self.data / "peers.json"

    @property
    def ports_file(self) -> Path:
        """The addresses listened on last time, a line each: peers look for this node there."""
        return self.data / "listening"

    @property
    def ledger_dir(self) -> Path:
        return self.data / "ledger"

    @property
    def blobs_dir(self) -> Path:
        return self.data / "blobs"

    @property
    def work_dir(self) -> Path:
        """Scratch of running tasks; may be emptied whenever no daemon runs."""
        return self.data / "work"

    @property
    def log_file(self) -> Path:
        return self.state / "daemon.log"

    @property
    def pid_file(self) -> Path:
        return self.run / "daemon.pid"

    @property
    def lock_file(self) -> Path:
        """Held by the daemon for its life: one process per key."""
        return self.data / "daemon.lock"

    @property
    def socket_record(self) -> Path:
        """Says where the socket is when its natural place has too long a name."""
        return self.run / "socket.path"

    @property
    def natural_socket(self) -> Path:
        return self.run / "api.sock"

    def socket(self) -> Path:
        """The socket of the local API: as recorded by the daemon, else in its natural or short place."""
        try:
            recorded = self.socket_record.read_text().strip()
        except OSError:
            recorded = ""
        return Path(recorded) if recorded else self.short_socket()

    def short_socket(self) -> Path:
        """The natural place when the kernel accepts its length, else a folder of a short name made from this home."""
        if len(os.fsencode(self.natural_socket)) <= SOCKET_PATH_BYTES_MAX:
            return self.natural_socket
        name = hashlib.sha256(os.fsencode(self.run.resolve())).hexdigest()[:16]
        return _short_root() / f"nexapod-{os.geteuid()}-{name}" / "api.sock"

    def make_folders(self) -> None:
        """Create what is missing, readable by the owner alone.

        Raises:
            LocalError: a folder cannot be made.
        """
        folders = (self.config, self.data, self.ledger_dir, self.blobs_dir, self.work_dir, self.state, self.run)
        for folder in folders:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise LocalError(f"{folder} cannot be made", error.strerror or "", "choose another --home") from None

    def make_socket_place(self) -> Path:
        """The path the daemon binds: its folder is made and proven ours, and recorded when it is not the natural one.

        Raises:
            LocalError: the folder belongs to someone else or can be entered by others.
        """
        place = self.short_socket()
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place == self.natural_socket:
            self.socket_record.unlink(missing_ok=True)
            return place
        # A short place lies in a folder shared with other users: nobody may have prepared it for us.
        seen = place.parent.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
            raise LocalError(f"{place.parent} is not ours alone", "another user could read the socket", "remove it")
        self.socket_record.write_text(f"{place}\n")
        return place


def find_home(chosen: str | None, environ: Mapping[str, str]) -> Home:
    """The folders of the node meant by --home, else NEXAPOD_HOME, else the user's own (XDG)."""
    one = chosen or environ.get("NEXAPOD_HOME")
    if one:
        root = Path(one).expanduser().absolute()
        return Home(config=root, data=root / "data", state=root / "state", run=root / "run", together=True)
    import platformdirs

    dirs = platformdirs.PlatformDirs("nexapod", appauthor=False)
    data, state = Path(dirs.user_data_dir), Path(dirs.user_state_dir)
    return Home(config=Path(dirs.user_config_dir), data=data, state=state, run=state / "run", together=False)


def _short_root() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) if given and len(os.fsencode(given)) <= 40 else Path(tempfile.gettempdir())
