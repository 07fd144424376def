"""The ledger of one node: memory and disk kept in step, for the rest of the node to use.

Knows that events are checked, then written and synced, then taken into memory, one batch at a time. Must never know
peers, jobs or decisions.
"""

import heapq
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio

from ledger.audit import Audit, audit
from ledger.layout import ID_BYTES
from ledger.order import causal
from ledger.replica import Applied, Fork, Plan, Replica
from ledger.store import Store
from nexapod.encoding import NotCanonical
from nexapod.errors import LocalError, PeerError
from nexapod.events import Event, open_event
from nexapod.limits import EVENTS_PER_PAGE, REPLY_BYTES_MAX
from nexapod.messages import EventsReply, Lock, Offer

T = TypeVar("T")

_THREADS = 2  # one writes or verifies, one reads meanwhile; more would only wait for the same disk
_RESTORE_BATCH = 4096  # events taken in at once when a ledger is opened
_REPLY_ROOM = 16  # envelope of a reply around its events
_EVENT_ROOM = 5  # length prefix of one event in a reply
_OF_OFFER_MAX = 65_536  # events of one offer a view holds at once: 10,000 tasks, each executed six times


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
        self._auditing = trio.CapacityLimiter(1)  # a thread of its own: an audit takes long and must delay nobody

    # --- writing ---------------------------------------------------------------------------------------------------
    async def record(self, events: Sequence[Event], facts: Mapping[bytes, bytes | None]) -> Applied:
        """Write own events and private facts (None deletes) as one batch; on disk and in memory when it returns.

        Cancellation: before the write nothing has happened; once it began it finishes.
        Raises:
            AssertionError: the events do not extend this node's own feed.
            LocalError: the own feed has forked, or the disk is full or fails.
        """
        async with self._writing:
            plan = await self._in_thread(partial(self.replica.plan, events, bounded=False))
            if any(event.feed in self.replica.forks for event in events):
                why = "it was continued in two ways, as after a backup was restored or a key was copied"
                raise LocalError("this node's own feed has forked", why, "begin anew: nexapod init with another --home")
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
        """Events of one feed from `seq` on, as many as a reply may hold; what contradicts them comes last."""
        fork = self.replica.forks.get(feed)
        proof = () if fork is None or seq > fork.seq else (fork.other.raw,)
        room = REPLY_BYTES_MAX - _REPLY_ROOM - sum(len(raw) + _EVENT_ROOM for raw in proof)
        raws = await self._in_thread(
            partial(self._store.events_of, feed, seq, room, EVENTS_PER_PAGE - len(proof), _EVENT_ROOM)
        )
        return EventsReply((*raws, *proof))

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

    # --- for people ------------------------------------------------------------------------------------------------
    async def newest(self, limit: int, until_ms: int = 2**63 - 1) -> list[Event]:
        """The newest events of all feeds by their authors' clocks, newest first.

        What claims to be from after `until_ms` comes last, so that a false clock cannot fill the first page for good.
        """
        return await self._in_thread(partial(self._newest, limit, until_ms))

    def _newest(self, limit: int, until_ms: int) -> list[Event]:
        def rank(ts: int) -> int:
            return ts if ts <= until_ms else -1

        # A feed's later event is taken for the newer one, so the feeds that wrote last hold what is sought.
        written = heapq.nlargest(limit, ((rank(ts), feed) for feed, ts in tuple(self.replica.written_ms.items())))
        todo = [(-ts, feed, self.replica.heads[feed].seq) for ts, feed in written]
        heapq.heapify(todo)
        found: list[Event] = []
        while todo and len(found) < limit:
            _, feed, seq = heapq.heappop(todo)
            raw = self._store.event_at(feed, seq)
            assert raw is not None
            found.append(open_event(raw, self.replica.netid))
            before = self._store.event_at(feed, seq - 1) if seq else None
            if before is not None:
                heapq.heappush(todo, (-rank(open_event(before, self.replica.netid).ts), feed, seq - 1))
        return found

    async def of_offer(self, offer_id: bytes, limit: int = _OF_OFFER_MAX) -> list[Event]:
        """All events that concern an offer, causes before effects; those of its publisher and judge first if too many.

        Sponsors' locks and what became of them are among them.
        """
        return await self._in_thread(partial(self._of_offer, offer_id, limit))

    def _of_offer(self, offer_id: bytes, limit: int) -> list[Event]:
        raw = self._store.event(offer_id)
        offer = None if raw is None else open_event(raw, self.replica.netid)
        judges: list[bytes] = []
        if offer is not None and isinstance(offer.data, Offer):
            judges = [feed for feed in (offer.feed, offer.data.steward) if feed is not None]
        places = (place for feed in (*judges, b"") for place in self._store.about(offer_id, feed))
        events = [self._at(place) for place in islice(dict.fromkeys(islice(places, 2 * limit)), limit)]
        locks = [event.id for event in events if isinstance(event.data, Lock)]
        more = (place for lock in locks for place in self._store.about(lock))
        return causal([*events, *map(self._at, islice(more, limit))])

    async def offers(self) -> list[Event]:
        """Every offer stored here, certified or not, causes before effects."""
        return await self._in_thread(self._offers)

    def _offers(self) -> list[Event]:
        raws = (self._store.event(subject) for subject in self._store.every_subject())
        opened = (open_event(raw, self.replica.netid) for raw in raws if raw is not None)
        return causal(event for event in opened if isinstance(event.data, Offer))

    async def find_ids(self, hex_prefix: str, limit: int) -> list[bytes]:
        """Ids of stored events that begin like this in hexadecimal; a feed is found by the id of its genesis."""
        try:
            first, last = (bytes.fromhex(hex_prefix.ljust(2 * ID_BYTES, digit)) for digit in "0f")
        except ValueError:
            return []
        return await self._in_thread(partial(self._store.ids, first, last, limit))

    async def audit(self) -> Audit:
        """Check every stored signature, link and verdict again, beside everything else; minutes for a long ledger.

        Cancellation: stops at the next batch.
        """
        certificate = self.replica.certificate
        work = partial(
            audit,
            self._store,
            self.replica.netid,
            certificate.witnesses,
            certificate.threshold,
            on_batch=trio.from_thread.check_cancelled,
        )
        return await trio.to_thread.run_sync(work, limiter=self._auditing)

    def _at(self, place: tuple[bytes, int]) -> Event:
        raw = self._store.event_at(*place)
        assert raw is not None, "an index points to nothing"
        return open_event(raw, self.replica.netid)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Never abandoned on cancellation (the default): a write that began is waited for.
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


@asynccontextmanager
async def open_ledger(
    path: Path, netid: bytes, witnesses: frozenset[bytes] = frozenset(), threshold: int = 0
) -> AsyncIterator[Ledger]:
    """Open (or begin) the ledger at `path` and rebuild its state from the first event.

    `witnesses`: ids of the witnesses' feeds, as they follow from the manifest.

    Raises:
        LocalError: in use by another process, damaged, of another network or format, or the disk fails.
    """
    store = await trio.to_thread.run_sync(Store, path)
    try:
        replica = await trio.to_thread.run_sync(partial(restore, store, netid, witnesses, threshold))
        yield Ledger(store, replica)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)


def restore(store: Store, netid: bytes, witnesses: frozenset[bytes], threshold: int) -> Replica:
    """The state of a stored ledger. Blocks. Signatures are not checked again; `audit` does that.

    Raises:
        LocalError: the database belongs to another network or its events do not link.
    """
    store.bind(netid)
    replica = Replica(netid, witnesses, threshold)
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
