"""What hostile peers do to a libp2p host, done to ours: each attack ends on its own, the host lives on."""

import logging
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

from daemon import guards, host
from daemon.host import Mesh, open_host
from dht.service import Directory
from gossip.service import Gossip
from nexapod.errors import LocalError, Unavailable
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


async def test_a_validator_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trio.Event()

    def broken(self: Any, *args: Any) -> bool:
        asked.set()
        raise RuntimeError("a bug in a validator")

    monkeypatch.setattr(Gossip, "_admit", broken)
    async with victim_attacker_friend() as (victim, attacker, _):
        host = library(attacker)
        message = rpc_pb2.Message(from_id=host.get_id().to_bytes(), seqno=b"1", data=b"x")
        message.topicIDs.append(f"/nexapod/{NETID.hex()[:16]}/events")
        message.signature = host.get_private_key().sign(b"libp2p-pubsub:" + message.SerializeToString())
        frame = encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())
        await attack(attacker, victim, "/meshsub/1.1.0", frame)
        await asked.wait()


async def test_a_stream_whose_opening_has_begun_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, cancelled in the middle, keeps the stream and its slot and tells nobody."""
    async with victim_attacker_friend() as (victim, attacker, _):
        conn = library(victim).get_network().get_connections(library_id(attacker))[0].muxed_conn
        scope, streams, tasks = trio.CancelScope(), [], []
        begun, go, write = trio.Event(), trio.Event(), conn._write_frame

        async def slow(data: bytes) -> None:
            if trio.lowlevel.current_task() in tasks:
                begun.set()
                await go.wait()
            await write(data)

        async def begin() -> None:
            tasks.append(trio.lowlevel.current_task())
            with scope:
                streams.append(await conn.open_stream())

        monkeypatch.setattr(conn, "_write_frame", slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await begun.wait()
            scope.cancel()
            await trio.lowlevel.checkpoint()
            go.set()
        assert len(streams) == 1


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


async def test_many_streams_nobody_reads_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps within its window; together they would hold 64 MB of every connection."""
    monkeypatch.setattr(guards, "HELD_BYTES_MAX", 2 * 2**20)
    async with victim_attacker_friend() as (victim, attacker, _):

        async def never_read(stream: Any) -> None:
            await trio.sleep_forever()

        library(victim).set_stream_handler(TProtocol("/unread/1"), never_read)
        conn = library(victim).get_network().get_connections(library_id(attacker))[0].muxed_conn

        async def fill() -> None:
            for _ in range(20):
                stream = await open_raw(attacker, victim, "/unread/1")
                for _ in range(4):
                    await stream.write(b"x" * 60_000)
                assert conn.stream_buffers.held() <= guards.HELD_BYTES_MAX + 100_000

        with trio.fail_after(PATIENCE_S), pytest.raises(Exception, match=r"stream|conn|reset"):
            await fill()
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


# --- pace and share ---------------------------------------------------------------------------------------------------
async def test_an_address_that_comes_too_fast_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "HANDSHAKES_AT_ONCE", 3.0)
    monkeypatch.setattr(guards, "HANDSHAKES_PER_S", 0.01)
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim, open_host(bytes([2]) * 32, LOOPBACK) as attacker:
        with trio.fail_after(PATIENCE_S):
            for _ in range(3):
                await attacker.connect(victim.key, victim.addresses())
                await attacker.disconnect(victim.key)
            with pytest.raises(Unavailable):
                await attacker.connect(victim.key, victim.addresses())


async def test_one_address_cannot_take_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "CONNECTIONS_PER_ADDRESS", 2)
    async with AsyncExitStack() as stack:
        victim, *others = [await stack.enter_async_context(open_host(bytes([n]) * 32, LOOPBACK)) for n in range(1, 5)]
        with trio.fail_after(PATIENCE_S):
            for other in others[:2]:
                await other.connect(victim.key, victim.addresses())
            with pytest.raises(Unavailable):
                await others[2].connect(victim.key, victim.addresses())
            await victim.connect(others[2].key, others[2].addresses())  # whom we choose is not counted


async def test_one_key_cannot_take_every_connection() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim, open_host(bytes([2]) * 32, LOOPBACK) as attacker:
        target = Multiaddr(victim.addresses()[0].partition("/p2p/")[0])
        with trio.fail_after(PATIENCE_S):
            for _ in range(2 * host.CONNECTIONS_PER_PEER):
                with suppress(Exception):
                    await library(attacker).get_network().dial_addr(target, library_id(victim))
        assert len(library(victim).get_network().get_connections()) <= host.CONNECTIONS_PER_PEER


async def test_a_peer_that_was_sent_away_is_not_taken_back_nor_dialled() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim, open_host(bytes([2]) * 32, LOOPBACK) as attacker:
        victim.refuses = lambda key: key == attacker.key
        with trio.fail_after(PATIENCE_S):
            with suppress(Unavailable):  # it may think for a moment that it is connected
                await attacker.connect(victim.key, victim.addresses())
            await eventually(lambda: not attacker.connected())
            assert not victim.connected()
            with pytest.raises(Unavailable, match="sent away"):
                await victim.connect(attacker.key, attacker.addresses())


