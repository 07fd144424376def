"""Everything arrives without gossip, and whoever answers a sync badly costs itself and nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from daemon import sync as sync_file
from daemon.sync import Sync
from nexapod.hashing import blob_id
from nexapod.messages import (
    Ask,
    AskEvents,
    AskFrontier,
    AskPing,
    Done,
    EventsReply,
    FrontierReply,
    Head,
    HelloReply,
    Refused,
    Reply,
    Vouch,
)
from tests.daemon.standing import (
    Script,
    Standing,
    Stranger,
    eventually,
    job_of,
    settled,
    standing_mesh,
    standing_node,
    stranger,
    until_equal,
)
from tests.ledger.scribe import Scribe, everything


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow each other at once."""
    monkeypatch.setattr(sync_file, "SYNC_MS", 20)
    monkeypatch.setattr(sync_file, "QUIET_MS", 20)


@asynccontextmanager
async def synced(folder: Path, script: Script) -> AsyncIterator[tuple[Standing, Stranger, Stranger]]:
    """A node with a peer that answers by a script and an honest one with an empty ledger."""
    async with standing_node(folder) as node:
        netid = node.parts.node.netid
        async with stranger(netid, 8) as bad, stranger(netid, 9) as honest:
            bad.answers = script

            async def nothing(key: bytes, ask: Ask) -> Reply:
                return FrontierReply((), False) if isinstance(ask, AskFrontier) else Refused("unavailable", "")

            honest.answers = nothing
            assert isinstance(await honest.hello(node), HelloReply)
            assert isinstance(await bad.hello(node), HelloReply)
            yield node, bad, honest
            assert await honest.ask(node.key, AskPing()) == Done()
            assert honest.key.public in node.parts.neighbours.introduced()
            node.parts.ledger.replica.check_invariants()


async def until_sent_away(node: Standing, peer: Stranger) -> None:
    await eventually(lambda: peer.key.public not in node.parts.mesh.connected())


def page_of(*heads: Head, more: bool = False) -> FrontierReply:
    return FrontierReply(tuple(sorted(heads, key=lambda head: head.feed)), more)


def head_of(scribe: Scribe) -> Head:
    return Head(scribe.feed, scribe.events[-1].seq, scribe.events[-1].id)


def serving(*scribes: Scribe, asked: list[AskEvents] | None = None) -> Script:
    """An honest ledger of these feeds."""
    feeds = {scribe.feed: scribe for scribe in scribes}

    async def answer(key: bytes, ask: Ask) -> Reply:
        match ask:
            case AskFrontier():
                return page_of(*map(head_of, scribes))
            case AskEvents(feed, seq):
                if asked is not None:
                    asked.append(ask)
                return EventsReply(tuple(event.raw for event in feeds[feed].events[seq:]))
        return Refused("unavailable", "")

    return answer


# --- honest peers -----------------------------------------------------------------------------------------------------
async def test_without_gossip_a_job_is_settled_and_all_ledgers_become_equal(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 3, gossip=False) as nodes:
        job = await nodes[1].post("/submit-job", {"descriptor": job_of(), "base": str(tmp_path)})
        document = await settled(nodes[1], job["job"])
        assert (document["state"], document["paid_micro"]) == ("settled", 2_000_000)
        await until_equal(*nodes)


@pytest.mark.usefixtures("quick")
async def test_a_feed_is_fetched_once_and_then_only_what_is_new(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        netid = node.parts.node.netid
        anna, asked = Scribe("anna", netid), list[AskEvents]()
        for _ in range(5):
            anna.write(Vouch(node.feed, ""))
        async with stranger(netid) as peer:
            peer.answers = serving(anna, asked=asked)
            assert isinstance(await peer.hello(node), HelloReply)
            heads = node.parts.ledger.replica.heads
            await eventually(lambda: anna.feed in heads and heads[anna.feed].seq == 5)
            anna.write(Vouch(node.feed, ""))
            await eventually(lambda: heads[anna.feed].seq == 6)
            wanted = [ask.seq for ask in asked]
            assert wanted[0] == 0
            assert min(wanted[1:]) >= 5  # from the last known event on at the earliest, so that a fork would show


@pytest.mark.usefixtures("quick")
async def test_a_fork_whose_branches_come_from_two_peers_is_proven_to_everybody(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 2, gossip=False) as (node, other):
        netid = node.parts.node.netid
        one, two = Scribe("anna", netid), Scribe("anna", netid)
        one.write(Vouch(node.feed, "one"))
        two.write(Vouch(node.feed, "two"))
        assert one.feed == two.feed
        async with stranger(netid, 8) as left, stranger(netid, 9) as right:
            left.answers, right.answers = serving(one), serving(two)
            assert isinstance(await left.hello(node), HelloReply)
            assert isinstance(await right.hello(node), HelloReply)
            await eventually(lambda: one.feed in node.parts.ledger.replica.forks)
            await eventually(lambda: one.feed in other.parts.ledger.replica.forks)
            # Neither of the two who brought it has done anything wrong.
            assert {left.key.public, right.key.public} <= node.parts.neighbours.introduced()
            proof = await other.parts.ledger.proof(one.feed)
            assert proof is not None
            assert set(proof) == {one.events[1].raw, two.events[1].raw}


async def test_rounds_end_when_the_peer_is_gone_and_begin_when_it_comes_back(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        parts = node.parts
        sync = Sync(parts.mesh, parts.loop, parts.ledger, parts.neighbours, hasty=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(sync.serve)
            assert isinstance(await peer.hello(node), HelloReply)
            for _ in range(2):  # told twice of one peer, it makes rounds once
                sync.introduced(peer.key.public)
            assert len(sync._with) == 1
            await eventually(lambda: sync.rounds)
            parts.connections.forget(peer.key.public)
            await peer.mesh.disconnect(node.key)
            await eventually(lambda: not sync._with)
            before = sync.rounds
            assert isinstance(await peer.hello(node), HelloReply)
            sync.introduced(peer.key.public)
            await eventually(lambda: sync.rounds > before)
            nursery.cancel_scope.cancel()


# --- others -----------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("quick")
async def test_rubbish_costs_its_sender_the_connection(tmp_path: Path) -> None:
    async def answer(key: bytes, ask: Ask) -> bytes:
        return b"rubbish"

    async with synced(tmp_path, answer) as (node, bad, _):
        await until_sent_away(node, bad)
        assert 5 <= len(bad.asked) <= 15


@pytest.mark.usefixtures("quick")
async def test_pages_out_of_order_or_the_same_again_cost_their_sender_the_connection(tmp_path: Path) -> None:
    pages = [
        FrontierReply((Head(bytes([2]) * 32, 1, bytes(32)), Head(bytes([1]) * 32, 1, bytes(32))), False),
        FrontierReply((Head(bytes([3]) * 32, 1, bytes(32)),), True),
    ]

    async def answer(key: bytes, ask: Ask) -> Reply:
        return pages[len(bad_asked) % 2] if isinstance(ask, AskFrontier) else EventsReply(())

    bad_asked: list[Ask] = []
    async with synced(tmp_path, answer) as (node, bad, _):
        bad_asked = bad.asked
        await until_sent_away(node, bad)


@pytest.mark.usefixtures("quick")
async def test_a_frontier_without_end_is_left_after_some_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_file, "PAGES_MAX", 4)
    starts: list[int] = []
    pages = 0

    async def answer(key: bytes, ask: Ask) -> Reply:
        nonlocal pages
        if not isinstance(ask, AskFrontier):
            return EventsReply(())
        if not ask.after:
            starts.append(pages)
        pages += 1
        following = int.from_bytes(ask.after, "big") + 1
        return page_of(Head(following.to_bytes(32, "big"), 1, bytes(32)), more=True)

    async with synced(tmp_path, answer) as (node, _, _):
        await eventually(lambda: len(starts) >= 4)
        assert {later - earlier for earlier, later in pairwise(starts)} == {4}
        assert len(node.parts.ledger.replica.heads) == 1


@pytest.mark.usefixtures("quick")
async def test_forged_events_cost_their_sender_the_connection_and_leave_nothing(tmp_path: Path) -> None:
    anna = Scribe("anna", blob_id(b"not yet known"))
    asked: list[AskEvents] = []

    async def answer(key: bytes, ask: Ask) -> Reply:
        match ask:
            case AskFrontier():
                return page_of(head_of(anna))
            case AskEvents():
                asked.append(ask)
                raws = [event.raw[:-1] + bytes([event.raw[-1] ^ 1]) for event in anna.events]
                return EventsReply(tuple(raws))
        return Refused("unavailable", "")

    async with synced(tmp_path, answer) as (node, bad, _):
        anna = Scribe("anna", node.parts.node.netid)
        await until_sent_away(node, bad)
        assert asked
        assert anna.feed not in node.parts.ledger.replica.heads


@pytest.mark.usefixtures("quick")
async def test_known_events_sent_again_and_again_lead_to_nothing(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        anna = Scribe("anna", node.parts.node.netid)
        anna.write(Vouch(node.feed, ""))
        rounds = 0

        async def answer(key: bytes, ask: Ask) -> Reply:
            nonlocal rounds
            match ask:
                case AskFrontier():
                    rounds += 1
                    return page_of(Head(anna.feed, 10**6, bytes(32)))  # it says there is more
                case AskEvents():
                    return EventsReply(tuple(event.raw for event in everything(anna)))
            return Refused("unavailable", "")

        peer.answers = answer
        assert isinstance(await peer.hello(node), HelloReply)
        await eventually(lambda: rounds >= 10)
        asks = [ask for ask in peer.asked if isinstance(ask, AskEvents)]
        assert len(asks) <= rounds + 1
        assert node.parts.ledger.replica.heads[anna.feed].seq == 1
