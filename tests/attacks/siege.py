"""A real daemon under attack: the victim, an honest peer that measures it all the time, and what attackers are made of.

Every attack is a block: before it the honest peer's latency is taken as the measure, after it the same process must
be alive and answering, its memory bounded, and the honest peer served nearly as fast as before and never penalised.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import trio
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID

from bootstrap.setup import load_node
from daemon.host import open_host
from nexapod.events import make_genesis
from nexapod.identity import Key, key_of_peer_id, next_key_digest, peer_id
from nexapod.messages import AskHello, HelloReply
from tests.daemon.standing import LOOPBACK, PATIENCE_S, Stranger
from tests.process.mesh import ROOT, Node, new_mesh
from tests.process.mesh import eventually as eventually_in_process

ATTACK_S = 0.8  # how long a repeated attack goes on
LEAST_S = 0.8  # how long the honest peer is measured at least
MEASURE_S = 0.5  # how long the honest peer is measured before
RSS_MB = 64.0  # how much an attack may cost for a while
FACTOR, FLOOR_MS = 2.0, 50.0  # how much slower an honest answer may be: the factor, or this much where noise needs it
REPORTS: list[str] = []  # a line for each attack, printed at the end of the run


class HonestProcess:
    """The process of tests/attacks/honest.py."""

    def __init__(self, netid: bytes, victim: bytes, address: str) -> None:
        command = [sys.executable, "-m", "tests.attacks.honest", netid.hex(), victim.hex(), address]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        said = self._read()
        self.key, self.feed = bytes.fromhex(said["key"]), bytes.fromhex(said["feed"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the honest peer ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def order(self, do: str, **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()
        return self._read()

    async def tell(self, do: str, **more: Any) -> dict[str, Any]:
        return await trio.to_thread.run_sync(lambda: self.order(do, **more))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


@dataclass
class Siege:
    """One daemon process and who deals with it."""

    node: Node
    netid: bytes
    feed: bytes
    key: bytes
    address: str
    honest: HonestProcess
    restarts: int = 0  # of its host, so far
    peaks: list[float] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.split("/")[4])

    @property
    def process(self) -> psutil.Process:
        assert self.node.process is not None
        return psutil.Process(self.node.process.pid)

    def lives(self) -> bool:
        return self.node.process is not None and self.node.process.poll() is None

    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss) / 2**20

    async def peers(self) -> set[bytes]:
        """Keys of everybody the node is connected to."""
        rows = (await trio.to_thread.run_sync(lambda: self.node.get("/v1/peers")))["peers"]
        return {key_of_peer_id(row["peer"]) for row in rows}

    async def until_sent_away(self, key: bytes, within_s: float = 10.0) -> float:
        """Wait until a peer is no longer connected; the seconds it took."""
        began = trio.current_time()
        with trio.fail_after(within_s):
            while key in await self.peers():  # noqa: ASYNC110 - the daemon decides
                await trio.sleep(0.1)
        return trio.current_time() - began

    # --- an attack -------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def attack(self, name: str, *, rss_mb: float = RSS_MB, factor: float = FACTOR) -> AsyncIterator[None]:
        """The block is the attack; afterwards everything the protocol promises must still be so."""
        pid, before = self.process.pid, self.rss_mb()
        calm = await self._measured_calm()
        peak = [before]
        await self.honest.tell("begin")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, peak)
            yield
            await trio.sleep_until(began + LEAST_S)  # what an attack leaves behind counts as well
            nursery.cancel_scope.cancel()
        during = await self.honest.tell("report")
        self._judge(name, pid, before, max(peak), calm, during, rss_mb, factor)

    async def _measured_calm(self) -> float:
        await self.honest.tell("begin")
        await trio.sleep(MEASURE_S)
        calm = await self.honest.tell("report")
        assert calm["latencies"], "the node answered nobody even before the attack"
        return statistics.median(calm["latencies"]) * 1000

    async def _watch(self, peak: list[float]) -> None:
        while self.lives():
            peak[0] = max(peak[0], self.rss_mb())
            await trio.sleep(0.1)

    def _judge(
        self, name: str, pid: int, before: float, peak: float, calm_ms: float, during: dict[str, Any],
        rss_mb: float, factor: float,
    ) -> None:  # fmt: skip
        assert self.lives(), f"{name}: the daemon died\n{self.node.log()}"
        assert self.process.pid == pid
        assert self.node.api.alive("/livez"), f"{name}: the daemon no longer answers"
        assert during["latencies"], f"{name}: the honest peer got no answer"
        under_ms = statistics.median(during["latencies"]) * 1000
        grown = peak - before
        line = f"{name:58} RSS {before:5.1f} {grown:+6.1f} MB"
        line += f"   asked {calm_ms:6.1f} -> {under_ms:6.1f} ms   x{under_ms / calm_ms:.1f}"
        REPORTS.append(f"{line}   answered {len(during['latencies'])}, not {during['failed']}")
        print(REPORTS[-1])
        restarts = self.node.status()["network_restarts"]
        assert restarts == self.restarts, f"{name}: the network host died {restarts - self.restarts} times"
        assert grown < rss_mb, f"{name}: {grown:.0f} MB more, at most {rss_mb:.0f}"
        assert under_ms < max(factor * calm_ms, calm_ms + FLOOR_MS), line
        assert during["connected"], f"{name}: the honest peer was hung up on"
        assert during["failed"] <= 0.05 * len(during["latencies"]), line


# --- putting one up ---------------------------------------------------------------------------------------------------
@contextmanager
def besieged(
    *flags: str, program: Sequence[str] = (), prepare: Callable[[Node], None] | None = None
) -> Iterator[Siege]:
    """A daemon that founded its own network, and an honest peer that has introduced itself to it."""
    with new_mesh() as mesh:
        node = mesh.add("victim", "--engine", "none", *flags, program=program, network="lab")
        if prepare is not None:
            prepare(node)
        mesh.start(node)
        status = node.status()
        own = load_node(node.home)
        address = str(status["addresses"][0])
        honest = HonestProcess(own.netid, own.key.public, address)
        try:
            eventually_in_process(lambda: node.status()["peers"] >= 1, "the honest peer is introduced")
            yield Siege(node, own.netid, own.feed, own.key.public, address, honest)
        finally:
            honest.end()


# --- attackers --------------------------------------------------------------------------------------------------------
async def repeat(step: Callable[[], Awaitable[object]], seconds: float = ATTACK_S, *, per_s: float = 200.0) -> int:
    """Do something again and again, not faster than `per_s`; how often it was done."""
    began, done = trio.current_time(), 0
    while trio.current_time() < began + seconds:
        await step()
        done += 1
        await trio.sleep_until(began + done / per_s)
    return done


async def go_on(seconds: float) -> None:
    """Let an attack that needs no more doing go on for a while."""
    await trio.sleep(seconds)


@asynccontextmanager
async def attacker(siege: Siege, *, introduced: bool = True, netid: bytes | None = None) -> AsyncIterator[Stranger]:
    """A peer with a fresh key that is connected to the victim, and has said hello like an honest one."""
    key, network = Key.fresh(), netid or siege.netid
    genesis = make_genesis(key, network, next_key_digest(Key.fresh().public))
    async with open_host(key.seed, LOOPBACK) as mesh:
        made = Stranger(network, key, mesh, genesis=genesis.raw, feed=genesis.feed)
        mesh.serve_requests(made.answer)
        await mesh.connect(siege.key, [siege.address])
        if introduced:
            reply = await made.ask(siege.key, AskHello(network, made.genesis, made.advert()))
            assert isinstance(reply, HelloReply), reply
        yield made


def library_host(peer: Stranger) -> Any:
    assert peer.mesh._life is not None
    return peer.mesh._life.host


def library_id(key: bytes) -> Any:
    return ID.from_base58(peer_id(key))


def muxed(peer: Stranger, siege: Siege) -> Any:
    """The attacker's end of the yamux connection to the victim."""
    return library_host(peer).get_network().get_connections(library_id(siege.key))[0].muxed_conn


