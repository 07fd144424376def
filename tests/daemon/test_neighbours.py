"""Introductions: whom a node takes in, whom it hangs up on, and how it finds others again."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from daemon import neighbours as neighbours_file
from nexapod.encoding import encode
from nexapod.errors import PeerError, Unavailable
from nexapod.hashing import blob_id
from nexapod.messages import Ask, AskHello, AskPing, Done, HelloReply, Refused, Reply
from tests.daemon.standing import (
    PATIENCE_S,
    Standing,
    Stranger,
    eventually,
    running,
    standing_mesh,
    standing_node,
    stranger,
    until_met,
)


@pytest.fixture(autouse=True)
def _quick_greetings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_file, "GREETINGS", 2)
    monkeypatch.setattr(neighbours_file, "GREET_AGAIN_S", 0.01)


async def dial(node: Standing, peer: Stranger) -> None:
    with trio.fail_after(PATIENCE_S):
        await node.parts.mesh.connect(peer.key.public, peer.mesh.addresses())


async def until_hung_up(node: Standing, peer: Stranger) -> None:
    await eventually(lambda: any(isinstance(ask, AskHello) for ask in peer.asked))
    await eventually(lambda: node.key not in peer.mesh.connected())
    assert peer.key.public not in node.parts.neighbours.introduced()


# --- hello ------------------------------------------------------------------------------------------------------------
async def test_whoever_is_connected_is_greeted_and_known_from_then_on(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        await dial(node, peer)
        await eventually(lambda: peer.key.public in node.parts.neighbours.introduced())
        (hello,) = [ask for ask in peer.asked if isinstance(ask, AskHello)]
        assert hello.netid == node.parts.node.netid
        assert node.parts.nodes.feed_of(peer.key.public) == peer.feed
        assert node.parts.nodes.advert_of(peer.key.public) is not None
        await peer.mesh.disconnect(node.key)
        await eventually(lambda: peer.key.public not in node.parts.neighbours.introduced())


async def test_a_peer_of_another_network_is_hung_up_on_and_not_dialled_again(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(blob_id(b"another network")) as peer:
        peer.greets = False

        async def answer(key: bytes, ask: Ask) -> Reply:
            assert isinstance(ask, AskHello)
            assert ask.netid != peer.netid
            return Refused("other-network", "")

        peer.answers = answer
        node.parts.connections.learn(peer.key.public, peer.mesh.addresses())
        await until_hung_up(node, peer)
        assert peer.key.public not in node.parts.connections._dialer


async def test_a_peer_that_never_introduces_itself_is_hung_up_on(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        peer.greets = False
        await dial(node, peer)
        await until_hung_up(node, peer)
        assert len(peer.asked) == neighbours_file.GREETINGS


async def test_an_introduction_with_anothers_papers_or_rubbish_ends_the_same_way(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid, 8) as other:
        made: list[Callable[[Stranger], bytes]] = [
            lambda peer: encode(HelloReply(peer.genesis, other.advert())),
            lambda peer: encode(HelloReply(other.genesis, peer.advert())),
            lambda peer: encode(HelloReply(b"", b"")),
            lambda peer: b"rubbish",
        ]
        for number, reply in enumerate(made, 20):
            async with stranger(other.netid, number) as peer:
                peer.greets, words = False, reply(peer)

                async def answer(key: bytes, ask: Ask, words: bytes = words) -> bytes:
                    return words

                peer.answers = answer
                await dial(node, peer)
                await until_hung_up(node, peer)
        # Nobody was taken for the other one.
        assert node.parts.nodes.feed_of(other.key.public) is None


async def test_a_peer_that_introduced_itself_is_not_hung_up_on_for_a_lost_answer(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        peer.greets = False
        assert isinstance(await peer.hello(node), HelloReply)
        await eventually(lambda: len(peer.asked) == neighbours_file.GREETINGS)
        assert await peer.ask(node.key, AskPing()) == Done()
        assert peer.key.public in node.parts.neighbours.introduced()


async def test_whoever_was_sent_away_is_not_dialled_again(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        assert isinstance(await peer.hello(node), HelloReply)
        assert peer.key.public in node.parts.connections._dialer
        await node.parts.neighbours.blame(peer.key.public, PeerError("a small thing", cost=1))
        assert peer.key.public in node.parts.mesh.connected()
        await node.parts.neighbours.blame(peer.key.public, PeerError("a false signature", cost=100))
        assert peer.key.public not in node.parts.mesh.connected()
        assert peer.key.public not in node.parts.connections._dialer
        # Nor is it let in when it comes by itself.
        with trio.move_on_after(PATIENCE_S), suppress(Unavailable):
            await eventually(lambda: node.key not in peer.mesh.connected())
            await peer.hello(node)
        assert peer.key.public not in node.parts.neighbours.introduced()


# --- finding others ---------------------------------------------------------------------------------------------------
async def test_two_nodes_that_know_a_third_find_each_other(tmp_path: Path) -> None:
    """Only the first stands in anybody's bootstrap file; the others are found through it."""
    async with standing_mesh(tmp_path, 3) as (first, second, third):
        pinned = {peer.key for peer in second.parts.neighbours._book.best_first() if peer.pinned}
        assert pinned == {first.key}
        assert third.key in second.parts.neighbours.introduced()
        assert third.key in second.parts.mesh.connected()


async def test_a_node_that_starts_again_finds_its_way_by_the_peers_it_remembers(tmp_path: Path) -> None:
    async with standing_mesh(tmp_path, 2) as (first, second):
        home = first.home
        await eventually(home.peerbook_file.exists)  # kept while it runs, for a node that dies
        await first.crash()
        await eventually(lambda: first.key not in second.parts.mesh.connected())
        book = json.loads(home.peerbook_file.read_text())
        assert [entry["pinned"] for entry in book["peers"]] == [False]
        second.parts.connections.forget(first.key)  # the second one does not look for it
        async with running(home) as again:
            await until_met(again, second)
            assert not again.parts.mesh.is_inbound(second.key)


async def test_a_node_that_ends_writes_its_peer_book_and_pins_what_it_was_told(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node, stranger(node.parts.node.netid) as peer:
        (address,) = peer.mesh.addresses()
        assert await node.post("/v1/swarm/connect", {"address": address}) == {}
        await node.stop()
        (entry,) = json.loads(node.home.peerbook_file.read_text())["peers"]
        assert entry["addresses"] == [address]
        assert entry["pinned"]
        assert entry["last_ok_ms"] > 0
