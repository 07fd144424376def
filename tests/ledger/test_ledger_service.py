"""One node's ledger: disk and memory in step, whatever comes and whoever gives up."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from ledger.replica import Replica
from ledger.service import Ledger, open_ledger
from ledger.store import Store
from nexapod.encoding import encode
from nexapod.errors import LocalError, PeerError
from nexapod.events import Event, make_event
from nexapod.hashing import blob_id
from nexapod.limits import ENTRIES_MAX, EVENTS_PER_PAGE, REPLY_BYTES_MAX
from nexapod.messages import Close, Commit, CommitEntry, Kind, Lock, Release, Report, Settle
from tests.ledger.scribe import NETID, PRICE, Scribe, commit, everything, offer_of, seal, walk

REMARK = Report(bytes(32), 0, "")
OTHER = Report(bytes(32), 1, "")


def raws(events: Iterable[Event]) -> list[bytes]:
    return [event.raw for event in events]


async def in_step(ledger: Ledger) -> None:
    """Assert that a replica read back from disk equals the one in memory."""
    ledger.replica.check_invariants()
    certificate = ledger.replica.certificate
    again = Replica(NETID, certificate.witnesses, certificate.threshold)
    again.restore([event for feed in ledger.replica.heads for event in await ledger.log(feed, -1, 10**6)])
    assert again.heads == ledger.replica.heads
    assert again.fold.state_root() == ledger.replica.fold.state_root()


# --- writing ---------------------------------------------------------------------------------------------------------
async def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.record(owner.events, {b"seed": b"s"})
        await ledger.ingest(raws(everything(ann, bob)))
        walk(owner, (ann, bob))
        await ledger.record(owner.events[1:2], {b"seed": None, b"lease": b"l"})
        await ledger.ingest(raws(everything(ann, bob)))
        applied = await ledger.record(owner.events[2:], {})
        assert applied.stored == tuple(owner.events[2:])
        state, frontier = ledger.replica.fold.state_root(), ledger.replica.frontier_root()
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        assert ledger.replica.fold.state_root() == state
        assert ledger.replica.frontier_root() == frontier
        assert ledger.replica.fold.net[ann.feed, owner.feed] == PRICE
        assert await ledger.facts() == {b"lease": b"l"}
        assert await ledger.facts(b"seed") == {}


async def test_own_events_that_do_not_follow_are_a_defect(tmp_path: Path) -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        with pytest.raises(AssertionError):
            await ledger.record(ann.events[1:], {b"fact": b""})
        assert ledger.replica.events == 0
        assert await ledger.facts() == {}
        await ledger.record(ann.events, {})


async def test_who_has_forked_itself_is_told_so_and_what_to_do(tmp_path: Path) -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.record(ann.events, {})
        await ledger.ingest([ann.rewrite(1, OTHER).raw])
        with pytest.raises(LocalError, match="own feed has forked") as caught:
            await ledger.record([ann.write(REMARK)], {})
        assert "nexapod init" in caught.value.next_step
        await ledger.record((), {b"fact": b"1"})


async def test_junk_is_counted_and_returned_and_never_raised(tmp_path: Path) -> None:
    ann, eve = Scribe("ann"), Scribe("eve")
    ann.write(REMARK)
    forged = make_event(eve.key, NETID, feed=ann.feed, seq=2, prev=ann.events[1].id, ts=0, data=OTHER)
    foreign = Scribe("foreign", blob_id(b"elsewhere")).events[0]
    junk = [b"", b"\xc1", b"\x00" * 20_000, b"\x91" * 10_000, ann.events[0].raw[:-1], ann.events[0].raw + b"\0"]
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        found = await ledger.ingest([*junk, forged.raw, *raws(ann.events), foreign.raw, *junk])
        assert found.applied.stored == tuple(ann.events)
        assert len(found.refused) == len(junk) + 2
        assert all(type(error) is not PeerError or error.cost == 100 for error in found.refused)
        again = await ledger.ingest(raws(ann.events))
        assert (again.applied.stored, again.refused) == ((), ())
        await in_step(ledger)


async def test_records_and_ingests_at_once_leave_one_ledger(tmp_path: Path) -> None:
    own, others = Scribe("own"), [Scribe(f"other {i}") for i in range(4)]
    for scribe in (own, *others):
        for _ in range(20):
            scribe.write(REMARK)

    async with open_ledger(tmp_path / "ledger", NETID) as ledger:

        async def record() -> None:
            for event in own.events:
                await ledger.record([event], {b"head": event.id})

        async def ingest(scribe: Scribe) -> None:
            for event in reversed(scribe.events):
                await ledger.ingest([event.raw])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(record)
            for scribe in others:
                nursery.start_soon(ingest, scribe)
                nursery.start_soon(ingest, scribe)
        assert ledger.replica.events == 5 * 21
        assert await ledger.facts() == {b"head": own.events[-1].id}
        await in_step(ledger)


async def test_a_write_that_began_is_finished_whoever_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Scribe("ann")
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        write = Store.write
        with trio.CancelScope() as scope:

            def given_up(self: Store, *batch: Any) -> None:
                trio.from_thread.run_sync(scope.cancel)
                write(self, *batch)

            monkeypatch.setattr(Store, "write", given_up)
            await ledger.record(ann.events, {b"fact": b"1"})
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert ledger.replica.heads[ann.feed].seq == 0
        assert await ledger.facts() == {b"fact": b"1"}
        await in_step(ledger)
        monkeypatch.undo()
        await ledger.record([ann.write(REMARK)], {})


async def test_before_the_write_nothing_has_happened(tmp_path: Path) -> None:
    ann = Scribe("ann")
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ledger.record(ann.events, {b"fact": b"1"})
        assert ledger.replica.events == 0
        assert await ledger.facts() == {}


async def test_a_disk_that_fails_leaves_memory_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Scribe("ann")

    def full(self: Store, *batch: Any) -> None:
        raise LocalError("the disk is full")

    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        monkeypatch.setattr(Store, "write", full)
        for attempt in (ledger.record(ann.events, {}), ledger.ingest(raws(ann.events))):
            with pytest.raises(LocalError):
                await attempt
        assert ledger.replica.events == 0
        monkeypatch.undo()
        await ledger.record(ann.events, {})


async def test_another_network_is_refused(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.record(Scribe("ann").events, {})
    with pytest.raises(LocalError, match="another network"):
        async with open_ledger(tmp_path / "ledger", blob_id(b"elsewhere")):
            pass
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:  # and it was let go of
        assert ledger.replica.events == 1


async def test_a_ledger_with_a_gap_is_damaged(tmp_path: Path) -> None:
    ann = Scribe("ann")
    ann.write(REMARK)
    store = Store(tmp_path / "ledger")
    store.write(ann.events[1:], {})
    store.close()
    with pytest.raises(LocalError, match="damaged"):
        async with open_ledger(tmp_path / "ledger", NETID):
            pass


# --- forks -----------------------------------------------------------------------------------------------------------
async def test_a_fork_is_proven_kept_and_handed_on(tmp_path: Path) -> None:
    ann = Scribe("ann")
    for _ in range(3):
        ann.write(REMARK)
    other = ann.rewrite(2, OTHER)
    async with open_ledger(tmp_path / "one", NETID) as ledger:
        await ledger.ingest(raws(ann.events))
        assert await ledger.proof(ann.feed) is None
        await ledger.ingest([other.raw])
    async with open_ledger(tmp_path / "one", NETID) as ledger, open_ledger(tmp_path / "two", NETID) as second:
        proof = await ledger.proof(ann.feed)
        assert proof == (ann.events[2].raw, other.raw)
        page = await ledger.events_page(ann.feed, 0)
        assert page.events == (*raws(ann.events), other.raw)
        assert (await ledger.events_page(ann.feed, 3)).events == (ann.events[3].raw,)
        await second.ingest(page.events)
        assert second.replica.forks.keys() == {ann.feed}
        assert second.replica.frontier_root() == ledger.replica.frontier_root()


# --- reading ---------------------------------------------------------------------------------------------------------
async def test_pages_hold_what_a_reply_may_hold(tmp_path: Path) -> None:
    large, long = Scribe("large"), Scribe("long")
    entries = tuple(CommitEntry(task, 0, blob_id(b"")) for task in range(ENTRIES_MAX))
    for _ in range(150):
        large.write(Commit(bytes(32), bytes(32), entries))
    for _ in range(EVENTS_PER_PAGE + 5):
        long.write(REMARK)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.ingest(raws(everything(large, long)))
        page = await ledger.events_page(large.feed, 0)
        assert 50 < len(page.events) < 151
        assert REPLY_BYTES_MAX - 20_000 < len(encode(page)) <= REPLY_BYTES_MAX
        rest = await ledger.events_page(large.feed, len(page.events))
        assert [*page.events, *rest.events] == raws(large.events)
        assert len((await ledger.events_page(long.feed, 0)).events) == EVENTS_PER_PAGE
        assert (await ledger.events_page(bytes(32), 0)).events == ()
        assert (await ledger.events_page(long.feed, 2**63 - 1)).events == ()


async def test_events_are_read_by_id_by_feed_and_by_kind(tmp_path: Path) -> None:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    settle = walk(owner, (ann, bob))
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.ingest(raws(everything(bob, ann, owner)))
        assert await ledger.event(settle.id) == settle
        assert await ledger.event(bytes(32)) is None
        assert await ledger.log(owner.feed, -1, 2) == owner.events[:2]
        assert await ledger.log(owner.feed, 2, 10) == owner.events[3:]
        stored = await ledger.stored({Kind.SETTLE, Kind.COMMIT})
        assert [event.kind for event in stored] == [Kind.COMMIT, Kind.COMMIT, Kind.SETTLE]
        assert await ledger.stored(()) == []


async def test_the_newest_events_come_first_and_a_false_clock_last(tmp_path: Path) -> None:
    ann, bob, liar = Scribe("ann"), Scribe("bob"), Scribe("liar")
    for ts in range(10, 60, 10):
        ann.write(REMARK, ts=ts)
        bob.write(REMARK, ts=ts + 5)
    liar.write(REMARK, ts=2**62)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        assert await ledger.newest(5) == []
        await ledger.ingest(raws(everything(ann, bob, liar)))
        assert [event.ts for event in await ledger.newest(4)] == [2**62, 55, 50, 45]
        assert [event.ts for event in await ledger.newest(4, until_ms=100)] == [55, 50, 45, 40]
        everyone = await ledger.newest(100, until_ms=100)
        assert {event.id for event in everyone} == {event.id for event in everything(ann, bob, liar)}
        assert await ledger.newest(0) == []


async def test_all_that_concerns_an_offer_in_causal_order(tmp_path: Path) -> None:
    owner, ann, bob, stranger = Scribe("owner"), Scribe("ann"), Scribe("bob"), Scribe("stranger")
    settle = walk(owner, (ann, bob))
    walk(owner, (ann, bob), job_id="second")
    assert isinstance(settle.data, Settle)
    offer_id = settle.data.offer
    lock = stranger.write(Lock(offer_id, owner.feed, 5))
    release = stranger.write(Release(lock.id, settle.id))
    junk = [stranger.write(Close(offer_id, bytes(32))) for _ in range(10)]
    walked = [*owner.events[1:5], ann.events[1], bob.events[1]]
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.ingest(raws(everything(owner, ann, bob, stranger)))
        found = await ledger.of_offer(offer_id)
        assert {event.id for event in found} == {event.id for event in (*walked, lock, release, *junk)}
        place = {event.id: at for at, event in enumerate(found)}
        assert found[0].id == offer_id
        assert place[settle.id] > max(place[worker.events[1].id] for worker in (ann, bob))
        assert place[release.id] > place[lock.id]
        assert set(owner.events[1:5]) <= set(await ledger.of_offer(offer_id, limit=5))
        assert await ledger.of_offer(bytes(32)) == []
        assert [event.id for event in await ledger.offers()] == [owner.events[1].id, owner.events[5].id]


async def test_ids_are_found_by_their_beginning(tmp_path: Path) -> None:
    ann = Scribe("ann")
    for _ in range(40):
        ann.write(REMARK)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.ingest(raws(ann.events))
        ids = sorted(event.id for event in ann.events)
        for digits in (0, 1, 2, 3, 64):
            prefix = ann.feed.hex()[:digits]
            expected = [event_id for event_id in ids if event_id.hex().startswith(prefix)]
            assert await ledger.find_ids(prefix, 100) == expected
        assert len(await ledger.find_ids("", 7)) == 7
        for nothing in ("xyz", "g", "0" * 65, "é"):
            assert await ledger.find_ids(nothing, 5) == []


async def test_the_open_ledger_is_audited_while_it_is_written(tmp_path: Path) -> None:
    ann = Scribe("ann")
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.record(ann.events, {})

        async def write() -> None:
            for _ in range(50):
                await ledger.record([ann.write(REMARK)], {})
            await ledger.ingest([ann.rewrite(20, OTHER).raw])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            audits = [await ledger.audit() for _ in range(10)]
        assert all(found.ok for found in audits), [found.faults for found in audits]
        last = await ledger.audit()
        assert (last.ok, last.events) == (True, 51)
        assert last.state_root == ledger.replica.fold.state_root()


async def test_an_audit_stops_when_nobody_waits_for_it(tmp_path: Path) -> None:
    ann = Scribe("ann")
    for _ in range(3000):
        ann.write(REMARK)
    async with open_ledger(tmp_path / "ledger", NETID) as ledger:
        await ledger.ingest(raws(ann.events))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ledger.audit)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught


async def test_what_has_not_taken_effect_is_visible(tmp_path: Path) -> None:
    owner, ann, wit = Scribe("owner"), Scribe("ann"), Scribe("wit")
    offer = owner.write(offer_of())
    seal(owner, offer, [commit(ann, offer, blob_id(b"result"))])
    async with open_ledger(tmp_path / "ledger", NETID, frozenset((wit.feed,)), 1) as ledger:
        await ledger.ingest(raws(everything(owner, ann, wit)))
        assert {event.id for event in ledger.replica.unfolded()} == {e.id for e in everything(owner, ann, wit)}
        assert not ledger.replica.firm(offer.id)
        await ledger.ingest([wit.ack(owner.events[-1], ann.events[-1]).raw])
        assert ledger.replica.firm(offer.id)
        assert ledger.replica.firm(ann.events[-1].id)
        assert {event.feed for event in ledger.replica.unfolded()} == {wit.feed}
        await in_step(ledger)