async def open_raw(peer: Stranger, siege: Siege, protocol: str | None) -> Any:
    """A stream to the victim, negotiated or not."""
    if protocol is None:
        return await library_host(peer).get_network().new_stream(library_id(siege.key))
    return await library_host(peer).new_stream(library_id(siege.key), [TProtocol(protocol)])


async def send_raw(peer: Stranger, siege: Siege, protocol: str | None, data: bytes) -> None:
    """Send these bytes on a new stream and wait until the victim has ended it, which it must."""
    with trio.fail_after(PATIENCE_S):
        try:
            stream = await open_raw(peer, siege, protocol)
            await stream.write(data)
            await stream.close_write()
            while await stream.read(65536):
                pass
        except (StreamError, StreamEOF):
            return
        except Exception as error:
            if "closed" not in str(error).lower() and "stream" not in type(error).__name__.lower():
                raise


@asynccontextmanager
async def raw_sockets(siege: Siege, count: int, source: str) -> AsyncIterator[list[trio.SocketStream]]:
    """So many TCP connections to the victim from another loopback address."""
    streams: list[trio.SocketStream] = []
    try:
        for _ in range(count):
            sock = trio.socket.socket()
            await sock.bind((source, 0))
            await sock.connect(("127.0.0.1", siege.port))
            streams.append(trio.SocketStream(sock))
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def ended(stream: trio.SocketStream) -> bool:
    """Read to the end of a socket the victim closes."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some(65536):
            pass
    return True
