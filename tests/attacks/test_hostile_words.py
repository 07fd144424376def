"""Well-formed on the wire and hostile in what it says: too long, too slow, of another network, made up, or endless."""

from contextlib import suppress
from typing import Any

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.utils import encode_varint_prefixed
from libp2p.utils.varint import encode_uvarint

from daemon.streams import BLOB_PROTOCOL, REQUEST_PROTOCOL, frame_size
from daemon.streams import Answer as StreamAnswer
from dht.advert import bucket_key, record_key
from nexapod.errors import Unavailable
from nexapod.events import make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.limits import FRONTIER_PER_PAGE, REQUEST_BYTES_MAX
from nexapod.messages import (
    Ask,
    AskClaim,
    AskEvents,
    AskFrontier,
    AskHello,
    AskKeep,
    Done,
    EventsReply,
    FrontierReply,
    Head,
    Refused,
    Reply,
)
from tests.attacks.siege import Siege, attacker, go_on, open_raw, repeat, send_raw
from tests.attacks.test_floods import claim_of
from tests.daemon.standing import Stranger, eventually, signed_advert

pytestmark = pytest.mark.process

OTHER_NETWORK = blob_id(b"another network")


def refusal(reply: Reply) -> str:
    assert isinstance(reply, Refused), reply
    return reply.reason


# --- oversize and slow-loris ------------------------------------------------------------------------------------------
async def test_requests_longer_than_allowed_cost_the_connection(siege: Siege) -> None:
    async with siege.attack("oversize: requests longer than allowed"), attacker(siege) as foe:
        with suppress(Exception):
            for _ in range(20):
                await send_raw(foe, siege, REQUEST_PROTOCOL, (REQUEST_BYTES_MAX + 1).to_bytes(4, "big"))
        await siege.until_sent_away(foe.key.public)


async def test_messages_longer_than_allowed_are_not_read(siege: Siege) -> None:
    async with siege.attack("oversize: 8 MB to gossip, DHT and identify", rss_mb=24), attacker(siege) as foe:
        for protocol in ("/meshsub/1.1.0", "/ipfs/kad/1.0.0", "/ipfs/id/push/1.0.0"):
            stream = await open_raw(foe, siege, protocol)
            with suppress(Exception), trio.fail_after(2):
                await stream.write(encode_uvarint(8 * 2**20))
                for _ in range(128):
                    await stream.write(bytes(65_000))


async def test_requests_that_drip_block_nobody_else(siege: Siege) -> None:
    """Eight peers that never finish a request hold every slot of their own; what all share is left to the others."""
    opened = 0

    async def drip() -> None:
        nonlocal opened
        async with attacker(siege) as foe:
            for _ in range(16):
                stream = await open_raw(foe, siege, REQUEST_PROTOCOL)
                await stream.write((1000).to_bytes(4, "big") + b"x")
                opened += 1
            await trio.sleep_forever()

    async with siege.attack("slow-loris: 8 peers, 16 unfinished requests each"), trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(drip)
        await eventually(lambda: opened == 128)
        await go_on(2)
        nursery.cancel_scope.cancel()


# --- replay across networks -------------------------------------------------------------------------------------------
async def test_words_of_another_network_mean_nothing_here(siege: Siege) -> None:
    async with siege.attack("replay: hello, claim and genesis of another network"):
        async with attacker(siege, introduced=False, netid=OTHER_NETWORK) as foe:
            hello = AskHello(OTHER_NETWORK, foe.genesis, foe.advert())
            assert refusal(await foe.ask(siege.key, hello)) == "other-network"
            hello = AskHello(siege.netid, foe.genesis, foe.advert())
            with suppress(Unavailable):
                assert refusal(await foe.ask(siege.key, hello)) == "malformed"
            await siege.until_sent_away(foe.key.public)
        async with attacker(siege) as foe:
            claim = claim_of(Stranger(OTHER_NETWORK, foe.key, foe.mesh, feed=foe.feed), 1)
            with suppress(Unavailable):
                assert refusal(await foe.ask(siege.key, AskClaim(claim))) == "malformed"
            await siege.until_sent_away(foe.key.public)


