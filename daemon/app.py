"""One node, put together: the one root nursery, every part made and started in order, and ended in reverse.

Knows all rooms. Must never decide anything. What ends it: a signal, or an error no part could deal with; then the
record on disk is what the next start goes on from.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import trio

from bootstrap.manifest import member_names, witness_feeds
from bootstrap.peerbook import read_book
from bootstrap.setup import Node
from daemon.connections import Connections
from daemon.core.author import Author
from daemon.core.node import FACT_PREFIXES, NodeCore
from daemon.core.states import DutyState
from daemon.core.step import CapacityChanged, ClaimHeard, DescriptorHeld, PeerCame
from daemon.errands import Errands
from daemon.host import Mesh
from daemon.lending import GB, Lending, OwnAdvert
from daemon.local.api import make_api
from daemon.local.desk import Desk
from daemon.local.server import serve_local
from daemon.loop import Loop, now
from daemon.neighbours import Neighbours
from daemon.nodes import Nodes
from daemon.parts import Parts
from daemon.ports import remember_ports, same_ports
from daemon.publishing import Publisher
from daemon.requests import Requests
from daemon.sync import Sync
from daemon.transfer import Transfer
from dht.service import Directory
from gossip.service import Gossip
from ledger.replica import Fork
from ledger.service import Ledger, open_ledger
from nexapod.config import Config
from nexapod.errors import PeerError, Unavailable
from nexapod.events import Event, make_genesis
from nexapod.home import Home
from nexapod.limits import EXECUTIONS_HELD_MAX
from nexapod.messages import Offer
from runtime.blobs import BlobStore
from runtime.docker import DockerEngine
from runtime.engine import Engine
from runtime.hardware import probe
from runtime.service import Runner

LOOK_S = 20.0  # how often engines are looked at again: one may come or go, an image may have been loaded
GOSSIP_BATCH = 512  # gossiped events verified and written together

DRAIN_LOOK_S = 0.1  # how often it is looked whether the last task is done
GIVE_BACK_S = 3.0  # telling owners of tasks that are given back; those not told find out when the lease ends
_OWED = (DutyState.RUNNING, DutyState.COMMITTED, DutyState.SEALED)  # finished within the drain, or given back

MakeEngines: TypeAlias = Callable[[Home, Config, Node], dict[str, Engine]]
log = logging.getLogger("nexapod.daemon")


def engines_of(home: Home, config: Config, node: Node) -> dict[str, Engine]:
    """What runs tasks on this machine, as the settings say."""
    if config.engine in ("auto", "docker"):
        return {"docker": DockerEngine(node=node.feed.hex(), scratch=home.work_dir)}
    return {}


@dataclass
class Ending:
    """How a node is asked to end: `soon` lets running tasks finish, `now` gives them back."""

    soon: trio.Event = field(default_factory=trio.Event)
    now: trio.Event = field(default_factory=trio.Event)


async def run(
    home: Home, config: Config, ending: Ending, desk: Desk | None = None, engines: MakeEngines = engines_of
) -> None:
    """Run the node of this home until it is asked to end. Whoever hands in the desk sees the node stand.

    Raises:
        LocalError: something it cannot work without is missing or broken.
    """
    desk = desk or Desk(home, config)
    async with trio.open_nursery() as root:
        await root.start(serve_local, make_api(desk), home)
        root.start_soon(_stand_until_stopped, home, config, desk, engines)
        await ending.soon.wait()
        if desk.parts is not None:
            await _withdraw(desk.parts, ending)
        root.cancel_scope.cancel()


async def _withdraw(parts: Parts, ending: Ending) -> None:
    """Promise nothing more, let tasks finish, give back those that take too long, and keep the peer book."""
    parts.lending.stopping = True
    with trio.move_on_after(parts.lending.config.drain_s):
        await parts.loop.tell(CapacityChanged(parts.lending.capacity(now().mono_ms / 1000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, ending.now, nursery.cancel_scope)
            while any(duty.state in _OWED for duty in parts.core.worker.duties.all()):  # noqa: ASYNC110 - once in a life
                await trio.sleep(DRAIN_LOOK_S)
            nursery.cancel_scope.cancel()
    with trio.move_on_after(GIVE_BACK_S):
        await parts.errands.give_back("this node was stopped by its owner")
        await parts.neighbours.write_book()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _stand_until_stopped(home: Home, config: Config, desk: Desk, engines: MakeEngines) -> None:
    node = await desk.node()
    assert node.manifest is not None, "a node stands on a network"
    witnesses = witness_feeds(node.manifest)
    async with (
        open_ledger(home.ledger_dir, node.netid, witnesses, node.manifest.threshold) as ledger,
        _runner(home, config, engines(home, config, node)) as (runner, lending),
    ):
        await _stand(node, ledger, runner, lending, desk, home)


@asynccontextmanager
async def _runner(home: Home, config: Config, engines: dict[str, Engine]) -> AsyncIterator[tuple[Runner, Lending]]:
    """The engines of this machine, swept clean of an earlier life, and what they lend."""
    machine = await trio.to_thread.run_sync(probe, home.data)
    blobs = await trio.to_thread.run_sync(BlobStore, home.blobs_dir, config.disk_gb * GB)
    runner = Runner(engines, blobs, EXECUTIONS_HELD_MAX)  # the core counts slots, which may change meanwhile
    lending = Lending(config, machine, await runner.start())
    for info in lending.engines:
        log.info("engine %s %s: %s", info.name, info.version, "ready" if info.ready else info.why)
    try:
        yield runner, lending
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await runner.aclose()


async def _stand(node: Node, ledger: Ledger, runner: Runner, lending: Lending, desk: Desk, home: Home) -> None:
    """Make the parts of a node on its network and run them until cancelled."""
    assert node.manifest is not None, "a node stands on a network"
    config = lending.config
    genesis = make_genesis(node.key, node.netid, node.next_key_digest)
    if node.feed not in ledger.replica.heads:
        await ledger.record([genesis], {})
    own = OwnAdvert(node.key, node.netid, node.feed)
    gossip = Gossip(node.netid, drop_all=not config.gossip)
    directory = Directory(node.netid, lambda: own.raw(lending, mesh.addresses(), now(), anew=True))
    mesh = Mesh(node.key.seed, same_ports(config.listen, home.ports_file), riders=[gossip.ride, directory.ride])
    connections = Connections(mesh)
    nodes = Nodes(node.netid, lambda: now().mono_ms)
    neighbours = Neighbours(mesh, connections, nodes, directory, lambda: own.raw(lending, mesh.addresses(), now()))
    transfer = Transfer(mesh, runner.blobs, directory)
    errands = Errands(node.key, mesh, nodes, transfer, runner)
    core = await _restore_core(node, ledger, lending)
    loop = Loop(core, ledger, node.feed, witness=node.feed in ledger.replica.certificate.witnesses)
    publisher = Publisher(loop, errands, transfer, runner, nodes, neighbours, directory)
    sync = Sync(mesh, loop, ledger, neighbours, hasty=not config.gossip)
    requests = Requests(loop, ledger, nodes, neighbours, transfer)
    parts = Parts(
        home, node, mesh, connections, nodes, neighbours, ledger, loop, core, errands, transfer, lending, publisher,
        directory, member_names(node.manifest),
    )  # fmt: skip

    async def introduced(key: bytes) -> None:
        sync.introduced(key)
        feed = nodes.feed_of(key)
        assert feed is not None, "whoever is introduced has a feed"
        await loop.tell(PeerCame(feed))

    nodes.remember(node.key.public, node.feed)
    errands.connect(loop.tell, gossip.publish, lending.profile.flops // max(1, lending.profile.cores))
    neighbours.begin(genesis.raw, await trio.to_thread.run_sync(read_book, home.peerbook_file), home.peerbook_file)
    neighbours.on_introduced = introduced
    loop.on_own_events = partial(_gossip_events, gossip)
    loop.on_forks = partial(_gossip_forks, gossip)
    mesh.serve_requests(requests.answer)
    transfer.serve()

    async with trio.open_nursery() as nursery:
        await nursery.start(mesh.serve)
        remember_ports(mesh.listening(), home.ports_file)
        await nursery.start(loop.serve, errands.perform)
        await nursery.start(sync.serve)
        await nursery.start(neighbours.serve)
        await nursery.start(connections.serve)
        nursery.start_soon(_listen, gossip, parts)
        nursery.start_soon(_charge, gossip, parts)
        nursery.start_soon(_look_at_engines, parts, runner)
        desk.parts = parts
        log.info("node %s stands on network %s at %s", node.peer, node.netid.hex()[:12], ", ".join(mesh.addresses()))


async def _restore_core(node: Node, ledger: Ledger, lending: Lending) -> NodeCore:
    """The core as its record left it."""
    head = ledger.replica.heads[node.feed]
    author = Author(node.key, node.netid, node.feed, seq=head.seq, head=head.id)
    capacity = lending.capacity(now().mono_ms / 1000)
    replica, lease_ms = ledger.replica, lending.config.lease_ms
    core = NodeCore(author, capacity, lease_ms=lease_ms, operators=replica.operators, firm=replica.firm)
    facts: dict[bytes, bytes] = {}
    for prefix in FACT_PREFIXES:
        facts |= await ledger.facts(prefix)
    core.restore(facts)
    return core


# --- gossip in and out ------------------------------------------------------------------------------------------------
def _gossip_events(gossip: Gossip, events: Sequence[Event]) -> None:
    for event in events:
        gossip.publish("offers" if isinstance(event.data, Offer) else "events", event.raw)


def _gossip_forks(gossip: Gossip, forks: Sequence[Fork]) -> None:
    """Tell of a contradiction: with the event everybody has, the other one is the proof."""
    for fork in forks:
        gossip.publish("proofs", fork.other.raw)


async def _listen(gossip: Gossip, parts: Parts) -> None:
    """Take in what others gossip: events in batches, claims one by one."""
    async for first in gossip.received:
        heard = [first]
        while len(heard) < GOSSIP_BATCH:
            try:
                heard.append(gossip.received.receive_nowait())
            except trio.WouldBlock:
                break
        events = [(item.author, item.payload) for item in heard if item.topic != "claims"]
        if events:
            await _hear_events(events, parts)
        for item in heard:
            if item.topic == "claims":
                await _hear_claim(item.author, item.payload, parts)


async def _hear_events(events: list[tuple[bytes, bytes]], parts: Parts) -> None:
    """Events with who signed the message they came in: the author, not whoever passed it on, answers for them."""
    try:
        ingested = await parts.loop.ingest([raw for _, raw in events])
        if not any(breach.cost for breach in ingested.refused):
            return
        for author in dict.fromkeys(author for author, _ in events):
            alone = await parts.loop.ingest([raw for by, raw in events if by == author])  # what is known costs a hash
            for breach in alone.refused:
                log.debug("gossiped event: %s", breach)
                await parts.neighbours.blame(author, breach)
    except Unavailable as error:
        log.debug("%s", error)


async def _charge(gossip: Gossip, parts: Parts) -> None:
    """Neighbours that passed on what no honest one does answer for it."""
    async for neighbour, breach in gossip.breaches:
        await parts.neighbours.blame(neighbour, breach)


async def _hear_claim(author: bytes, raw: bytes, parts: Parts) -> None:
    try:
        await parts.loop.tell(ClaimHeard(parts.nodes.open_claim(raw)))
    except PeerError as error:
        await parts.neighbours.blame(author, error)
    except Unavailable as error:  # somebody not met yet; the owner gets the claim on a stream as well
        log.debug("claim: %s", error)


# --- what is lent -----------------------------------------------------------------------------------------------------
async def _look_at_engines(parts: Parts, runner: Runner) -> None:
    """Notice engines that come and go, images that were loaded, and a pause that is over."""
    lending = parts.lending
    while True:
        moment = now().mono_ms / 1000
        pause_s = lending.paused_until - moment if lending.is_paused(moment) else LOOK_S
        lending.changed = trio.Event()
        with trio.move_on_after(min(LOOK_S, max(pause_s, 0.0) + 0.01)):
            await lending.changed.wait()
        lending.engines = await runner.probe()
        capacity = lending.capacity(now().mono_ms / 1000)
        if capacity != parts.core.worker.capacity:
            await parts.loop.tell(CapacityChanged(capacity))
            parts.neighbours.advert_changed()
        for offer, seen in list(parts.core.worker.offers.items()):
            if seen.descriptor is None or seen.image_here:
                continue
            if await parts.errands.image_here(seen.descriptor):
                await parts.loop.tell(DescriptorHeld(offer, seen.descriptor, True))
