"""The pull path of the ledger: ask each neighbour what it has and fetch what is missing here.

Knows when a round is due and with whom. Must never know what events mean; the ledger says what to ask for. Gossip
only makes this faster: with every gossip message lost, all events still arrive within a few rounds.
"""

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import trio

from daemon.host import Mesh
from daemon.loop import Loop
from daemon.neighbours import Neighbours
from daemon.transfer import ask_peer
from ledger.service import Ledger
from nexapod.errors import PeerError, Unavailable
from nexapod.limits import SYNC_MS
from nexapod.messages import AskEvents, AskFrontier, EventsReply, FrontierReply, Reply

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

QUIET_MS = 5 * SYNC_MS  # pause between rounds with a neighbour that has had nothing new for a while
PAGES_MAX = 64  # frontier pages of one round; what is left comes with the next
EVENT_PAGES_MAX = 1024  # pages of one feed in one round

log = logging.getLogger("nexapod.sync")


class Sync:
    """Rounds with every introduced neighbour. `hasty`: never slow down, because there is no gossip to hint."""

    def __init__(self, mesh: Mesh, loop: Loop, ledger: Ledger, neighbours: Neighbours, *, hasty: bool) -> None:
        self._mesh, self._loop, self._ledger, self._neighbours = mesh, loop, ledger, neighbours
        self._hasty = hasty
        self._with: set[bytes] = set()  # neighbours a task makes rounds with
        self._start: Callable[[bytes], None] = lambda key: None
        self.rounds = 0

    def introduced(self, key: bytes) -> None:
        """A neighbour has said who it is: make rounds with it."""
        if key not in self._with:
            self._with.add(key)
            self._start(key)

    async def serve(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Make rounds until cancelled."""
        async with trio.open_nursery() as nursery:
            self._start = lambda key: nursery.start_soon(self._rounds, key)
            task_status.started()
            await trio.sleep_forever()

    async def _rounds(self, key: bytes) -> None:
        pause_ms = SYNC_MS
        try:
            while key in self._neighbours.introduced():
                news = await self._round(key)
                pause_ms = SYNC_MS if news or self._hasty else min(pause_ms + SYNC_MS, QUIET_MS)
                await trio.sleep(pause_ms / 1000)
        finally:
            self._with.discard(key)

    async def _round(self, key: bytes) -> bool:
        """One exchange with one neighbour; whether it had anything for us."""
        self.rounds += 1
        replica, news, after = self._ledger.replica, False, b""
        for _ in range(PAGES_MAX):
            reply = await self._ask(key, AskFrontier(replica.frontier_root(), after))
            if not isinstance(reply, FrontierReply):
                return news
            if not _in_order(reply, after):
                breach = PeerError("a page of the frontier is not in order", section="streams: questions", cost=10)
                await self._neighbours.blame(key, breach)
                return news
            for ask in replica.wants(reply):
                news |= await self._fetch(key, ask)
            if not reply.more or not reply.heads:
                return news
            after = reply.heads[-1].feed
        return news

    async def _fetch(self, key: bytes, ask: AskEvents) -> bool:
        """Events of one feed, page by page, until there are no new ones; whether there was any."""
        news = False
        for _ in range(EVENT_PAGES_MAX):
            reply = await self._ask(key, ask)
            if not isinstance(reply, EventsReply) or not reply.events:
                return news
            try:
                ingested = await self._loop.ingest(reply.events)
            except Unavailable as error:
                log.debug("%s", error)
                return news
            for breach in ingested.refused:
                await self._neighbours.blame(key, breach)
            if ingested.refused or not ingested.applied.stored:
                return news
            news = True
            head = self._ledger.replica.heads.get(ask.feed)
            if head is None or head.seq < ask.seq + len(reply.events) - 1:
                return news
            ask = AskEvents(ask.feed, head.seq + 1)
        return news

    async def _ask(self, key: bytes, question: AskFrontier | AskEvents) -> Reply | None:
        return await ask_peer(self._mesh, key, question, blame=self._neighbours.blame)


def _in_order(page: FrontierReply, after: bytes) -> bool:
    feeds = [after, *(head.feed for head in page.heads)]
    return all(earlier < later for earlier, later in pairwise(feeds))
