"""What ends or wedges a host of the library as it comes, done to a real daemon: every attack ends on its own."""

from contextlib import suppress

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.utils import encode_varint_prefixed
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from daemon.host import CONNECTIONS_PER_PEER, Mesh, open_host
from daemon.streams import BLOB_PROTOCOL, frame_range
from nexapod.errors import LocalError, Unavailable
from nexapod.hashing import blob_id
from nexapod.identity import Key, key_of_peer_id
from nexapod.limits import HANDSHAKES_PER_ADDRESS
from tests.attacks.conftest import BLOB
from tests.attacks.siege import (
    Siege,
    attacker,
    ended,
    go_on,
    library_host,
    library_id,
    muxed,
    open_raw,
    raw_sockets,
    repeat,
    send_raw,
)
from tests.daemon.standing import LOOPBACK, Stranger

pytestmark = pytest.mark.process

GOSSIP, DHT, PUSH, PING = "/meshsub/1.1.0", "/ipfs/kad/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"
GARBAGE = [b"\x05\xff\xff\xff\xff\xff", b"\xff" * 64, b"\x80\x80\x80\x80\x7f", b"", b"\x02\x08\x63"]
FOE_ADDRESS = "127.0.0.9"


# --- bytes that ended the process -------------------------------------------------------------------------------------
async def test_negotiation_that_is_not_utf8(siege: Siege) -> None:
    async with attacker(siege) as foe, siege.attack("C1 negotiation that is not UTF-8"):
        await repeat(lambda: send_raw(foe, siege, None, b"\x02\xff\x0a"), per_s=50)


@pytest.mark.parametrize("protocol", [GOSSIP, DHT, PUSH, PING])
async def test_garbage_on_every_protocol_of_the_library(siege: Siege, protocol: str) -> None:
    async with attacker(siege) as foe, siege.attack(f"C3 garbage on {protocol}"):
        for _ in range(6):
            for data in GARBAGE:
                await send_raw(foe, siege, protocol, data)


async def test_gossip_with_keys_nobody_can_read(siege: Siege) -> None:
    topic = f"/nexapod/{siege.netid.hex()[:16]}/events"
    message = rpc_pb2.Message(from_id=b"\x00\x01\x02", seqno=b"1", data=b"x", topicIDs=[topic], signature=b"s" * 64)
    async with siege.attack("C4, C5 gossip with keys nobody can read"):
        for key in (b"\xff\xff\xff", b"\x08\x63\x12\x01a", b"\x08\x01\x12\x20" + b"\xee" * 32):
            message.key = key
            frame = encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())
            async with attacker(siege) as foe:
                await send_raw(foe, siege, GOSSIP, frame)
                await siege.until_sent_away(foe.key.public)


def signed(foe: Stranger, number: int, **fields: object) -> rpc_pb2.Message:
    """A gossip message with any content, properly signed."""
    host = library_host(foe)
    message = rpc_pb2.Message(from_id=host.get_id().to_bytes(), seqno=number.to_bytes(8, "big"), **fields)
    message.signature = host.get_private_key().sign(b"libp2p-pubsub:" + message.SerializeToString())
    message.key = host.get_public_key().serialize()
    return message


async def test_signed_gossip_that_no_validator_expects(siege: Siege) -> None:
    topic = f"/nexapod/{siege.netid.hex()[:16]}/events"
    contents: list[dict[str, object]] = [
        {"data": b"", "topicIDs": [topic]},
        {"data": b"\x91" * 100_000, "topicIDs": [topic]},
        {"data": b"\xc1\xff", "topicIDs": [topic, topic]},
        {"data": b"\x91\xc4\x01\x00", "topicIDs": [topic, topic.replace("events", "claims")]},
        {"data": b"\xdd\xff\xff\xff\xff", "topicIDs": [topic.replace("events", "claims")]},
    ]
    async with attacker(siege) as foe, siege.attack("C6 signed gossip that no validator expects"):
        for number, fields in enumerate(contents):
            rpc = rpc_pb2.RPC(publish=[signed(foe, number, **fields)])
            await send_raw(foe, siege, GOSSIP, encode_varint_prefixed(rpc.SerializeToString()))


# --- connections ------------------------------------------------------------------------------------------------------
async def dial_from(mesh: Mesh, siege: Siege, address: str) -> bool:
    """Connect from another loopback address, as the library does it."""
    assert mesh._life is not None
    try:
        with trio.fail_after(3):
            target = Multiaddr(siege.address.partition("/p2p/")[0])
            await mesh._life.network.dial_addr(target, library_id(siege.key), source=(address, 0))
    except Exception:  # noqa: BLE001 - refused, however the library says so
        return False
    return True


