"""Telling everybody: four topics, an outbox, an inbox, and nothing that could be lost for good.

Knows topics and counts. Must never know what a payload means, or that somebody depends on it: gossip is a hint, sync
is the truth.
"""

import logging
import math
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, NamedTuple

import trio

from gossip.authors import Authors
from gossip.batch import MESSAGE_BYTES_MAX, Coalescer, decode_batch
from gossip.pubsub import Line
from nexapod.encoding import NotCanonical
from nexapod.errors import PeerError, Unavailable

TOPICS = ("proofs", "events", "offers", "claims")  # in this order when all have something to say
OUTBOX = 2048  # messages of one topic waiting to go out; when full the oldest is dropped and counted
INBOX = 4096  # messages waiting to be read here; when full the newest is dropped and counted
BREACHES = 256  # breaches of neighbours nobody was charged for yet; when full the newest is dropped

log = logging.getLogger("nexapod.gossip")


class Received(NamedTuple):
    """One payload, and the key of the node that published it (not of the one that passed it on)."""

    topic: str
    author: bytes
    payload: bytes


class Gossip:
    """Publish and receive on the topics of one network, over whatever libp2p host it rides."""

    def __init__(self, netid: bytes, *, drop_all: bool = False) -> None:
        """`drop_all`: say and hear nothing; all that matters must work without gossip."""
        self._drop_all = drop_all
        self._names = {f"/nexapod/{netid.hex()[:16]}/{topic}": topic for topic in TOPICS}
        self._outboxes: dict[str, deque[bytes]] = {topic: deque() for topic in TOPICS}
        self._coalescers = {topic: Coalescer() for topic in TOPICS}
        self._authors = Authors()
        self._wake = trio.Event()
        self.counts: Counter[str] = Counter()
        self._send_received, self.received = trio.open_memory_channel[Received](INBOX)
        self._send_breach, self.breaches = trio.open_memory_channel[tuple[bytes, PeerError]](BREACHES)

    def publish(self, topic: str, payload: bytes) -> None:
        """Say this to everybody, soon; never waits. The payload has 1 to 16,384 bytes."""
        assert 0 < len(payload) <= MESSAGE_BYTES_MAX, f"gossip message of {len(payload)} bytes"
        if self._drop_all:
            self.counts["dropped on purpose"] += 1
            return
        outbox = self._outboxes[topic]
        if len(outbox) >= OUTBOX:
            outbox.popleft()
            self.counts["dropped from the outbox"] += 1
        outbox.append(payload)
        self._wake.set()

    def ride(self, host: Any) -> AbstractAsyncContextManager[None]:
        """Gossip over this host: call before it listens, enter while it runs. What waits in the outbox goes out."""
        if self._drop_all:
            return _nothing()
        return self._riding(Line(host, tuple(self._names), self._admit, _unsound, self._charge))

    @asynccontextmanager
    async def _riding(self, line: Line) -> AsyncIterator[None]:
        async with line.running(self._deliver), trio.open_nursery() as nursery:
            nursery.start_soon(self._say, line)
            yield
            nursery.cancel_scope.cancel()

    async def _say(self, line: Line) -> None:
        """Empty the outboxes into batches, and send each batch when it is due."""
        while True:
            self._wake = trio.Event()
            due = math.inf
            for name, topic in self._names.items():
                now = trio.current_time()
                coalescer, outbox = self._coalescers[topic], self._outboxes[topic]
                batches = coalescer.flush(now)
                while outbox:
                    batches += coalescer.add(outbox.popleft(), now)
                for batch in batches:
                    await self._send(line, name, batch)
                due = min(due, coalescer.due or math.inf)
            if not any(self._outboxes.values()):
                with trio.move_on_at(due):
                    await self._wake.wait()

    async def _send(self, line: Line, name: str, batch: bytes) -> None:
        try:
            await line.publish(name, batch)
            self.counts["batches sent"] += 1
        except Unavailable as error:
            self.counts["batches refused by pubsub"] += 1
            log.debug("%s", error)

    def _admit(self, name: str, author: bytes, neighbour: bytes, data: bytes) -> bool:
        """Whether a batch is passed on and read: sound, of a known topic, author and neighbour within their rates."""
        try:
            messages = decode_batch(data)
        except NotCanonical as error:
            self.counts["not a batch"] += 1
            log.debug("gossip of %s: %s", author.hex()[:12], error)
            return False
        now = trio.current_time()
        if name not in self._names or not self._authors.allow(author, neighbour, len(messages), len(data), now):
            self.counts["refused"] += 1
            return False
        return True

    def _charge(self, neighbour: bytes, breach: PeerError) -> None:
        with suppress(trio.WouldBlock):
            self._send_breach.send_nowait((neighbour, breach))

    def _deliver(self, name: str, author: bytes, data: bytes) -> None:
        for payload in decode_batch(data):  # sound: it was admitted
            try:
                self._send_received.send_nowait(Received(self._names[name], author, payload))
                self.counts["received"] += 1
            except trio.WouldBlock:
                self.counts["dropped from the inbox"] += 1


def _unsound(data: bytes) -> str:
    """What is wrong with a batch by itself, empty when nothing is."""
    try:
        decode_batch(data)
    except NotCanonical as error:
        return error.what
    return ""


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield
