"""The demo's mesh: several nodes on this machine, made and run with the real commands, and nothing left of them after.

Knows homes, daemons and when they have found each other. Must never know jobs.
"""

import io
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexapod.cli.client import Api
from nexapod.cli.main import run
from nexapod.cli.process import READY_S, log_end, spawn, wait_ready
from nexapod.cli.render import short
from nexapod.errors import Exit, LocalError
from nexapod.home import Home, find_home

NAMES = ("aare", "rhone", "inn", "doubs", "reuss", "limmat", "saane", "thur")  # rivers, in no order
NODES_MAX = len(NAMES)
MESH_S = 60.0
LOOK_S = 0.15
PATIENCE_S = ((signal.SIGTERM, 4.0), (signal.SIGTERM, 4.0), (signal.SIGKILL, 4.0))  # a second SIGTERM: do not drain


@dataclass
class Node:
    """One daemon of the demo."""

    name: str
    home: Home
    api: Api
    process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return log_end(self.home.log_file)

    def check(self) -> None:
        """
        Raises:
            LocalError: the daemon has died.
        """
        if not self.alive():
            code = self.process.returncode if self.process else None
            raise LocalError(f"the daemon of {self.name} died (exit {code})", self.log(), "the demo was stopped")


@dataclass
class Mesh:
    """The nodes that run, and how long they took to find each other."""

    folder: Path
    nodes: list[Node]
    seconds: float = 0.0

    def until(self, done: Callable[[], bool], what: str, deadline_s: float, why: Callable[[], str] = str) -> None:
        """Wait for something.

        Raises:
            LocalError: a daemon died, or it did not happen in time.
        """
        end = time.monotonic() + deadline_s
        while not done():
            for node in self.nodes:
                node.check()
            if time.monotonic() > end:
                raise LocalError(f"{what} after {deadline_s:.0f} s", why(), "try again, or look closer with --keep DIR",
                                 Exit.TIMED_OUT)  # fmt: skip
            time.sleep(LOOK_S)


def typed(node: Node, *words: str) -> str:
    """What a real command prints for a node; it runs in this process, which saves the start of a Python.

    Raises:
        LocalError: with what the command said, and its exit code.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["--home", str(node.home.config), *words])
    if code:
        known = Exit(code) if code in set(Exit) else Exit.FAILURE
        raise LocalError(f"nexapod {' '.join(words)} failed", err.getvalue().strip(), "", known)
    return out.getvalue()


@contextmanager
def open_mesh(count: int, keep: Path | None, tell: Callable[[Node], None]) -> Iterator[Mesh]:
    """A mesh of `count` nodes, all connected; `tell` is called for each node when its daemon is ready.

    Raises:
        LocalError: it does not stand in time, or a daemon died.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet_environment())
        folder = stack.enter_context(_folder(keep))
        mesh = Mesh(folder, [_node(folder, name) for name in NAMES[:count]])
        stack.enter_context(_ended(mesh))
        first, *others = mesh.nodes
        typed(first, "init", "--new-network", "demo", "--name", first.name, "--listen", "/ip4/127.0.0.1/tcp/0")
        for number, node in enumerate(others, 2):
            typed(node, "init", "--name", node.name, "--listen", f"/ip4/127.0.0.{number}/tcp/0")
        began = time.monotonic()
        for node in mesh.nodes:  # all at once: most of a start is importing, and there is more than one core
            _start(node)
        _await(first)
        tell(first)
        file = folder / "demo.bootstrap"
        typed(first, "bootstrap", "export", "--file", str(file))
        for node in others:
            _await(node)
            typed(node, "bootstrap", "import", str(file))
            tell(node)
        # The longest log is of no use here: what counts is who has not met whom.
        mesh.until(lambda: _connected(mesh.nodes), "the nodes have not all met", MESH_S, lambda: _meetings(mesh.nodes))
        mesh.seconds = time.monotonic() - began
        yield mesh


def peers_of(node: Node) -> list[dict[str, Any]]:
    found = node.api.get("/v1/peers").get("peers", [])
    return found if isinstance(found, list) else []


def listed_by(node: Node) -> set[str]:
    """The feeds of the nodes whose adverts this node has found."""
    return {str(one.get("feed")) for one in node.api.get("/v1/nodes").get("nodes", []) if isinstance(one, dict)}


def _connected(nodes: list[Node]) -> bool:
    """Whether the first node has all others, everyone someone, and everyone finds everyone in the DHT."""
    if len(peers_of(nodes[0])) < len(nodes) - 1 or not all(peers_of(node) for node in nodes[1:]):
        return False
    feeds = {str(node.api.get("/status").get("feed")) for node in nodes}
    return all(feeds <= listed_by(node) | {str(node.api.get("/status").get("feed"))} for node in nodes)


def _meetings(nodes: list[Node]) -> str:
    return "\n".join(
        f"{node.name}: connected to {len(peers_of(node))}, lists {', '.join(map(short, sorted(listed_by(node))))}"
        for node in nodes
    )


def _node(folder: Path, name: str) -> Node:
    home = find_home(str(folder / name), {})
    return Node(name, home, Api(home.socket()))


def _start(node: Node) -> None:
    node.process, _ = spawn(node.home, {})
    node.api = Api(node.home.socket())


def _await(node: Node) -> None:
    try:
        wait_ready(node.api, lambda: not node.alive(), node.log, READY_S)
    except LocalError as error:
        raise LocalError(f"{node.name}: {error.what}", error.why, "", error.exit_code) from None
    node.api = Api(node.home.socket())  # a long --keep folder has its socket elsewhere, and says where by now


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """The demo's nodes are not this person's node: no setting, home or passphrase of theirs must reach them."""
    taken = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("NEXAPOD_")}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise LocalError(f"{keep} is not empty", "", "choose a new folder for --keep", Exit.USAGE)
        except OSError as error:
            raise LocalError(f"{keep} cannot be used", error.strerror or "", "choose another --keep") from None
        yield keep.absolute()
        return
    # /tmp rather than TMPDIR where it can be: the name of a socket in it must stay below 108 bytes.
    root = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="nexapod-demo-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ended(mesh: Mesh) -> Iterator[None]:
    """Whatever happens, signals included, the daemons end before the folder goes."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    caught = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in caught}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # putting away takes a moment and is not left half done
        _end([node.process for node in mesh.nodes if node.process is not None])
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for number, patience in PATIENCE_S:
        for process in processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
        until = time.monotonic() + patience
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        if all(process.poll() is not None for process in processes):
            break
    for process in processes:  # whatever a daemon may have started is in its group
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
