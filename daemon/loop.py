"""The one task that owns the core: take news, record the step, then do what it says.

Knows the order that makes a promise safe: nothing is sent or answered before the record of it is synced to disk. Must
never decide anything itself. When the disk refuses a record, the loop halts: from then on this node promises and
acknowledges nothing, but what it has can still be read. The core is then ahead of its record, so only a restart mends.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from daemon.core.node import NodeCore
from daemon.core.step import AcksDue, Effect, Forked, Heard, News, Now, Resumed, Step, Woke
from ledger.replica import Applied, Fork
from ledger.service import Ingested, Ledger
from ledger.witness import due
from nexapod.errors import LocalError, Unavailable
from nexapod.events import Event
from nexapod.messages import Close, Kind, Offer, Reply

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

INBOX = 1024  # news waiting for the core; when full the sender waits, each under a deadline of its own
BATCH = 64  # news recorded by one synced write; more would make the first of them wait
ACK_PAUSE_S = 0.05  # heads to acknowledge gather this long, so that one event acknowledges many

_CONCERN_THE_CORE = frozenset({Kind.OFFER, Kind.COMMIT, Kind.SEAL, Kind.SETTLE, Kind.VOID, Kind.CLOSE})

Perform: TypeAlias = Callable[[Effect], Awaitable[None]]
log = logging.getLogger("nexapod.loop")


@dataclass(slots=True)
class Delivery:
    """One piece of news on its way to the core; `step` is set and `done` rung once its record is safe."""

    news: News
    done: trio.Event = field(default_factory=trio.Event)
    step: Step | None = None  # None when it is done: this node writes nothing more


class Loop:
    """Feeds the core and performs its steps."""

    def __init__(self, core: NodeCore, ledger: Ledger, feed: bytes, witness: bool) -> None:
        self._core, self._ledger, self._feed, self._witness = core, ledger, feed, witness
        self._send, self._receive = trio.open_memory_channel[Delivery](INBOX)
        self._ingesting = trio.Lock()
        self.halted: LocalError | None = None  # why this node writes nothing more
        self._grown = trio.Event()
        self._told = trio.Event()
        self.on_own_events: Callable[[Sequence[Event]], None] = _unheard
        self.on_forks: Callable[[Sequence[Fork]], None] = _unheard

    # --- news ------------------------------------------------------------------------------------------------------
    async def tell(self, news: News) -> None:
        """Hand news to the core; returns once it is queued."""
        await self._send.send(Delivery(news))

    async def ask(self, news: News) -> Step:
        """Hand news to the core; returns once the record of what followed is synced to disk.

        Raises:
            Unavailable: this node writes nothing more; nothing of it happened.
        """
        delivery = Delivery(news)
        await self._send.send(delivery)
        await delivery.done.wait()
        if delivery.step is None:
            raise Unavailable(f"this node writes nothing more: {self.halted}")
        return delivery.step

    async def reply_to(self, news: News) -> Reply:
        """As `ask`, for news that a peer waits for.

        Raises:
            Unavailable: as `ask`.
        """
        step = await self.ask(news)
        assert step.reply is not None, f"{type(news).__name__} was not answered"
        return step.reply

    async def ingest(self, raws: Sequence[bytes]) -> Ingested:
        """Check and store events of other feeds, then tell the core those that concern it, in order.

        Raises:
            Unavailable: this node writes nothing more.
        """
        async with self._ingesting:
            if self.halted is None:
                try:
                    ingested = await self._ledger.ingest(raws)
                except LocalError as error:
                    self._halt(error)
            if self.halted is not None:
                raise Unavailable(f"this node writes nothing more: {self.halted}")
            for fork in ingested.applied.forks:
                await self.tell(Forked(fork.feed))
            for event in ingested.applied.stored:
                if event.feed != self._feed and event.kind in _CONCERN_THE_CORE:
                    await self.tell(Heard(event))
        self._noticed(ingested.applied)
        return ingested

    def grown(self) -> trio.Event:
        """An event that rings when the ledger has grown since this call."""
        return self._grown

    def told(self) -> trio.Event:
        """An event that rings when the story of an own job has grown since this call."""
        return self._told

    # --- the loop --------------------------------------------------------------------------------------------------
    async def serve(self, perform: Perform, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Effects run as tasks of their own; what comes of them is news."""
        async with trio.open_nursery() as nursery:
            await self._tell_stored(nursery, perform)
            nursery.start_soon(self._acknowledge)
            await self._turn([Delivery(Resumed())], nursery, perform)
            task_status.started()
            while True:
                await self._turn(await self._next_batch(), nursery, perform)

    async def _next_batch(self) -> list[Delivery]:
        wake_at = self._core.wake_at if self.halted is None else None
        batch: list[Delivery] = []
        with trio.move_on_after(max(wake_at - now().mono_ms, 0) / 1000) if wake_at is not None else _whenever():
            batch.append(await self._receive.receive())
        if not batch:
            return [Delivery(Woke())]
        while len(batch) < BATCH:
            try:
                batch.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                break
        return batch

    async def _turn(self, batch: list[Delivery], nursery: trio.Nursery, perform: Perform) -> None:
        events: list[Event] = []
        facts: dict[bytes, bytes | None] = {}
        if self.halted is not None:
            _give_up(batch)
            return
        for delivery in batch:
            delivery.step = self._core.handle(delivery.news, now())
            events += delivery.step.events
            facts |= delivery.step.facts
        if events or facts:
            try:
                self._noticed(await self._ledger.record(events, facts))
            except LocalError as error:
                self._halt(error)
                _give_up(batch)
                return
        if events:
            self.on_own_events(events)
        for delivery in batch:
            assert delivery.step is not None
            delivery.done.set()
            if delivery.step.story:
                self._told.set()
                self._told = trio.Event()
            for effect in delivery.step.effects:
                nursery.start_soon(perform, effect)

    async def _tell_stored(self, nursery: trio.Nursery, perform: Perform) -> None:
        """After a restart: what is stored and concerns open jobs may not have reached the core before."""
        for feed in tuple(self._ledger.replica.forks):
            await self._turn([Delivery(Forked(feed))], nursery, perform)
        stored = [event for event in await self._ledger.stored(_CONCERN_THE_CORE) if event.feed != self._feed]
        owner = {event.id: event.feed for event in stored if isinstance(event.data, Offer)}
        closed = [(event.feed, event.data.offer) for event in stored if isinstance(event.data, Close)]
        over = {offer for feed, offer in closed if owner.get(offer) == feed}  # a stranger's close means nothing
        for event in stored:
            offer = event.id if isinstance(event.data, Offer) else getattr(event.data, "offer", b"")
            if offer not in over:
                await self._turn([Delivery(Heard(event))], nursery, perform)

    # --- acknowledging ---------------------------------------------------------------------------------------------
    async def _acknowledge(self) -> None:
        """A witness acknowledges what is safe on its disk."""
        while self._witness:
            grown = self._grown
            entries = due(self._ledger.replica, self._feed)
            try:
                await (self.ask(AcksDue(entries)) if entries else grown.wait())
            except Unavailable:
                return
            await trio.sleep(ACK_PAUSE_S)

    def _halt(self, error: LocalError) -> None:
        if self.halted is None:
            self.halted = error
            log.critical("this node writes nothing more: %s; next: %s", error, error.next_step)

    def _noticed(self, applied: Applied) -> None:
        if applied.forks:
            self.on_forks(applied.forks)
        if applied.stored:
            self._grown.set()
            self._grown = trio.Event()


def now() -> Now:
    """This moment by both clocks."""
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


def _whenever() -> trio.CancelScope:
    return trio.CancelScope()


def _give_up(batch: Sequence[Delivery]) -> None:
    """Let everybody who waits for these know that nothing came of them."""
    for delivery in batch:
        delivery.step = None
        delivery.done.set()


def _unheard(happened: object) -> None:
    """Nobody wants to know."""