async def test_more_connections_in_a_lifetime_than_the_library_allows(siege: Siege) -> None:
    """The library counts every connection that ever came in and stops at its limit of 200."""
    came = 0

    async def come_and_go(number: int) -> None:
        nonlocal came
        async with open_host(Key.fresh().seed, LOOPBACK) as mesh:
            for _ in range(36):
                connected = await dial_from(mesh, siege, f"127.0.2.{number}")
                came += connected
                await mesh.disconnect(siege.key)

    async with siege.attack("W1 210 connections that come and go", factor=3.0):
        async with trio.open_nursery() as nursery:
            for number in range(1, 7):
                nursery.start_soon(come_and_go, number)
        assert came > 205
    async with attacker(siege) as late:
        assert await late.mesh.ping(siege.key) < 3


async def test_three_thousand_half_open_connections_from_one_address(siege: Siege) -> None:
    async with (
        siege.attack("W2 3,000 half-open connections from one address"),
        raw_sockets(siege, 3000, FOE_ADDRESS),
    ):
        found = await siege.honest.tell("dial", count=40)
    print(f"{found['quick']} of 40 honest dials within 3 s")
    assert found["quick"] >= 38


async def test_handshakes_that_drip(siege: Siege) -> None:
    """A byte now and then keeps a socket busy; the handshake has five seconds all the same."""

    async def drip(stream: trio.SocketStream) -> None:
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            for byte in b"\x13/multistream/1.0.0\n" * 20:
                await stream.send_all(bytes([byte]))
                with trio.move_on_after(0.1):
                    if not await stream.receive_some(100):
                        break
        assert trio.current_time() - began < 8, "it still talks to us"

    async with (
        siege.attack("W2 handshakes that drip byte by byte"),
        raw_sockets(siege, HANDSHAKES_PER_ADDRESS, FOE_ADDRESS) as sockets,
        trio.open_nursery() as nursery,
    ):
        for stream in sockets:
            nursery.start_soon(drip, stream)


async def test_a_giant_frame_before_anybody_proved_who_he_is(siege: Siege) -> None:
    async with siege.attack("W4 frames of 2^17 to 2^35 bytes before the handshake", rss_mb=16):
        for announced in (2**17, 2**27, 2**33, 2**35 - 1):
            async with raw_sockets(siege, 4, FOE_ADDRESS) as sockets:
                for stream in sockets:
                    try:
                        await stream.send_all(encode_uvarint(announced))
                        for _ in range(200):
                            await stream.send_all(bytes(65536))
                    except trio.BrokenResourceError:
                        continue
                    pytest.fail("13 MB were taken")


async def test_whoever_proves_no_key_is_refused(siege: Siege) -> None:
    keys = create_new_key_pair(bytes([5]) * 32)
    async with siege.attack("W7 a peer that speaks plaintext"):
        liar = new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
        async with liar.run([Multiaddr(LOOPBACK[0])]):
            victim = PeerInfo(library_id(siege.key), [Multiaddr(siege.address.partition("/p2p/")[0])])
            with trio.fail_after(20), pytest.raises(Exception, match="unable to connect"):
                await liar.connect(victim)
            await liar.close()
        assert key_of_peer_id(liar.get_id().to_base58()) not in await siege.peers()


async def test_one_key_cannot_take_every_connection(siege: Siege) -> None:
    async with siege.attack("one key that connects twelve times"), open_host(Key.fresh().seed, LOOPBACK) as mesh:
        for _ in range(12):
            await dial_from(mesh, siege, FOE_ADDRESS)
        await mesh_settles(mesh)
        assert mesh._life is not None
        assert len(mesh._life.connections(siege.key)) <= CONNECTIONS_PER_PEER


async def mesh_settles(mesh: Mesh) -> None:
    """Until what the victim closed is seen as closed."""
    assert mesh._life is not None
    with trio.fail_after(5):
        while len(mesh._life.network.get_connections()) > CONNECTIONS_PER_PEER:  # noqa: ASYNC110 - the library notices
            await trio.sleep(0.02)


async def test_a_peer_that_was_away_is_dialled_again_at_once(siege: Siege) -> None:
    """The library would not dial for a minute after one failure."""
    key = Key.fresh()
    async with open_host(key.seed, LOOPBACK) as mesh:
        address = mesh.addresses()[0]

    def connect() -> bool:
        try:
            siege.node.api.post("/v1/swarm/connect", {"address": address})
        except LocalError:
            return False
        return True

    async with siege.attack("W8 a dial that fails, and the peer that comes after"):
        assert not await trio.to_thread.run_sync(connect)
        async with open_host(key.seed, [address.partition("/p2p/")[0]]):
            assert await trio.to_thread.run_sync(connect)


