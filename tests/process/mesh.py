"""Real daemons as processes on this machine, each in a home of its own, for tests.

A node is made and steered as people do it: with the `nexapod` command and the local API. Every process is ended when
the test ends. Waiting is asking again until an answer is right, each time under a deadline.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexapod.cli.client import Api, DaemonDown
from nexapod.errors import LocalError
from nexapod.home import Home, find_home

PROGRAMS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0  # for anything a mesh does by itself on a busy machine
ASK_EVERY_S = 0.1


def eventually(question: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true answer; the test fails when there is none in time."""
    end = time.monotonic() + patience_s
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain until {what}"
        time.sleep(ASK_EVERY_S)


@dataclass
class Node:
    """One node; `process` is its daemon while one runs."""

    name: str
    home: Home
    flags: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def api(self) -> Api:
        return Api(self.home.socket())

    # --- the command line ------------------------------------------------------------------------------------------
    def nexapod(self, *words: str, code: int = 0) -> str:
        """Run a command of this node; what it wrote to stdout. The exit code must be the given one."""
        done = subprocess.run(
            [PROGRAMS / "nexapod", "--home", str(self.home.config), *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    # --- the process -----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the daemon; it may not answer yet."""
        program = self.program or (str(PROGRAMS / "nexapod-daemon"),)
        command = [*program, "--home", str(self.home.config), *self.flags]
        self.home.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.home.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)

    def ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, f"{self.name} died:\n{self.log()}"
        return self.api.alive("/readyz")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def log(self) -> str:
        try:
            return self.home.log_file.read_text(errors="replace")[-4000:]
        except FileNotFoundError:
            return ""

    # --- looking ---------------------------------------------------------------------------------------------------
    def get(self, path: str, **query: object) -> dict[str, Any]:
        return self.api.get(path, **query)

    def status(self) -> dict[str, Any]:
        return self.get("/status")

    def feed(self) -> str:
        return str(self.status()["feed"])

    def job(self, job: str) -> dict[str, Any]:
        return self.get(f"/v1/jobs/{job}")

    def executions(self, job: str) -> list[dict[str, Any]]:
        return list(self.get(f"/v1/jobs/{job}/executions")["executions"])

    def running(self) -> list[dict[str, Any]]:
        """Executions whose program runs here now."""
        return [row for row in self.get("/v1/node/executions")["executions"] if row["state"] == "running"]

    def until_over(self, job: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The job once nothing more will happen to it."""
        over = ("settled", "disputed", "failed", "cancelled")
        found: dict[str, Any] = eventually(
            lambda: (seen := self._job_or_none(job)) and seen["state"] in over and seen,
            f"{job[:12]} is over",
            patience_s,
        )
        return found

    def _job_or_none(self, job: str) -> dict[str, Any] | None:
        try:
            return self.job(job)
        except LocalError:
            return None

    def balance(self, account: str) -> int:
        """Micro-credits an account holds, of all colours together, as this node's ledger has it."""
        rows = self.get("/v1/ledger/balances")["balances"]
        return sum(row["balance_micro"] for row in rows if row["account"] == account)


@dataclass
class Mesh:
    """Nodes of one network; the first is its witness."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)

    def add(self, name: str, *flags: str, program: Sequence[str] = (), network: str | None = None) -> Node:
        """A node's home: the founder of `network`, one of none (""), or one that joins by the bootstrap file."""
        home = find_home(str(self.folder / name), {})
        node = Node(name, home, flags, tuple(program))
        where = f"/ip4/127.0.0.{len(self.nodes) + 1}/tcp/0"
        how: tuple[str, ...] = ("--bootstrap", str(self.bootstrap_file))
        if network is not None:
            how = ("--new-network", network) if network else ()
        node.nexapod("init", *how, "--name", home.config.name, "--listen", where)
        self.nodes.append(node)
        return node

    @property
    def bootstrap_file(self) -> Path:
        return self.folder / "bootstrap.json"

    def start(self, *nodes: Node) -> None:
        """Start daemons and wait until they answer."""
        for node in nodes or self.nodes:
            node.start()
        for node in nodes or self.nodes:
            eventually(node.ready, f"{node.name} is ready")

    def write_bootstrap(self, node: Node) -> None:
        """The file others join with, naming where `node` listens now."""
        node.nexapod("bootstrap", "export", "--file", str(self.bootstrap_file))

    def until_connected(self, *nodes: Node) -> None:
        """Every one of the nodes is introduced to all the others and knows what they lend."""
        among = nodes or tuple(self.nodes)
        for node in among:
            eventually(lambda node=node: node.status()["peers"] >= len(among) - 1, f"{node.name} has met the others")
            eventually(
                lambda node=node: sum(bool(row["engines"]) for row in node.get("/v1/nodes")["nodes"]) >= len(among),
                f"{node.name} knows what the others lend",
            )

    def until_equal(self, *nodes: Node) -> str:
        """All ledgers hold the same events and the same certified state; the state root."""
        among = nodes or tuple(self.nodes)

        def roots() -> str | None:
            ledgers = [node.status()["ledger"] for node in among]
            same = len({(ledger["state_root"], ledger["frontier_root"]) for ledger in ledgers}) == 1
            return (
                str(ledgers[0]["state_root"]) if same and len({ledger["events"] for ledger in ledgers}) == 1 else None
            )

        return str(eventually(roots, "all ledgers are equal"))

    def end(self) -> None:
        """End every daemon that still runs."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    node.process.kill()
                    node.process.wait()


@contextmanager
def new_mesh() -> Iterator[Mesh]:
    """An empty mesh in a folder of a short name (sockets want one), gone with all its processes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="nxm-"))
    mesh = Mesh(folder)
    try:
        yield mesh
    except BaseException:
        for node in mesh.nodes:
            print(f"--- {node.name} ---\n{node.log()}", file=sys.stderr)
        raise
    finally:
        mesh.end()
        shutil.rmtree(folder, ignore_errors=True)


def small_mesh(mesh: Mesh, workers: int, *flags: str, witness_flags: Sequence[str] = ()) -> tuple[Node, list[Node]]:
    """A witness that publishes and some workers, all running and connected."""
    witness = mesh.add("witness", *flags, *witness_flags, network="lab")
    mesh.start(witness)
    mesh.write_bootstrap(witness)
    others = [mesh.add(f"worker{number}", *flags) for number in range(1, workers + 1)]
    mesh.start(*others)
    mesh.until_connected()
    return witness, others


def shell_job(folder: Path, script: str, *, tasks: int = 1, label: str = "job", **more: Any) -> Path:
    """A job file that runs a shell script in the test image."""
    job = {
        "schema_version": "1.0", "job_id": label, "type": "test", "image": "nexapod-test:process", "tasks": tasks,
        "command": ["/bin/sh", "-c", script], "estimated_flops": 1e12,
        "requirements": {"ram_gb": 0.064, "disk_gb": 0.01}, "timeouts": {"run_s": 60, "queue_s": 50},
    } | more  # fmt: skip
    path = folder / f"{label}.json"
    path.write_text(json.dumps(job))
    return path


def publish(node: Node, file: Path) -> str:
    """Publish a job file with the command line; the job's id."""
    return node.nexapod("publish", str(file)).strip()


def environment_without_nexapod() -> dict[str, str]:
    """This process's environment without settings of any node."""
    return {key: value for key, value in os.environ.items() if not key.startswith("NEXAPOD_")}


__all__ = ["DaemonDown", "Mesh", "Node", "eventually", "new_mesh", "publish", "shell_job", "small_mesh"]
