"""The order that makes a promise safe, on a real ledger: the record is on disk, then things happen."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from daemon import loop as loop_file
from daemon.core.author import Author
from daemon.core.node import FACT_PREFIXES, NodeCore
from daemon.core.ownerbook import JOB_PREFIX
from daemon.core.step import (
    Cancelled,
    Capacity,
    ClaimHeard,
    Effect,
    FetchDescriptor,
    Forked,
    Heard,
    News,
    Now,
    Published,
    Resumed,
    SendAssign,
    Spread,
    Step,
)
from daemon.loop import Loop, now
from ledger.replica import Applied, Fork
from ledger.service import Ledger, open_ledger
from nexapod.errors import LocalError, Unavailable
from nexapod.events import Event, make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.job import descriptor_hash, parse, resolve
from nexapod.messages import Ack, Claim, Done, Kind, Offer, Refused, Vouch
from tests.daemon.standing import PATIENCE_S, eventually, job_of
from tests.ledger.scribe import NETID, Scribe, commit, everything, offer_of, seal, walk

KEY = Key.from_seed(bytes(32))
GENESIS = make_genesis(KEY, NETID, next_key_digest(Key.from_seed(bytes([1]) * 32).public))
CAPACITY = Capacity(2, frozenset({"docker"}), 0, 8, 2**34, 2**36, "x86-64-v3", ())


class WatchedLedger(Ledger):
    """Notes when a record is safe."""

    order: list[str]
    fails = False

    async def record(self, events: Sequence[Event], facts: Mapping[bytes, bytes | None]) -> Applied:
        if self.fails:
            raise LocalError("the disk is full")
        applied = await super().record(events, facts)
        self.order.append("recorded")
        return applied


class WatchedCore(NodeCore):
    """Notes what it hears."""

    heard: list[News]

    def handle(self, news: News, now: Now) -> Step:
        self.heard.append(news)
        return super().handle(news, now)


@dataclass
class Life:
    """One life of a node's loop, until it crashes."""

    loop: Loop
    core: WatchedCore
    ledger: WatchedLedger
    order: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)

    async def perform(self, effect: Effect) -> None:
        self.order.append("performed")
        self.effects.append(effect)
        # Everything the effect rests on is on disk by now.
        match effect:
            case Spread(offer):
                assert await self.ledger.event(offer) is not None
                assert JOB_PREFIX + offer in await self.ledger.facts(JOB_PREFIX)
            case SendAssign(worker, assignment):
                facts = await self.ledger.facts(b"task/" + assignment.offer)
                assert any(worker in fact for fact in facts.values())

    def heard(self, kind: type[News]) -> list[News]:
        return [news for news in self.core.heard if isinstance(news, kind)]


@asynccontextmanager
async def opened(folder: Path, *, witness: bool = False) -> AsyncIterator[Life]:
    """A loop whose core was restored from the record of this folder; not served yet."""
    witnesses = frozenset({GENESIS.feed}) if witness else frozenset()
    async with open_ledger(folder, NETID, witnesses, len(witnesses)) as plain:
        ledger = WatchedLedger(plain._store, plain.replica)
        ledger.order = []
        if GENESIS.feed not in ledger.replica.heads:
            await ledger.record([GENESIS], {})
        head = ledger.replica.heads[GENESIS.feed]
        author = Author(KEY, NETID, GENESIS.feed, seq=head.seq, head=head.id)
        core = WatchedCore(
            author, CAPACITY, lease_ms=60_000, operators=ledger.replica.operators, firm=ledger.replica.firm
        )
        core.heard = []
        facts: dict[bytes, bytes] = {}
        for prefix in FACT_PREFIXES:
            facts |= await ledger.facts(prefix)
        core.restore(facts)
        life = Life(Loop(core, ledger, GENESIS.feed, witness), core, ledger)
        life.order = ledger.order = []
        life.loop.on_own_events = life.told.extend
        life.loop.on_forks = life.forks.extend
        yield life


@asynccontextmanager
async def living(folder: Path, *, witness: bool = False) -> AsyncIterator[Life]:
    """A served loop; leaving the block is a crash."""
    async with opened(folder, witness=witness) as life, trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_S):
            await nursery.start(life.loop.serve, life.perform)
        yield life
        nursery.cancel_scope.cancel()


def published() -> Published:
    resolved = resolve(parse(job_of(redundancy={"replicas": 1, "quorum": 1})), blob_id(b"image"), ())
    return Published(resolved, descriptor_hash(resolved), blob_id(b"seed"))


async def publish(life: Life) -> bytes:
    with trio.fail_after(PATIENCE_S):
        step = await life.loop.ask(published())
    assert step.offer is not None
    return step.offer


def claim_of(worker: Scribe, offer: bytes) -> ClaimHeard:
    return ClaimHeard(Claim(worker.feed, "x86-64-v3", 2, 1, 100_000, offer))