async def test_streams_beyond_the_pace_of_a_connection_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "STREAMS_AT_ONCE", 10.0)
    monkeypatch.setattr(guards, "STREAMS_PER_S", 5.0)
    async with victim_attacker_friend() as (victim, attacker, friend):
        began, asked = trio.current_time(), 0
        while trio.current_time() < began + 2:
            assert await attacker.request(victim.key, b"x", reply_max=10) == b"x"
            asked += 1
        assert asked <= 10 + 5 * 3
        await friend.connect(victim.key, victim.addresses())


async def test_idle_streams_do_not_take_the_dht_from_others() -> None:
    async with AsyncExitStack() as stack:
        directory = Directory(NETID, lambda: None)
        victim = await stack.enter_async_context(open_host(bytes([1]) * 32, LOOPBACK, [directory.ride]))
        attacker, friend = [await stack.enter_async_context(open_host(bytes([n]) * 32, LOOPBACK)) for n in (2, 3)]
        with trio.fail_after(PATIENCE_S):
            for peer in (attacker, friend):
                await peer.connect(victim.key, victim.addresses())
            for _ in range(16):
                with suppress(Exception):
                    await open_raw(attacker, victim, "/ipfs/kad/1.0.0")
            stream = await open_raw(friend, victim, "/ipfs/kad/1.0.0")
            await stream.write(encode_varint_prefixed(b"\x08\x05"))  # a ping
            assert await stream.read(1)


async def test_the_dht_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "DHT_PROVIDED_MAX", 3)
    async with open_host(bytes([1]) * 32, LOOPBACK) as one:
        store = guards.provider_store.ProviderStore(library(one))
        for number in range(10):
            store.add_provider(b"%d" % number, PeerInfo(library_id(one), []))
        assert len(store.providers) == 3
    assert guards.value_store.MAX_VALUE_STORE_SIZE <= guards.DHT_RECORDS_MAX


# --- what costs time, or somebody's patience --------------------------------------------------------------------------
async def test_a_burst_of_connections_waits_in_the_kernel() -> None:
    """While we are busy nobody is refused: 300 connections come without one being accepted meanwhile."""
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(open_host(bytes([1]) * 32, LOOPBACK))
        port = int(victim.addresses()[0].split("/")[4])
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.5))


async def test_strangers_who_hang_up_leave_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as victim:
        port = int(victim.addresses()[0].split("/")[4])
        for _ in range(3):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"\x13/multistream/1.0.0\n")
            await stream.aclose()
        async with open_host(bytes([2]) * 32, LOOPBACK) as visitor:
            await visitor.connect(victim.key, victim.addresses())
            await visitor.disconnect(victim.key)
        await eventually(lambda: not victim.connected())
    assert [record for record in caplog.records if not record.name.startswith("nexapod")] == []
    assert guards.swarm_connection.logging is not logging


async def test_reading_byte_by_byte_sends_no_receipt_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    write = guards._GuardedYamux._write_frame

    async def counted(self: Any, data: bytes) -> None:
        frames.append(self)
        await write(self, data)

    async with victim_attacker_friend() as (victim, attacker, _):
        read = trio.Event()

        async def slow(stream: Any) -> None:
            for _ in range(500):
                await stream.read(1)
            read.set()

        library(victim).set_stream_handler(TProtocol("/slow/1"), slow)
        stream = await open_raw(attacker, victim, "/slow/1")
        monkeypatch.setattr(yamux.Yamux, "_write_frame", counted)
        monkeypatch.setattr(guards._GuardedYamux, "_write_frame", counted)
        await stream.write(b"x" * 500)
        await read.wait()
        conn = library(victim).get_network().get_connections(library_id(attacker))[0].muxed_conn
        assert sum(sender is conn for sender in frames) < 400  # every second read brings one all the same


async def test_a_connection_that_fails_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = guards.swarm_connection.SwarmConn._handle_new_streams
    async with victim_attacker_friend() as (victim, attacker, _):

        async def broken(self: Any) -> None:
            if self.swarm is not library(victim).get_network():
                await serve(self)
                return
            self.event_started.set()
            raise RuntimeError("a bug in the library")

        await attacker.disconnect(victim.key)
        monkeypatch.setattr(guards.swarm_connection.SwarmConn, "_handle_new_streams", broken)
        with suppress(Unavailable):
            await attacker.connect(victim.key, victim.addresses())
        await eventually(lambda: not attacker.connected())
        monkeypatch.undo()


async def test_a_muxer_that_fails_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with victim_attacker_friend() as (victim, attacker, _):

        async def broken() -> None:
            raise RuntimeError("a bug in the library")

        conn = library(victim).get_network().get_connections(library_id(attacker))[0].muxed_conn
        monkeypatch.setattr(conn, "streams_lock", None)  # the next frame meets it
        monkeypatch.setattr(conn, "_cleanup_on_error", broken)
        with suppress(Exception):
            await attack(attacker, victim, None, b"x")
        await eventually(lambda: attacker.key not in victim.connected())


async def test_the_own_record_is_signed_once_and_not_for_every_message() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as one:
        made = [guards.gossipsub.env_to_send_in_RPC(library(one))[0] for _ in range(5)]
        assert all(record is made[0] for record in made)