async def test_events_of_another_network_cost_whoever_brings_them(siege: Siege) -> None:
    stranger = Key.fresh()
    event = make_genesis(stranger, OTHER_NETWORK, next_key_digest(Key.fresh().public))

    async def answer(key: bytes, ask: Ask) -> Reply:
        if isinstance(ask, AskFrontier):
            return FrontierReply((Head(event.feed, 0, event.id),), False)
        return EventsReply((event.raw,)) if isinstance(ask, AskEvents) else Done()

    async with siege.attack("replay: events of another network by sync"), attacker(siege) as foe:
        foe.answers = answer
        await siege.until_sent_away(foe.key.public, within_s=60)


# --- sync -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"junk", b""])
async def test_a_frontier_of_feeds_that_are_not_there(siege: Siege, content: bytes) -> None:
    """A full page of made-up feeds, each answered with junk or with nothing at all, again and again."""
    feeds = sorted(blob_id(b"feed %d" % number) for number in range(FRONTIER_PER_PAGE))
    asked = [0]

    async def answer(key: bytes, ask: Ask) -> Reply:
        asked[0] += 1
        if isinstance(ask, AskFrontier):
            return FrontierReply(tuple(Head(feed, 9, blob_id(feed)) for feed in feeds), False)
        if isinstance(ask, AskEvents) and content:
            return EventsReply((content,))
        return EventsReply(())

    name = "sync junk: 8,192 made-up feeds, " + ("answered with junk" if content else "answered with nothing")
    async with siege.attack(name), attacker(siege) as foe:
        foe.answers = answer
        if content:
            await siege.until_sent_away(foe.key.public, within_s=30)
        else:
            await go_on(4)
    print(f"{asked[0]} questions")


# --- eclipse and squatting --------------------------------------------------------------------------------------------
async def test_made_up_adverts_do_not_hide_the_honest_peer(siege: Siege) -> None:
    keys = [Key.fresh() for _ in range(150)]
    adverts = [signed_advert(key, siege.netid, addresses=("/ip4/127.0.0.1/tcp/1",)) for key in keys]
    async with siege.attack("eclipse: 150 made-up adverts and provider records"), attacker(siege) as foe:

        async def say(message: Any) -> None:
            await send_raw(foe, siege, "/ipfs/kad/1.0.0", encode_varint_prefixed(message.SerializeToString()))

        for key, advert in zip(keys, adverts, strict=True):
            message = Message(type=Message.MessageType.PUT_VALUE, key=record_key(siege.netid, key.public).encode())
            message.record.key, message.record.value = message.key, advert
            await say(message)
        for label in ("engine=docker", "ram=0", "tier=0"):
            await say(Message(type=Message.MessageType.ADD_PROVIDER, key=bucket_key(siege.netid, label)))
        rows = siege.node.get("/v1/nodes")["nodes"]
        assert siege.honest.feed.hex() in {row["feed"] for row in rows}
        async with attacker(siege) as newcomer:
            assert newcomer.key.public in await siege.peers()


async def test_claims_for_offers_nobody_made(siege: Siege) -> None:
    async with siege.attack("squatting: claims for offers nobody made"), attacker(siege) as foe:
        number = 0

        async def claim() -> None:
            nonlocal number
            number += 1
            raw = claim_of(foe, number, blob_id(b"offer %d" % number))
            assert await foe.ask(siege.key, AskClaim(raw)) == Done()

        await repeat(claim, 2.0, per_s=100)


# --- blobs ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("manner", ["endless", "too large", "another"])
async def test_a_holder_that_lies_about_its_blobs(siege: Siege, manner: str) -> None:
    """Asked to keep blobs, the victim fetches them from the one who asked, who has something else in mind."""
    blobs = [blob_id(b"%s %d" % (manner.encode(), number)) for number in range(12)]

    async def serve(stream: Any) -> None:
        with suppress(Exception):
            await stream.read(40)
            size = {"endless": 1_000_000, "too large": 2**50, "another": 1000}[manner]
            await stream.write(frame_size(StreamAnswer.OK, size))
            for _ in range(1000 if manner == "endless" else 1):
                await stream.write(bytes(60_000 if manner == "endless" else 1000))
            await stream.close()

    async with siege.attack(f"blobs: {manner} content"), attacker(siege) as foe:
        assert foe.mesh._life is not None
        foe.mesh._life.host.set_stream_handler(BLOB_PROTOCOL, serve)
        with suppress(Unavailable):
            for blob in blobs:
                await foe.ask(siege.key, AskKeep(blob_id(b"offer"), (blob,)))
        await siege.until_sent_away(foe.key.public)
