"""What hostile peers do to a libp2p host, done to ours: each attack ends on its own, the host lives on."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_rsa_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.utils import encode_varint_prefixed
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from daemon import guards
from daemon.host import Mesh, open_host
from gossip.service import Gossip
from nexapod.errors import LocalError
from nexapod.identity import peer_id
from nexapod.limits import HANDSHAKES_PER_ADDRESS

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 20
AT_ONCE_S = 3  # sooner than the five seconds after which the library gives up a handshake
NETID = b"\7" * 32


async def eventually(condition: Callable[[], Any]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the library
            await trio.sleep(0.01)


async def echo(peer: bytes, payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def victim_attacker_friend() -> AsyncIterator[tuple[Mesh, Mesh, Mesh]]:
    """The victim gossips and answers; the attacker is connected to it; the friend checks afterwards that it lives."""
    gossip = Gossip(NETID)
    async with (
        open_host(bytes([1]) * 32, LOOPBACK, [gossip.ride]) as victim,
        open_host(bytes([2]) * 32, LOOPBACK) as attacker,
        open_host(bytes([3]) * 32, LOOPBACK) as friend,
    ):
        victim.serve_requests(echo)
        with trio.fail_after(60):
            await attacker.connect(victim.key, victim.addresses())
            yield victim, attacker, friend
            await friend.connect(victim.key, victim.addresses())
            assert await friend.request(victim.key, b"alive?", reply_max=10) == b"alive?"
        assert victim.restarts == 0


def library(mesh: Mesh) -> Any:
    assert mesh._life is not None
    return mesh._life.host


def library_id(mesh: Mesh) -> Any:
    return ID.from_base58(peer_id(mesh.key))


async def open_raw(attacker: Mesh, victim: Mesh, protocol: str | None) -> Any:
    """A stream to the victim, negotiated or not."""
    if protocol is None:
        return await library(attacker).get_network().new_stream(library_id(victim))
    return await library(attacker).new_stream(library_id(victim), [TProtocol(protocol)])


async def attack(attacker: Mesh, victim: Mesh, protocol: str | None, data: bytes) -> None:
    """Send these bytes on a new stream and wait until the victim has ended it."""
    stream = await open_raw(attacker, victim, protocol)
    with trio.fail_after(PATIENCE_S):
        try:
            await stream.write(data)
            await stream.close_write()
            while await stream.read(65536):
                pass
        except (StreamError, StreamEOF):  # end, reset, closed connection: all are answers
            return


async def test_a_peer_without_proof_of_its_key_is_refused() -> None:
    """A plaintext peer may claim any id: it must not be connected as that id."""
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim:
        keys = create_new_key_pair(bytes([5]) * 32)
        liar = new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
        async with liar.run([Multiaddr(LOOPBACK[0])]):
            with trio.fail_after(PATIENCE_S):
                address = Multiaddr(victim.addresses()[0].split("/p2p/")[0])
                with pytest.raises(Exception, match="unable to connect"):
                    await liar.connect(PeerInfo(library_id(victim), [address]))
            await liar.close()
        assert not victim.connected()


async def test_negotiation_in_broken_text() -> None:
    async with victim_attacker_friend() as (victim, attacker, _):
        await attack(attacker, victim, None, b"\x02\xff\x0a")
        assert attacker.key in victim.connected()  # it cost a stream, not the connection


async def test_a_handler_that_raises() -> None:
    async with victim_attacker_friend() as (victim, attacker, _):

        async def broken(stream: Any) -> None:
            await stream.read(1)
            raise KeyError("a bug in a handler")

        library(victim).set_stream_handler(TProtocol("/broken/1"), broken)
        await attack(attacker, victim, "/broken/1", b"x")
        assert attacker.key in victim.connected()  # it cost a stream, not the connection


@pytest.mark.parametrize("data", [b"\x05\xff\xff\xff\xff\xff", b"\xff" * 64, b"\x80\x80\x80\x80\x7f", b""])
async def test_garbage_on_the_gossip_stream(data: bytes) -> None:
    async with victim_attacker_friend() as (victim, attacker, _):
        await attack(attacker, victim, "/meshsub/1.1.0", data)


@pytest.mark.parametrize("key", [b"\xff\xff\xff", b"\x08\x63\x12\x01a", b"\x08\x01\x12\x20" + b"\xee" * 32])
async def test_gossip_messages_with_impossible_keys(key: bytes) -> None:
    topic = f"/nexapod/{NETID.hex()[:16]}/events"
    message = rpc_pb2.Message(
        from_id=b"\x00\x01\x02", seqno=b"1", data=b"x", topicIDs=[topic], signature=b"s" * 64, key=key
    )
    async with victim_attacker_friend() as (victim, attacker, _):
        frame = encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())
        await attack(attacker, victim, "/meshsub/1.1.0", frame)


async def test_more_connections_in_a_lifetime_than_the_library_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library counts every inbound connection it ever had and stops at its limit."""
    monkeypatch.setattr(guards, "HANDSHAKES_PER_S", 1000.0)  # they all come from one address
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(open_host(bytes([1]) * 32, LOOPBACK))
        visitors = [await stack.enter_async_context(open_host(bytes([n]) * 32, LOOPBACK)) for n in range(2, 10)]

        async def come_and_go(visitor: Mesh) -> None:
            for _ in range(33):
                await visitor.connect(victim.key, victim.addresses())
                await visitor.disconnect(victim.key)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for visitor in visitors:
                    nursery.start_soon(come_and_go, visitor)
            await visitors[0].connect(victim.key, victim.addresses())
            await visitors[0].ping(victim.key)
        await eventually(lambda: len(library(victim).get_network().get_connections()) == 1)