# --- record first -----------------------------------------------------------------------------------------------------
async def test_nothing_is_performed_or_answered_before_the_record_is_on_disk(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        offer = await publish(life)
        life.order.append("answered")
        assert await life.ledger.event(offer) is not None
        await eventually(lambda: life.effects)
        assert life.order[0] == "recorded"
        assert sorted(life.order[1:]) == ["answered", "performed"]
        assert [event.id for event in life.told] == [offer]
        assert isinstance(life.effects[0], Spread)


async def test_a_reply_is_given_after_its_record(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        offer = await publish(life)
        with trio.fail_after(PATIENCE_S):
            assert await life.loop.reply_to(Cancelled(offer)) == Done()
            kinds = [event.kind for event in await life.ledger.log(GENESIS.feed, 1, 10)]
            assert kinds == [Kind.VOID, Kind.CLOSE]
            assert isinstance(await life.loop.reply_to(Cancelled(offer)), Refused)


async def test_when_the_disk_fails_nothing_is_promised_any_more_and_all_can_still_be_read(tmp_path: Path) -> None:
    anna = Scribe("anna")
    async with living(tmp_path) as life:
        offer = await publish(life)
        await eventually(lambda: life.effects)
        told = list(life.told)
        life.ledger.fails = True
        with trio.fail_after(PATIENCE_S):
            for _ in range(2):  # also when the disk is well again: the core is ahead of its record
                with pytest.raises(Unavailable, match="the disk is full"):
                    await life.loop.ask(published())
                life.ledger.fails = False
            with pytest.raises(Unavailable):
                await life.loop.reply_to(Cancelled(offer))
            with pytest.raises(Unavailable):
                await life.loop.ingest([event.raw for event in everything(anna)])
            await life.loop.tell(claim_of(anna, offer))  # whoever tells is not held up
        assert life.loop.halted is not None
        assert (len(life.effects), life.told) == (1, told)
        assert await life.ledger.event(offer) is not None
        assert anna.feed not in life.ledger.replica.heads
    async with living(tmp_path) as life:  # a restart mends it
        assert life.loop.halted is None
        assert life.core.owner.book.jobs.keys() == {offer}
        await publish(life)


async def test_when_what_others_wrote_cannot_be_stored_nothing_is_promised_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*record: object) -> None:
        raise LocalError("the disk is full")

    async with living(tmp_path) as life:
        monkeypatch.setattr(life.ledger._store, "write", full)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(Unavailable, match="the disk is full"):
                await life.loop.ingest([Scribe("anna").events[0].raw])
            monkeypatch.undo()
            with pytest.raises(Unavailable):
                await life.loop.ask(published())
        assert life.effects == []


async def test_what_was_recorded_and_not_done_is_done_after_a_crash(tmp_path: Path) -> None:
    worker = Scribe("worker")

    async def lost(effect: Effect) -> None:
        await trio.sleep_forever()  # the process dies before this comes to anything

    async with opened(tmp_path) as life, trio.open_nursery() as nursery:
        await nursery.start(life.loop.serve, lost)
        offer = await publish(life)
        await life.loop.tell(claim_of(worker, offer))
        with trio.fail_after(PATIENCE_S):
            while not life.core.owner.book.jobs[offer].tasks[0].executions:  # noqa: ASYNC110
                await trio.sleep(0.01)  # claims gather first
        await life.loop.ask(Cancelled(bytes(32)))  # by now the assignment is recorded
        nursery.cancel_scope.cancel()
    async with living(tmp_path) as life:
        await eventually(lambda: len(life.effects) >= 2)
        assert {type(effect) for effect in life.effects} == {Spread, SendAssign}
        (assign,) = (effect for effect in life.effects if isinstance(effect, SendAssign))
        assert (assign.worker, assign.assignment.offer) == (worker.feed, offer)


async def test_the_core_is_woken_when_it_asked_to_be(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        offer = await publish(life)
        await life.loop.tell(claim_of(Scribe("worker"), offer))
        # No more news comes; the draw is made when claims have gathered.
        await eventually(lambda: any(isinstance(effect, SendAssign) for effect in life.effects))


# --- what others wrote ------------------------------------------------------------------------------------------------
async def test_ingested_events_reach_the_core_in_order_once(tmp_path: Path) -> None:
    anna, ben = Scribe("anna"), Scribe("ben")
    settle = walk(anna, [ben])
    async with living(tmp_path) as life:
        raws = [event.raw for event in reversed(everything(anna, ben))]
        with trio.fail_after(PATIENCE_S):
            ingested = await life.loop.ingest([*raws, b"rubbish"])
            assert len(ingested.refused) == 1
            await life.loop.ingest(raws)
            await life.loop.ask(Cancelled(bytes(32)))  # everything before it was heard
        heard = [news.event for news in life.core.heard if isinstance(news, Heard)]
        assert len(heard) == len(set(heard))
        of_anna = [event for event in heard if event.feed == anna.feed]
        assert of_anna == anna.events[1:]  # no genesis: it does not concern the core
        assert settle in of_anna
        assert [event.kind for event in heard if event.feed == ben.feed] == [Kind.COMMIT]
        assert isinstance(life.effects[0], FetchDescriptor)


async def test_own_events_that_come_back_are_no_news(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        offer = await publish(life)
        event = await life.ledger.event(offer)
        assert event is not None
        with trio.fail_after(PATIENCE_S):
            await life.loop.ingest([GENESIS.raw, event.raw])
            await life.loop.ask(Cancelled(bytes(32)))
        assert life.heard(Heard) == []


async def test_after_a_restart_the_core_hears_of_open_jobs_again_and_not_of_closed_ones(tmp_path: Path) -> None:
    anna, ben = Scribe("anna"), Scribe("ben")
    walk(anna, [ben])
    open_offer = anna.write(offer_of(job_id="open"))
    result = commit(ben, open_offer, blob_id(b"root"))
    seal(anna, open_offer, [result])
    async with living(tmp_path) as life:
        await life.loop.ingest([event.raw for event in everything(anna, ben)])
    async with living(tmp_path) as life:
        *heard, resumed = life.core.heard[:4]
        assert [news.event.kind for news in heard if isinstance(news, Heard)] == [Kind.OFFER, Kind.COMMIT, Kind.SEAL]
        assert isinstance(resumed, Resumed)


async def test_a_fork_is_told_to_everybody_and_to_the_core_also_after_a_restart(tmp_path: Path) -> None:
    anna = Scribe("anna")
    first = anna.write(Vouch(GENESIS.feed, "one"))
    other = anna.rewrite(1, Vouch(GENESIS.feed, "other"))
    async with living(tmp_path) as life:
        with trio.fail_after(PATIENCE_S):
            await life.loop.ingest([event.raw for event in everything(anna)])
            await life.loop.ingest([other.raw])
            await life.loop.ingest([other.raw])
        assert [(fork.feed, fork.kept, fork.other.id) for fork in life.forks] == [(anna.feed, first.id, other.id)]
        await eventually(lambda: life.heard(Forked) == [Forked(anna.feed)])
    async with living(tmp_path) as life:
        assert life.heard(Forked) == [Forked(anna.feed)]


async def test_whoever_waits_for_the_ledger_is_rung(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        grown, told = life.loop.grown(), life.loop.told()
        with trio.fail_after(PATIENCE_S):
            await life.loop.ingest([Scribe("anna").events[0].raw])
            await grown.wait()
            assert not told.is_set()
            again = life.loop.grown()
            await life.loop.ingest([Scribe("anna").events[0].raw])  # known already
            assert not again.is_set()
            await publish(life)
            await told.wait()
            assert again.is_set()


async def test_a_witness_acknowledges_what_is_on_its_disk(tmp_path: Path) -> None:
    anna = Scribe("anna")
    anna.write(Vouch(GENESIS.feed, ""))
    async with living(tmp_path, witness=True) as life:
        with trio.fail_after(PATIENCE_S):
            await life.loop.ingest([event.raw for event in everything(anna)])
        await eventually(lambda: life.ledger.replica.certificate.certified(anna.feed) == 1)
        acks = [event.data for event in life.told if isinstance(event.data, Ack)]
        assert anna.feed in {entry.feed for ack in acks for entry in ack.entries}


# --- the inbox --------------------------------------------------------------------------------------------------------
async def test_who_has_news_for_a_full_inbox_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_file, "INBOX", 2)
    async with opened(tmp_path) as life:
        handed: list[int] = []

        async def tell(number: int) -> None:
            await life.loop.tell(claim_of(Scribe("worker"), bytes(32)))
            handed.append(number)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(tell, number)
                await trio.testing.wait_all_tasks_blocked()
                assert len(handed) == 2
                await nursery.start(life.loop.serve, life.perform)
                await eventually(lambda: len(handed) == 4)
                nursery.cancel_scope.cancel()
        assert len(life.heard(ClaimHeard)) >= 2


async def test_news_that_came_together_is_recorded_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as life:
        offers: list[bytes | None] = []

        async def ask() -> None:
            offers.append((await life.loop.ask(published())).offer)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                await nursery.start(life.loop.serve, life.perform)
                await eventually(lambda: len(offers) == 10)
                nursery.cancel_scope.cancel()
        assert life.order.count("recorded") == 1
        assert len(set(offers)) == 10
        events = await life.ledger.log(GENESIS.feed, 0, 20)
        assert all(isinstance(event.data, Offer) for event in events)
        assert {event.id for event in events} == set(offers)


def test_a_moment_is_told_by_both_clocks() -> None:
    first, second = now(), now()
    assert first.mono_ms <= second.mono_ms
    assert first.wall_ms > 1_700_000_000_000