# --- streams ----------------------------------------------------------------------------------------------------------
async def test_more_data_than_the_window_allows(siege: Siege) -> None:
    async with siege.attack("W3 60 MB into a stream nobody reads", rss_mb=40), attacker(siege) as foe:
        stream = await open_raw(foe, siege, BLOB_PROTOCOL)
        await stream.write(frame_range(blob_id(BLOB), 0))

        async def pour() -> None:
            for _ in range(1000):
                stream.muxed_stream.send_window = 2**30
                await stream.write(b"x" * 60_000)

        with trio.fail_after(30), pytest.raises(Exception):  # noqa: B017, PT011 - hung up on, however it is told
            await pour()
        await siege.until_sent_away(foe.key.public)


async def test_a_flood_of_opened_streams(siege: Siege) -> None:
    async with siege.attack("W5 5,000 streams opened and never negotiated"), attacker(siege) as foe:
        conn = muxed(foe, siege)
        for number in range(5000):
            header = yamux.struct.pack("!BBHII", 0, 1, yamux.FLAG_SYN, 100_001 + 2 * number, 0)
            try:
                await conn._write_frame(header)
            except Exception:  # noqa: BLE001 - the victim hung up, which is the point
                break


async def test_streams_that_are_opened_and_closed_as_fast_as_possible(siege: Siege) -> None:
    async with siege.attack("streams opened and closed as fast as possible"), attacker(siege) as foe:

        async def spin() -> None:
            while True:
                await send_raw(foe, siege, PING, b"")

        with trio.move_on_after(3):
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(spin)


async def test_idle_streams_do_not_take_the_dht_from_others(siege: Siege) -> None:
    """The library answers twelve DHT streams at once, whoever holds them for however long."""
    async with siege.attack("40 idle streams to the DHT"), attacker(siege) as foe:
        streams = []
        for _ in range(40):
            try:
                streams.append(await open_raw(foe, siege, DHT))
            except Exception:  # noqa: BLE001 - refused
                continue
        async with attacker(siege) as other:
            stream = await open_raw(other, siege, DHT)
            await stream.write(encode_varint_prefixed(b"\x08\x05"))  # a ping
            with trio.fail_after(5):
                assert await stream.read(1)


async def test_a_slow_reader_loses_a_stream_and_comes_back_where_it_was(siege: Siege) -> None:
    async with siege.attack("W9 a reader that takes nothing for six seconds"), attacker(siege) as foe:
        stream = await open_raw(foe, siege, BLOB_PROTOCOL)
        await stream.write(frame_range(blob_id(BLOB), 0))
        await go_on(6)
        got = bytearray()

        async def keep(piece: bytes) -> None:
            got.extend(piece)

        with trio.fail_after(20):
            assert await foe.mesh.fetch(siege.key, blob_id(BLOB), len(BLOB) - 10**6, keep) == len(BLOB)
        assert bytes(got) == BLOB[-(10**6) :]


async def test_whoever_stops_reading_is_hung_up_on(siege: Siege) -> None:
    """Its window is without end and its socket full: a write hangs, and only that connection may end of it."""
    async with siege.attack("W10 a peer that stops reading", rss_mb=96), attacker(siege) as foe:
        conn, question = muxed(foe, siege), frame_range(blob_id(BLOB), 0)
        streams = [(await open_raw(foe, siege, BLOB_PROTOCOL)).muxed_stream.stream_id for _ in range(4)]
        async with conn.streams_lock:  # the attacker's reader stands still, its socket buffer fills
            for stream_id in streams:
                grant = yamux.struct.pack("!BBHII", 0, 1, 0, stream_id, 2**30)
                ask = yamux.struct.pack("!BBHII", 0, 0, 0, stream_id, len(question)) + question
                await conn._write_frame(grant + ask)
            await siege.until_sent_away(foe.key.public, within_s=20)


async def test_connections_closed_in_the_middle_of_everything(siege: Siege) -> None:
    async with siege.attack("connections cut in the middle of requests"):
        for _ in range(6):
            async with attacker(siege) as foe, trio.open_nursery() as nursery:

                async def ask(foe: Stranger = foe) -> None:
                    with suppress(Unavailable):
                        await foe.mesh.request(siege.key, b"x" * 400_000, reply_max=10**6)

                for _ in range(8):
                    nursery.start_soon(ask)
                await trio.sleep(0.05)
                await foe.mesh.disconnect(siege.key)


async def test_sockets_full_of_noise(siege: Siege) -> None:
    async with siege.attack("sockets full of noise"):
        for noise in (b"\x16\x03\x01" + bytes(600), b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\xff" * 4096):
            async with raw_sockets(siege, 8, FOE_ADDRESS) as sockets:
                for stream in sockets:
                    try:
                        await stream.send_all(noise)
                    except trio.BrokenResourceError:
                        continue
                with trio.fail_after(20):
                    for stream in sockets:
                        assert await ended(stream)
