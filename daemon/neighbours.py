"""The nodes around this one: introductions, the peer book, and looking for more of them.

Knows who is connected, who has said who it is, and where peers can be dialled. Must never know jobs or what events
mean. Everything a peer says here is checked; a breach is charged to it and costs it the connection when it is enough.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import trio

from bootstrap.address import PeerAddress
from bootstrap.peerbook import PeerBook, write_book
from daemon.blame import Blame
from daemon.connections import Connections
from daemon.host import Connected, Disconnected, Mesh
from daemon.nodes import Nodes
from daemon.transfer import ask_peer
from dht.advert import labels_for
from dht.service import Directory
from nexapod.errors import PeerError
from nexapod.limits import ADVERT_VALID_MS
from nexapod.messages import Advert, AskHello, HelloReply, Refused, Reply

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

GREETINGS = 4  # attempts to be introduced to a peer before it is hung up on: it speaks something else
GREET_AGAIN_S = 1.0  # first pause between them; doubles
LOOK_FIRST_S, LOOK_LAST_S = 2.0, 120.0  # pauses between two searches for nodes in the DHT; doubles
LOOK_S = 30.0  # one search
SAY_AGAIN_S = ADVERT_VALID_MS / 1000 / 4  # a neighbour hears of this node several times before its advert is forgotten
BOOK_EVERY_S = 0.5  # how soon a changed peer book is written: a node that dies finds its way back with it
ENGINE = "docker"  # the bucket of the DHT in which nodes that can work are looked for

Heard: TypeAlias = Callable[[bytes], Awaitable[None]]
log = logging.getLogger("nexapod.neighbours")


class Neighbours:
    """Introduces this node to its peers and finds new ones. `advert` gives its own signed advert."""

    def __init__(
        self, mesh: Mesh, connections: Connections, nodes: Nodes, directory: Directory, advert: Callable[[], bytes]
    ) -> None:
        self._mesh, self._connections, self._nodes = mesh, connections, nodes
        self._directory, self._advert = directory, advert
        self._blame = Blame()
        mesh.on_breach = self.blame
        self._introduced: set[bytes] = set()
        self._book, self._book_path, self._book_changed = PeerBook(), Path(), False
        self._changed = trio.Event()
        self.genesis = b""
        self.on_introduced: Heard = _ignore  # with the key of a peer that is connected and has said who it is

    def begin(self, genesis: bytes, book: PeerBook, book_path: Path) -> None:
        """Take the own genesis event and the peers known from before; call once, before `serve`."""
        self.genesis, self._book, self._book_path = genesis, book, book_path
        for peer in book.best_first():
            self._connections.learn(peer.key, peer.full_addresses(), keep=peer.pinned)

    def introduced(self) -> frozenset[bytes]:
        """Keys of the connected peers that have said who they are."""
        return frozenset(self._introduced)

    def pin(self, peers: tuple[PeerAddress, ...]) -> None:
        """Peers the operator named: they stay connected and in the book."""
        for peer in peers:
            self._book.learn(peer.key, [peer.transport], pinned=True)
            self._connections.learn(peer.key, [str(peer)], keep=True)
        self._book_changed = True

    # --- introductions ---------------------------------------------------------------------------------------------
    async def hello(self, key: bytes, ask: AskHello) -> Reply:
        """A peer's first words.

        Raises:
            PeerError: it is not who it says it is.
        """
        if ask.netid != self._nodes.netid:
            return Refused("other-network", f"this is network {self._nodes.netid.hex()[:12]}")
        await self._introduce(key, ask.genesis, ask.advert)
        return HelloReply(self.genesis, self._advert())

    async def _introduce(self, key: bytes, genesis: bytes, advert_raw: bytes) -> None:
        self._nodes.introduce(genesis, key)
        self.learn(advert_raw, by=key)
        if key not in self._introduced and key in self._mesh.connected():
            self._introduced.add(key)
            await self.on_introduced(key)

    def learn(self, advert_raw: bytes, by: bytes | None = None) -> Advert | None:
        """Take an advert from anywhere; `by` demands that it is this peer's own. Returns it when it was news.

        Raises:
            PeerError: not sound, or not that peer's.
        """
        advert = self._nodes.learn_advert(advert_raw, by)
        if advert is not None and advert.key != self._mesh.key and advert.addresses:
            self._connections.learn(advert.key, advert.addresses)
            self._book.learn(advert.key, [text.partition("/p2p/")[0] for text in advert.addresses])
            self._book_changed = True
        return advert

    async def blame(self, key: bytes, error: PeerError) -> None:
        """Charge a peer for a breach; when it has been enough, send it away for a while."""
        if self._blame.add(key, error.cost, trio.current_time()):
            log.warning("peer %s is sent away: %s", key.hex()[:12], error)
            await self._connections.send_away(key)

    # --- serving ---------------------------------------------------------------------------------------------------
    async def serve(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Greet whoever is connected, look for more, keep the book; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            nursery.start_soon(self._keep_book)
            nursery.start_soon(self._say_again)
            task_status.started()
            async for change in self._mesh.changes:
                match change:
                    case Connected(key, address, inbound):
                        if not inbound:
                            self._book.succeeded(key, address, time.time_ns() // 1_000_000)
                            self._book_changed = True
                        nursery.start_soon(self._greet, key)
                    case Disconnected(key):
                        self._introduced.discard(key)

    def advert_changed(self) -> None:
        """What this node lends has changed: neighbours and the DHT are told."""
        self._changed.set()
        self._directory.advert_changed()

    async def _say_again(self) -> None:
        """Keep the own advert fresh here and with the neighbours: when it changed, and before it counts as old."""
        while True:
            self._changed = trio.Event()
            self.learn(self._advert())
            for key in self.introduced():
                await ask_peer(self._mesh, key, AskHello(self._nodes.netid, self.genesis, self._advert()))
            with trio.move_on_after(SAY_AGAIN_S):
                await self._changed.wait()

    async def _greet(self, key: bytes) -> None:
        """Say hello until the peer has answered it or is gone."""
        pause = GREET_AGAIN_S
        for _ in range(GREETINGS):
            if key not in self._mesh.connected():
                return
            hello = AskHello(self._nodes.netid, self.genesis, self._advert())
            reply = await ask_peer(self._mesh, key, hello, blame=self.blame)
            match reply:
                case HelloReply(genesis, advert):
                    try:
                        await self._introduce(key, genesis, advert)
                        return
                    except PeerError as error:
                        await self.blame(key, error)
                case Refused("other-network"):
                    log.info("peer %s belongs to another network", key.hex()[:12])
                    self._connections.forget(key)
                    await self._mesh.disconnect(key)
                    return
            await trio.sleep(pause)
            pause *= 2
        if key not in self._introduced:
            log.info("peer %s does not introduce itself", key.hex()[:12])
            await self._mesh.disconnect(key)

    async def _look(self) -> None:
        """Find nodes in the DHT, often at first."""
        pause = LOOK_FIRST_S
        while True:
            await trio.sleep(pause)
            pause = min(pause * 2, LOOK_LAST_S)
            with trio.move_on_after(LOOK_S):
                for raw in await self._directory.find(labels_for(ENGINE, 0)):
                    try:
                        self.learn(raw)
                    except PeerError as error:  # the directory checks adverts; what changed since is nobody's breach
                        log.debug("advert from the DHT: %s", error)

    async def _keep_book(self) -> None:
        while True:
            await trio.sleep(BOOK_EVERY_S)
            await self.write_book()

    async def write_book(self) -> None:
        """Write the peer book if it changed."""
        if self._book_changed:
            self._book_changed = False
            try:
                await trio.to_thread.run_sync(partial(write_book, self._book_path, self._book))
            except OSError as error:  # the book is a cache of hints: without it this node finds its peers more slowly
                log.warning("the peer book could not be written: %s", error)


async def _ignore(key: bytes) -> None:
    """Nobody wants to know."""
