"""What peers ask on direct streams, and what they get.

Knows every question of messages.Ask and who may ask it. Must never decide about a job: what concerns one goes to the
core as news, and the core's reply goes back. A peer that has not introduced itself may look at the ledger, no more.
"""

import logging
from typing import Any, cast

import trio

from daemon.core.step import AssignmentHeard, ClaimHeard, GaveUp, OpeningsHeard, RenewalHeard
from daemon.loop import Loop
from daemon.neighbours import Neighbours
from daemon.nodes import Nodes
from daemon.transfer import Transfer
from ledger.service import Ledger
from nexapod.encoding import decode, encode
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.limits import REQUEST_BYTES_MAX
from nexapod.messages import (
    Ask,
    AskAssign,
    AskClaim,
    AskEvents,
    AskFrontier,
    AskGiveUp,
    AskHello,
    AskHolding,
    AskKeep,
    AskOpen,
    AskPing,
    AskRenew,
    Done,
    HoldingReply,
    Refused,
    Reply,
)

KEEP_S = 50.0  # fetching all blobs of one AskKeep; the asker waits a minute
KEPT_SHARE = 0.5  # of the blob store may be filled before nothing more is kept for others' offers

log = logging.getLogger("nexapod.requests")


class Requests:
    """Answers peers. `answer` is the service the mesh calls with each request."""

    def __init__(self, loop: Loop, ledger: Ledger, nodes: Nodes, neighbours: Neighbours, transfer: Transfer) -> None:
        self._loop, self._ledger, self._nodes = loop, ledger, nodes
        self._neighbours, self._transfer = neighbours, transfer

    async def answer(self, key: bytes, payload: bytes) -> bytes:
        """One request of the peer with this key; every breach of the protocol is answered and charged."""
        try:
            ask = cast(Ask, decode(payload, cast(Any, Ask), size_max=REQUEST_BYTES_MAX))
            reply = await self._reply(key, ask)
        except PeerError as error:
            log.debug("%s asked something wrong: %s", key.hex()[:12], error)
            await self._neighbours.blame(key, error)
            reply = Refused("malformed", _note(error.what))
        except Unavailable as error:
            reply = Refused("unavailable", _note(str(error)))
        return encode(reply)

    async def _reply(self, key: bytes, ask: Ask) -> Reply:
        match ask:
            case AskHello():
                return await self._neighbours.hello(key, ask)
            case AskPing():
                return Done()
            case AskFrontier():
                return self._ledger.replica.frontier.answer(ask)
            case AskEvents(feed, seq):
                return await self._ledger.events_page(feed, seq)
        asker = self._nodes.feed_of(key)
        if asker is None:
            return Refused("hello-first", "introduce yourself before you ask this")
        return await self._reply_to_known(asker, ask)

    async def _reply_to_known(self, feed: bytes, ask: Ask) -> Reply:
        match ask:
            case AskClaim(raw):
                claim = self._nodes.open_claim(raw)
                await self._loop.tell(ClaimHeard(claim))
                return Done()
            case AskAssign(raw):
                assignment, digest = self._nodes.open_assignment(raw)
                return await self._loop.reply_to(AssignmentHeard(assignment, digest))
            case AskRenew():
                return await self._loop.reply_to(RenewalHeard(feed, ask))
            case AskOpen():
                return await self._loop.reply_to(OpeningsHeard(feed, ask))
            case AskGiveUp():
                return await self._loop.reply_to(GaveUp(feed, ask))
            case AskHolding(blobs):
                return HoldingReply(self._transfer.held(blobs))
            case AskKeep(_, blobs):
                return await self._keep(feed, blobs)
            case _:
                raise PeerError(f"{type(ask).__name__} cannot be asked", section="streams", cost=1)

    async def _keep(self, feed: bytes, blobs: tuple[bytes, ...]) -> Reply:
        """Hold the blobs of somebody's offer, while there is plenty of room."""
        store = self._transfer.blobs
        key = self._nodes.key_of(feed)
        with trio.move_on_after(KEEP_S):
            try:
                for sha256 in blobs:
                    room = int(store.quota_bytes * KEPT_SHARE) - store.total_bytes
                    if room <= 0:
                        return Refused("no-room", "the room for others' blobs is taken")
                    await self._transfer.need(sha256, size_max=room, holders=[key] if key else [])
            except LocalError as error:
                return Refused("no-room", _note(error.what))
            return Done()
        return Refused("too-slow", "fetching the blobs took too long")


def _note(text: str) -> str:
    """Text as a message may carry it."""
    return "".join(char for char in text if char.isascii() and char.isprintable())[:200]
