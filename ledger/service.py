"""The ledger of one node: memory and disk kept in step, for the rest of the node to use.

Knows that events are checked, then written and synced, then taken into memory, one batch at a time. Must never know
peers, jobs or decisions.
"""

from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio

from ledger.order import causal
from ledger.replica import Applied, Fork, Plan, Replica
from ledger.store import Store
from nexapod.encoding import NotCanonical
from nexapod.errors import LocalError, PeerError
from nexapod.events import Event, open_event
from nexapod.limits import EVENTS_PER_PAGE, REPLY_BYTES_MAX
from nexapod.messages import EventsReply

T = TypeVar("T")

_THREADS = 2  # one writes or verifies, one reads meanwhile; more would only wait for the same disk
_RESTORE_BATCH = 4096  # events taken in at once when a ledger is opened
_REPLY_ROOM = 16  # envelope of a reply around its events
_EVENT_ROOM = 5  # length prefix of one event in a reply


class Ingested(NamedTuple):
    """What a batch from others came to: what changed, and what was refused."""

    applied: Applied
    refused: tuple[PeerError, ...]


class Ledger:
    """One node's ledger; made by `open_ledger`. `replica` is for reading."""

    def __init__(self, store: Store, replica: Replica) -> None:
        self._store, self.replica = store, replica
        self._writing = trio.Lock()
        self._limiter = trio.CapacityLimiter(_THREADS)

    # --- writing ---------------------------------------------------------------------------------------------------
    async def record(self, events: Sequence[Event], facts: Mapping[bytes, bytes | None]) -> Applied:
        """Write own events and private facts (None deletes) as one batch; on disk and in memory when it returns.

        Cancellation: before the write nothing has happened; once it began it finishes.
        Raises:
            AssertionError: the events do not extend this node's own feed.
            LocalError: the disk is full or fails.
        """
        async with self._writing:
            plan = await self._in_thread(partial(self.replica.plan, events))
            assert len(plan.stored) == len(events), f"own events do not extend the own feed: {plan.refusals}"
            return await self._commit(plan, facts)

    async def ingest(self, raws: Sequence[bytes]) -> Ingested:
        """Take in envelopes from others, of any feeds and in any order. Known ones cost a hash and no signature.

        The caller bounds the batch; all of it is verified in one thread call and written in one synced batch.
        Cancellation: as in `record`.
        Raises:
            LocalError: the disk is full or fails. Faults of the sender are returned, not raised.
        """
        async with self._writing:
            plan, malformed = await self._in_thread(partial(self._judge, tuple(raws)))
            applied = await self._commit(plan, {})
            return Ingested(applied, malformed + plan.refusals)

    def _judge(self, raws: tuple[bytes, ...]) -> tuple[Plan, tuple[PeerError, ...]]:
        events: list[Event] = []
        malformed: list[PeerError] = []
        for raw in dict.fromkeys(raws):
            try:
                events.append(open_event(raw, self.replica.netid))
            except NotCanonical as error:
                malformed.append(error)
        return self.replica.plan(events), tuple(malformed)

    async def _commit(self, plan: Plan, facts: Mapping[bytes, bytes | None]) -> Applied:
        if plan.stored or plan.forks or facts:
            with trio.CancelScope(shield=True):
                await self._in_thread(partial(self._store.write, plan.stored, facts, plan.forks))
        return self.replica.apply(plan)

    # --- reading ---------------------------------------------------------------------------------------------------
    async def facts(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        """Private facts whose key begins with `prefix`."""
        return await self._in_thread(partial(self._store.facts, prefix))

    async def events_page(self, feed: bytes, seq: int) -> EventsReply:
        """Events of one feed from `seq` on, as many as a reply may hold."""
        raws = await self._in_thread(
            partial(self._store.events_of, feed, seq, REPLY_BYTES_MAX - _REPLY_ROOM, EVENTS_PER_PAGE, _EVENT_ROOM)
        )
        return EventsReply(tuple(raws))

    async def event(self, event_id: bytes) -> Event | None:
        """One event by id."""
        raw = await self._in_thread(partial(self._store.event, event_id))
        return None if raw is None else open_event(raw, self.replica.netid)

    async def log(self, feed: bytes, after: int, limit: int) -> list[Event]:
        """At most `limit` events of one feed behind seq `after` (-1: from the first)."""
        raws = await self._in_thread(partial(self._store.events_of, feed, after + 1, REPLY_BYTES_MAX, limit))
        return [open_event(raw, self.replica.netid) for raw in raws]

    async def stored(self, kinds: Container[int]) -> list[Event]:
        """All events of these kinds, causes before effects."""
        return await self._in_thread(partial(self._of_kinds, kinds))

    def _of_kinds(self, kinds: Container[int]) -> list[Event]:
        opened = (open_event(raw, self.replica.netid) for _, _, raw in self._store.every_event())
        return causal(event for event in opened if event.kind in kinds)

    async def proof(self, feed: bytes) -> tuple[bytes, bytes] | None:
        """The two envelopes that prove a fork of `feed`, None when it has none."""
        fork = self.replica.forks.get(feed)
        if fork is None:
            return None
        kept = await self._in_thread(partial(self._store.event_at, feed, fork.seq))
        assert kept is not None
        return kept, fork.other.raw

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Never abandoned on cancellation (the default): a write that began is waited for.
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


@asynccontextmanager
async def open_ledger(
    path: Path, netid: bytes, witness_keys: frozenset[bytes] = frozenset(), threshold: int = 0
) -> AsyncIterator[Ledger]:
    """Open (or begin) the ledger at `path` and rebuild its state from the first event.

    Raises:
        LocalError: in use by another process, damaged, of another network or format, or the disk fails.
    """
    store = await trio.to_thread.run_sync(Store, path)
    try:
        replica = await trio.to_thread.run_sync(partial(restore, store, netid, witness_keys, threshold))
        yield Ledger(store, replica)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)


def restore(store: Store, netid: bytes, witness_keys: frozenset[bytes], threshold: int) -> Replica:
    """The state of a stored ledger. Blocks. Signatures are not checked again; `audit` does that.

    Raises:
        LocalError: the database belongs to another network or its events do not link.
    """
    store.bind(netid)
    replica = Replica(netid, witness_keys, threshold)
    try:
        for batch in _batches(store.every_event()):
            replica.restore([open_event(raw, netid) for _, _, raw in batch])
        for feed, seq, raw in store.every_fork():
            kept = replica.id_at(feed, seq)
            assert kept is not None, "a fork proof without the event it contradicts"
            replica.restore_fork(Fork(feed, seq, kept, open_event(raw, netid)))
    except PeerError as error:
        raise LocalError(f"{store.path} is damaged", error.what, "restore a backup, or move it away and sync") from None
    return replica


def _batches(rows: Iterable[tuple[bytes, int, bytes]]) -> Iterable[list[tuple[bytes, int, bytes]]]:
    batch: list[tuple[bytes, int, bytes]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _RESTORE_BATCH:
            yield batch
            batch = []
    yield batch
