"""One connected, introduced peer that never stops talking: rubbish costs it the connection, plenty costs it nothing.

NEXAPOD_FLOOD_S is how long the longest floods go on: some seconds, or a minute by hand.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed

from gossip.batch import encode_batch
from nexapod.encoding import encode
from nexapod.errors import Unavailable
from nexapod.events import sign_note
from nexapod.hashing import Tag, blob_id
from nexapod.limits import CLAIM_VALID_MS, REPLY_BYTES_MAX
from nexapod.messages import AskClaim, AskFrontier, AskPing, Claim
from tests.attacks.siege import Siege, attacker, library_host, open_raw, repeat
from tests.daemon.standing import Stranger

pytestmark = pytest.mark.process

FLOOD_S = float(os.environ.get("NEXAPOD_FLOOD_S", "5"))
INVALID_PER_S, VALID_PER_S = 500.0, 100.0
SENT_AWAY_S = 10.0
GOSSIP = "/meshsub/1.1.0"


def claim_of(foe: Stranger, number: int, offer: bytes | None = None) -> bytes:
    claim = Claim(foe.feed, "x86-64-v3", 1, number, CLAIM_VALID_MS, offer)
    return sign_note(foe.key, Tag.CLAIM, foe.netid, claim)


def gossip_message(foe: Stranger, topic: str, data: bytes, number: int, *, false: bool = False) -> bytes:
    """One frame of the library's gossip with one message, signed unless it is to be false."""
    host = library_host(foe)
    name = f"/nexapod/{foe.netid.hex()[:16]}/{topic}"
    message = rpc_pb2.Message(
        from_id=host.get_id().to_bytes(), seqno=number.to_bytes(8, "big"), data=data, topicIDs=[name]
    )
    message.signature = host.get_private_key().sign(b"libp2p-pubsub:" + message.SerializeToString())
    message.key = host.get_public_key().serialize()
    if false:
        message.data = data + b"!"
    return bytes(encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString()))


@asynccontextmanager
async def sent_away(siege: Siege, foe: Stranger) -> AsyncIterator[list[float]]:
    """While the block floods: the seconds until the victim hung up for the first time."""
    took: list[float] = []

    async def look() -> None:
        began = trio.current_time()
        while siege.key in foe.mesh.connected():  # noqa: ASYNC110 - the library notices
            await trio.sleep(0.05)
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield took
        nursery.cancel_scope.cancel()


async def flood(
    foe: Stranger, siege: Siege, say: Callable[[], Awaitable[object]], per_s: float, seconds: float = FLOOD_S
) -> None:
    """Say something so many times a second, at most 64 at once; come back whenever hung up on."""
    turns = trio.CapacityLimiter(64)

    async def one() -> None:
        async with turns:
            # Refused, reset, hung up on: what one meets who floods.
            with suppress(Exception), trio.move_on_after(5):
                if siege.key not in foe.mesh.connected():
                    await foe.mesh.connect(siege.key, [siege.address])
                await say()

    async with trio.open_nursery() as nursery:

        async def start() -> None:
            if turns.statistics().tasks_waiting < 64:
                nursery.start_soon(one)

        await repeat(start, seconds, per_s=per_s)
        nursery.cancel_scope.cancel()


# --- rubbish ----------------------------------------------------------------------------------------------------------
async def test_five_hundred_invalid_requests_a_second(siege: Siege) -> None:
    async with siege.attack("flood: 500 invalid requests/s"), attacker(siege) as foe:
        async with sent_away(siege, foe) as took:
            await flood(foe, siege, lambda: foe.mesh.request(siege.key, b"\xc1rubbish", reply_max=1000), INVALID_PER_S)
        print(f"sent away after {took[0]:.1f} s")
        assert took[0] < SENT_AWAY_S
        assert foe.key.public not in await siege.peers()


@pytest.mark.parametrize("kind", ["false signatures", "no batches", "no events", "no claims"])
async def test_five_hundred_invalid_gossip_messages_a_second(siege: Siege, kind: str) -> None:
    numbers = count()
    async with siege.attack(f"flood: 500 gossip messages/s, {kind}"), attacker(siege) as foe:
        stream: list[Any] = []

        def rubbish(number: int) -> bytes:
            junk = encode_batch([b"junk %d" % number])
            match kind:
                case "false signatures":
                    return gossip_message(foe, "events", junk, number, false=True)
                case "no batches":
                    return gossip_message(foe, "events", b"\xc1%d" % number, number)
                case "no events":
                    return gossip_message(foe, "events", junk, number)
            return gossip_message(foe, "claims", junk, number)

        async def say() -> None:
            if not stream or stream[0].muxed_conn.is_closed:
                stream[:] = [await open_raw(foe, siege, GOSSIP)]
            await stream[0].write(rubbish(next(numbers)))

        async with sent_away(siege, foe) as took:
            await flood(foe, siege, say, INVALID_PER_S, FLOOD_S / 3)
        print(f"sent away after {took[0]:.1f} s")
        assert took[0] < SENT_AWAY_S


# --- plenty -----------------------------------------------------------------------------------------------------------
async def test_a_hundred_valid_requests_a_second(siege: Siege) -> None:
    """Pings, questions about the ledger and claims for offers nobody made: allowed, and to be borne."""
    numbers, answered = count(1), []
    async with siege.attack("flood: 100 valid requests/s"), attacker(siege) as foe:

        async def say() -> None:
            number = next(numbers)
            claim = AskClaim(claim_of(foe, number, blob_id(b"%d" % number)))
            ask = (AskPing(), AskFrontier(bytes(32), b""), claim)[number % 3]
            await foe.mesh.request(siege.key, encode(ask), reply_max=REPLY_BYTES_MAX)
            answered.append(number)

        async with sent_away(siege, foe) as took:
            await flood(foe, siege, say, VALID_PER_S)
        print(f"{len(answered) / FLOOD_S:.0f} answers a second")
        assert not took, "nothing was wrong with what it said"
        assert foe.key.public in await siege.peers()


async def test_a_hundred_valid_gossip_messages_a_second(siege: Siege) -> None:
    numbers, sent = count(1), []
    async with siege.attack("flood: 100 valid gossip messages/s"), attacker(siege) as foe:
        stream = await open_raw(foe, siege, GOSSIP)

        async def say() -> None:
            number = next(numbers)
            await stream.write(gossip_message(foe, "claims", encode_batch([claim_of(foe, number)]), number))
            sent.append(number)

        async with sent_away(siege, foe) as took:
            await flood(foe, siege, say, VALID_PER_S)
        print(f"{len(sent) / FLOOD_S:.0f} messages a second")
        assert not took, "nothing was wrong with what it said"


async def test_valid_requests_as_fast_as_one_peer_can(siege: Siege) -> None:
    """Beyond its pace a connection waits: it gets an answer to each, and the others theirs in time."""
    async with siege.attack("flood: valid requests as fast as possible", factor=3.0), attacker(siege) as foe:

        async def ask() -> None:
            with suppress(Unavailable):
                while True:
                    await foe.mesh.request(siege.key, encode(AskPing()), reply_max=1000)

        with trio.move_on_after(FLOOD_S / 2):
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(ask)
