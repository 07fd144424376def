"""A node among strangers: what they may ask, and what breaking the protocol costs them and nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from daemon import requests as requests_file
from daemon.blame import Bans
from nexapod.encoding import encode
from nexapod.errors import Unavailable
from nexapod.events import sign_note
from nexapod.hashing import Tag, blob_id
from nexapod.limits import REQUEST_BYTES_MAX
from nexapod.messages import (
    Ask,
    AskAssign,
    AskClaim,
    AskEvents,
    AskFrontier,
    AskGiveUp,
    AskHolding,
    AskKeep,
    AskOpen,
    AskPing,
    AskRenew,
    Assignment,
    Claim,
    Done,
    EventsReply,
    FrontierReply,
    HelloReply,
    HoldingReply,
    OpeningNote,
    Progress,
    Refused,
    RenewReply,
    Reply,
)
from tests.daemon.standing import PATIENCE_S, Standing, Stranger, eventually, standing_node, stranger

OFFER = blob_id(b"offer")
NOTE = OpeningNote(0, 0, bytes(32), bytes(16), "", 1, bytes(32))


@asynccontextmanager
async def meeting(folder: Path) -> AsyncIterator[tuple[Standing, Stranger, Stranger]]:
    """A node, a stranger connected to it without a word, and an honest one that has introduced itself."""
    async with standing_node(folder) as node:
        netid = node.parts.node.netid
        async with stranger(netid, 8) as other, stranger(netid, 9) as honest:
            other.greets = False
            with trio.fail_after(PATIENCE_S):
                await other.mesh.connect(node.key, node.parts.mesh.addresses())
            assert isinstance(await honest.hello(node), HelloReply)
            yield node, other, honest
            # Whatever happened: the honest one is still there and served.
            assert await honest.ask(node.key, AskPing()) == Done()
            assert honest.key.public in node.parts.neighbours.introduced()


async def until_sent_away(node: Standing, peer: Stranger) -> None:
    await eventually(lambda: peer.key.public not in node.parts.mesh.connected())
    await eventually(lambda: node.key not in peer.mesh.connected())


def refusal(reply: Reply) -> str:
    assert isinstance(reply, Refused), reply
    return reply.reason


def claim_of(feed: bytes, signer: Stranger) -> AskClaim:
    return AskClaim(sign_note(signer.key, Tag.CLAIM, signer.netid, Claim(feed, "", 1, 1, 1_000, OFFER)))


def assignment_of(owner: bytes, worker: bytes, signer: Stranger) -> AskAssign:
    return AskAssign(
        sign_note(signer.key, Tag.ASSIGNMENT, signer.netid, Assignment(owner, worker, OFFER, 0, 60_000, (0,)))
    )


# --- before and after hello -------------------------------------------------------------------------------------------
async def test_whoever_has_not_introduced_itself_may_look_at_the_ledger_and_no_more(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (node, other, _):
        assert await other.ask(node.key, AskPing()) == Done()
        frontier = await other.ask(node.key, AskFrontier(bytes(32), b""))
        assert isinstance(frontier, FrontierReply)
        assert node.feed in {head.feed for head in frontier.heads}
        events = await other.ask(node.key, AskEvents(node.feed, 0))
        assert isinstance(events, EventsReply)
        assert events.events
        assert await other.ask(node.key, AskEvents(bytes(32), 0)) == EventsReply(())
        asks: list[Ask] = [
            claim_of(other.feed, other),
            assignment_of(other.feed, node.feed, other),
            AskRenew(OFFER, ()),
            AskOpen(OFFER, (NOTE,)),
            AskGiveUp(OFFER, 0, 0, "no-room", ""),
            AskHolding((bytes(32),)),
            AskKeep(OFFER, (bytes(32),)),
        ]
        for ask in asks:
            assert refusal(await other.ask(node.key, ask)) == "hello-first"


async def test_whoever_has_is_answered_about_jobs_nobody_knows(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (node, _, honest):
        assert await honest.ask(node.key, claim_of(honest.feed, honest)) == Done()
        assert await honest.ask(node.key, AskRenew(OFFER, (Progress(3, 0, 0, 0),))) == RenewReply((3,))
        assert refusal(await honest.ask(node.key, AskOpen(OFFER, (NOTE,)))) == "unknown-offer"
        assert await honest.ask(node.key, AskGiveUp(OFFER, 0, 0, "no-room", "")) == Done()
        assert isinstance(await honest.ask(node.key, assignment_of(honest.feed, node.feed, honest)), Refused)
        sha = node.parts.transfer.blobs.put(b"here")
        assert await honest.ask(node.key, AskHolding((bytes(32), sha))) == HoldingReply((1,))


async def test_hello_of_another_network_or_with_anothers_papers_is_refused(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (node, other, honest):
        assert refusal(await other.hello(node, netid=bytes(32))) == "other-network"
        assert refusal(await other.hello(node, advert=honest.advert())) == "malformed"
        assert refusal(await other.hello(node, genesis=b"rubbish")) == "malformed"
        with suppress(Unavailable):  # it may be hung up on before the answer is through
            assert refusal(await other.hello(node, genesis=honest.genesis)) == "malformed"
        await until_sent_away(node, other)
        assert other.key.public not in node.parts.neighbours.introduced()
        with pytest.raises(Unavailable):
            await other.hello(node)  # not back at once, not even as itself
        await eventually(lambda: node.key not in other.mesh.connected())
        node.parts.connections._bans = Bans()
        assert isinstance(await other.hello(node), HelloReply)  # but later


# --- breaches ---------------------------------------------------------------------------------------------------------
async def test_what_is_no_question_is_answered_and_charged_until_it_is_enough(tmp_path: Path) -> None:
    rubbish = [
        b"", b"\xc1", b"\0" * 100, b"\x93" + b"\xff" * 9, encode([99, b""]), encode(Done()), encode(EventsReply(())),
        encode(AskPing()) + b"\0", encode([2, b"short", b""]), b"\xdd\xff\xff\xff\xff", b"\x91" * 2_000,
    ]  # fmt: skip
    async with meeting(tmp_path) as (node, other, _):
        answered = 0
        with suppress(Unavailable):
            for payload in rubbish:
                assert refusal(await other.ask_raw(node.key, payload)) == "malformed"
                answered += 1
        assert answered in (9, 10)  # each costs 10, and 100 are enough
        await until_sent_away(node, other)


async def test_a_question_that_is_too_long_is_not_even_read(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (node, other, honest):
        assert refusal(await other.ask_raw(node.key, bytes(REQUEST_BYTES_MAX))) == "malformed"
        many = AskHolding(tuple(blob_id(bytes([number])) for number in range(200)))
        assert isinstance(await honest.ask(node.key, many), HoldingReply)


@pytest.mark.parametrize("kind", ["claim", "assignment"])
async def test_a_note_signed_by_another_costs_the_connection_at_once(tmp_path: Path, kind: str) -> None:
    async with meeting(tmp_path) as (node, other, honest):
        assert isinstance(await other.hello(node), HelloReply)
        forged = {
            "claim": claim_of(honest.feed, other),
            "assignment": assignment_of(honest.feed, node.feed, other),
        }
        with suppress(Unavailable):  # it may be hung up on before the answer is through
            assert refusal(await other.ask(node.key, forged[kind])) == "malformed"
        await until_sent_away(node, other)


async def test_notes_of_whom_nobody_knows_are_no_breach(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (node, _, honest):
        nobody = blob_id(b"nobody")
        for _ in range(20):
            assert refusal(await honest.ask(node.key, claim_of(nobody, honest))) == "unavailable"
        assert refusal(await honest.ask(node.key, assignment_of(nobody, node.feed, honest))) == "unavailable"


# --- keeping for others -----------------------------------------------------------------------------------------------
def hold(peer: Stranger, *blobs: bytes, size: int = 0) -> tuple[bytes, ...]:
    """Have a stranger send these blobs; `size` lies about theirs."""
    kept = {blob_id(blob): blob for blob in blobs}

    async def size_of(sha256: bytes) -> int | None:
        return (size or len(kept[sha256])) if sha256 in kept else None

    async def read(sha256: bytes, offset: int, length: int) -> bytes | None:
        return kept[sha256][offset : offset + length]

    peer.mesh.serve_blobs(size_of, read)
    return tuple(kept)


async def test_blobs_of_an_offer_are_kept_while_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(tmp_path) as (node, _, honest):
        store = node.parts.transfer.blobs
        blobs = hold(honest, b"one", b"two" * 1000)
        assert await honest.ask(node.key, AskKeep(OFFER, blobs)) == Done()
        assert all(store.has(sha) for sha in blobs)
        assert refusal(await honest.ask(node.key, AskKeep(OFFER, (bytes(32),)))) == "unavailable"
        # What is larger than the room is not begun.
        monkeypatch.setattr(requests_file, "KEPT_SHARE", (store.total_bytes + 10) / store.quota_bytes)
        assert refusal(await honest.ask(node.key, AskKeep(OFFER, hold(honest, b"x" * 11)))) == "unavailable"
        before = store.total_bytes
        monkeypatch.setattr(requests_file, "KEPT_SHARE", before / store.quota_bytes)
        assert refusal(await honest.ask(node.key, AskKeep(OFFER, hold(honest, b"new")))) == "no-room"
        assert await honest.ask(node.key, AskKeep(OFFER, blobs)) == Done() or store.total_bytes == before


async def test_a_holder_that_takes_for_ever_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_file, "KEEP_S", 0.2)
    async with meeting(tmp_path) as (node, _, honest):

        async def size(sha256: bytes) -> int | None:
            return 100

        async def read(sha256: bytes, offset: int, length: int) -> bytes | None:
            await trio.sleep_forever()
            return None

        honest.mesh.serve_blobs(size, read)
        assert refusal(await honest.ask(node.key, AskKeep(OFFER, (bytes(32),)))) == "too-slow"