async def test_more_data_than_the_window_allows() -> None:
    async with victim_attacker_friend() as (victim, attacker, _):

        async def never_read(stream: Any) -> None:
            await trio.sleep_forever()

        library(victim).set_stream_handler(TProtocol("/unread/1"), never_read)
        stream = await open_raw(attacker, victim, "/unread/1")
        conn = library(victim).get_network().get_connections(library_id(attacker))[0].muxed_conn

        async def overrun() -> None:
            for _ in range(1000):  # 60 MB
                stream.muxed_stream.send_window = 2**30
                held = sum(len(buffer) for buffer in conn.stream_buffers.values())
                assert held <= guards.WINDOW_BYTES_MAX + guards.WINDOW_SLACK
                await stream.write(b"x" * 60_000)

        with trio.fail_after(PATIENCE_S), pytest.raises(StreamError):
            await overrun()
        await eventually(lambda: attacker.key not in victim.connected())


async def test_a_flood_of_opened_streams() -> None:
    async with victim_attacker_friend() as (victim, attacker, friend):
        conn = library(attacker).get_network().get_connections(library_id(victim))[0].muxed_conn
        with trio.fail_after(PATIENCE_S):
            for number in range(3000):
                header = yamux.struct.pack("!BBHII", 0, 1, yamux.FLAG_SYN, 100_001 + 2 * number, 0)
                try:
                    await conn._write_frame(header)
                except Exception:  # noqa: BLE001 - the victim hung up, which is the point
                    break
            await friend.connect(victim.key, victim.addresses())
            assert await friend.request(victim.key, b"x", reply_max=10) == b"x"
        for inbound in library(victim).get_network().get_connections():
            assert len(inbound.muxed_conn.streams) <= guards.STREAMS_KEPT_MAX + 1


@pytest.mark.parametrize("announced", [2**17, 2**35 - 1])
async def test_a_giant_frame_is_refused_by_its_length_before_it_comes(announced: int) -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim:
        port = int(victim.addresses()[0].split("/")[4])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(AT_ONCE_S):
            await stream.send_all(encode_uvarint(announced))
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        await stream.aclose()


async def test_one_address_cannot_take_every_handshake() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim, open_host(bytes([2]) * 32, LOOPBACK) as friend:
        port = int(victim.addresses()[0].split("/")[4])
        hung = []
        with trio.fail_after(PATIENCE_S):
            for _ in range(HANDSHAKES_PER_ADDRESS + 4):
                sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                await sock.bind(("127.0.0.9", 0))
                await sock.connect(("127.0.0.1", port))
                hung.append(trio.SocketStream(sock))
            with trio.fail_after(AT_ONCE_S):
                for stream in hung[-4:]:
                    with suppress(trio.BrokenResourceError):
                        while await stream.receive_some():
                            pass
            await friend.connect(victim.key, victim.addresses())
        for stream in hung:
            await stream.aclose()


async def test_a_peer_that_stops_reading_ends_its_own_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "FRAME_S", 0.3)
    async with victim_attacker_friend() as (victim, attacker, _):

        async def pour(stream: Any) -> None:
            while True:
                stream.muxed_stream.send_window = 2**30
                await stream.write(b"x" * 60_000)

        library(victim).set_stream_handler(TProtocol("/pour/1"), pour)
        conn = library(attacker).get_network().get_connections(library_id(victim))[0].muxed_conn
        await open_raw(attacker, victim, "/pour/1")
        async with conn.streams_lock:  # the attacker's reader stands still, its socket buffer fills
            await eventually(lambda: attacker.key not in victim.connected())


def test_another_library_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "LIBP2P_VERSION", "0.9.0")
    with pytest.raises(LocalError, match="libp2p"):
        guards.check_library()


def test_a_changed_private_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    guards.check_library()
    monkeypatch.delattr(guards.yamux.Yamux, "_cleanup_on_error")
    with pytest.raises(LocalError, match="guarded"):
        guards.check_library()


async def test_nobody_is_dialled_behind_our_back() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as one, open_host(bytes([2]) * 32, LOOPBACK) as other:
        address = Multiaddr(other.addresses()[0].split("/p2p/")[0])
        library(one).get_peerstore().add_addrs(library_id(other), [address], 3600)
        with trio.fail_after(PATIENCE_S):
            await library(one).get_network().auto_connector.maybe_connect()
        assert not one.connected()


async def test_a_peer_with_another_kind_of_key_is_refused_in_the_handshake() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim:
        stranger = new_host(key_pair=create_rsa_key_pair(2048))
        async with stranger.run([Multiaddr(LOOPBACK[0])]):
            address = Multiaddr(victim.addresses()[0].partition("/p2p/")[0])
            with trio.fail_after(PATIENCE_S), pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is told
                await stranger.connect(PeerInfo(library_id(victim), [address]))
            assert stranger.get_id() not in library(victim).get_network().connections
        assert victim.restarts == 0
