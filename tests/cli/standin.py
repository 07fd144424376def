"""A stand-in for the daemon: answers on a unix socket as docs/api.md says, from canned documents.

As a program it plays one node of a mesh whose nodes see each other's folders: they share a job that is over at once.
"""

import hashlib
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nexapod.home import Home, find_home

Answer = dict[str, Any] | bytes | tuple[int, dict[str, Any]] | Callable[[dict[str, Any]], Any]
TEXT = b'{"energy": -12.5}\n'
SHA = hashlib.sha256(TEXT).hexdigest()
REFUSAL = {"error": {"what": "there is no such thing", "why": "", "next": "", "exit_code": 4, "faults": []}}


class Standin:
    """Canned answers by 'METHOD /path'; `asked` holds what was asked, bodies included."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.answers: dict[str, Answer] = {"GET /livez": {"ok": True}, "GET /readyz": {"ok": True}}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def answer(self, line: str, query: dict[str, Any], body: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append((line, body | query))
        found = self.answers.get(line, (404, REFUSAL))
        if callable(found):
            found = found(body | query)
        if isinstance(found, bytes):
            return 200, found
        status, document = found if isinstance(found, tuple) else (200, found)
        return status, json.dumps(document).encode()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = True
    standin: Standin

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that did not want the whole answer


class _Answering(BaseHTTPRequestHandler):
    server: _Server

    def _reply(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, raw = self.server.standin.answer(f"{self.command} {unquote(url.path)}", query, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = _reply

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(standin: Standin) -> Iterator[Standin]:
    """The stand-in answers on its home's socket for as long as the context lasts."""
    standin.home.make_folders()
    place = standin.home.make_socket_place()
    place.unlink(missing_ok=True)
    with _Server(str(place), _Answering) as server:
        server.standin = standin
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield standin
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def answering(
    place: Path, answer: bytes, *, then: Callable[[socket.socket], object] = lambda _: None
) -> Iterator[Path]:
    """Something on a socket that answers every question with these very bytes, does one thing more, and hangs up."""

    class Bytes(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            self.wfile.write(answer)
            then(self.connection)

    with _Server(str(place), Bytes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield place
        finally:
            server.shutdown()
            thread.join()


def until_gone(connection: socket.socket) -> None:
    """Keep a client waiting for as long as it does."""
    connection.recv(1)


def drip(connection: socket.socket) -> None:
    """Send one byte after the other until the client has gone."""
    connection.settimeout(0.01)
    while True:
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            connection.sendall(b"x")


def node_of_a_mesh(home: Home, names: Callable[[], list[str]]) -> Standin:
    """A node that agrees with all others about one job of two tasks, published by whoever is asked first."""
    standin, shared, name = Standin(home), home.config.parent / "job.json", home.config.name

    def ids(one: str) -> dict[str, Any]:
        return {"name": one, "feed": hashlib.sha256(one.encode()).hexdigest(), "peer": f"12D3KooW{one}"}

    def status(_: dict[str, Any]) -> dict[str, Any]:
        engines = [{"name": "docker", "version": "20", "ready": os.environ.get("STANDIN") != "no-engine", "why": "off"}]
        return ids(name) | {
            "state": "running", "healthy": True, "why": [], "addresses": [f"/ip4/127.0.0.1/tcp/9/p2p/{ADDRESS}"],
            "engines": engines, "ledger": ledger({}),
        }  # fmt: skip

    def ledger(_: dict[str, Any]) -> dict[str, Any]:
        return {"state_root": "ab" * 32, "provisional": False}

    def submit(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        shared.write_text(json.dumps(body))
        answer = {"job_id": body["descriptor"]["job_id"], "tasks": 2, "replicas": 2, "price_micro": 10_000}
        return 201, answer | {"job": JOB, "lock_micro": 0, "holders": 2}

    def executions(_: dict[str, Any]) -> dict[str, Any]:
        if not shared.exists():
            return {"executions": []}
        ms = int(shared.stat().st_mtime * 1000) + 1500
        return {"executions": [{"job": JOB, "task": 0, "round": 0, "running_ms": ms, "ended_ms": ms + 5}]}

    def balances(_: dict[str, Any]) -> dict[str, Any]:
        rows = [{"account": ids(one)["feed"], "balance_micro": 20_000} for one in names()[1:3]]
        return {"balances": rows, "provisional": False, "minted_micro": {"c0": 40_000}}

    def events(query: dict[str, Any]) -> dict[str, Any]:
        fresh = EVENTS[int(query["after"]) :]
        return {"events": fresh, "next": len(EVENTS), "state": STATE, "over": True}

    standin.answers |= {
        "GET /status": status,
        "GET /v1/peers": lambda _: {"peers": [ids(one) for one in names() if one != name]},
        "GET /v1/nodes": lambda _: {"nodes": [ids(one) for one in names()]},
        "GET /v1/ledger": ledger,
        "GET /v1/ledger/balances": balances,
        "GET /v1/ledger/log": {"events": [{"kind": "close", "certified": True}]},
        "GET /v1/node/executions": executions,
        "POST /register": ids(name),
        "POST /submit-job": submit,
        f"GET /v1/jobs/{JOB}/events": events,
        f"GET /v1/jobs/{JOB}/executions": {"executions": [{}, {}, {}, {}]},
        f"GET /v1/jobs/{JOB}/results": RESULTS,
        f"GET /v1/jobs/{JOB}/results/0/summary.json": TEXT,
    }
    return standin


# What Docker 27 answers, with all that a node needs.
ENGINE_VERSION: dict[str, Any] = {
    "Version": "27.5.1",
    "ApiVersion": "1.47",
    "Os": "linux",
    "Arch": "amd64",
    "Components": [
        {"Name": "Engine", "Version": "27.5.1", "Details": {"ApiVersion": "1.47"}},
        {"Name": "containerd", "Version": "1.7.25", "Details": {"GitCommit": "bcc810d"}},
        {"Name": "runc", "Version": "1.2.8", "Details": {"GitCommit": "v1.2.8-0-geeb7e60"}},
    ],
}
ENGINE_INFO: dict[str, Any] = {
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsPeriod": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "OSType": "linux",
    "Runtimes": {"runc": {"path": "runc"}},
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
}
JOB = "c0ffee" + "0" * 58
STATE = os.environ.get("STANDIN_STATE", "settled")
ADDRESS = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
RESULTS: dict[str, Any] = {
    "job": JOB,
    "job_id": "fold",
    "tasks": [
        {"task": 0, "root": "00", "exit_code": 0, "files": [{"path": "summary.json", "size": 18, "sha256": SHA}]}
    ],
}
EVENTS: list[dict[str, Any]] = [
    {
        "n": 0,
        "ms": 2**40,
        "step": "offer",
        "task": None,
        "node": "aa",
        "name": "aare",
        "text": "2 tasks, 2 replicas each",
    },
    {"n": 1, "ms": 2, "step": "commit", "task": 0, "node": "bb", "name": "rhone", "text": "bound itself to a result"},
    {"n": 2, "ms": 2, "step": "commit", "task": 1, "node": "bb", "name": "rhone", "text": "bound itself to a result"},
    {"n": 3, "ms": 3, "step": "close", "task": None, "node": "aa", "name": "aare", "text": "settled"},
]


def main() -> None:
    """Run as nexapod-daemon --home DIR until SIGTERM."""
    home = find_home(sys.argv[sys.argv.index("--home") + 1], {})
    print("stand-in: started", " ".join(sys.argv[1:]), flush=True)
    if trace := os.environ.get("STANDIN_TRACE"):
        with open(trace, "a") as file:
            file.write(f"{home.config}\n")
    if os.environ.get("STANDIN") == f"{home.config.name}-dies":
        sys.exit("stand-in: the disk is on fire")
    if os.environ.get("STANDIN") == "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: print("stand-in: draining", flush=True))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def names() -> list[str]:
        order = ["aare", "rhone", "inn", "doubs"]
        return [name for name in order if (home.config.parent / name / "run/daemon.pid").exists()]

    with serving(node_of_a_mesh(home, names)):
        home.pid_file.write_text(f"{os.getpid()}\n")
        while True:
            time.sleep(3600)
