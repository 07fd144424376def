"""Real hosts on loopback: connect, ask, answer, transfer, die and come back."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from daemon import streams
from daemon.host import Connected, Disconnected, Mesh, open_host
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.identity import Key, peer_id
from nexapod.limits import REQUEST_BYTES_MAX, REQUESTS_PER_PEER

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 20


async def eventually(condition: Callable[[], Any]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the library
            await trio.sleep(0.01)


@asynccontextmanager
async def meshes(count: int, **options: Any) -> AsyncIterator[list[Mesh]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_host(bytes([index + 1]) * 32, LOOPBACK, **options))
            for index in range(count)
        ]


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Mesh, Mesh]]:
    async with meshes(2) as (one, other):
        with trio.fail_after(PATIENCE_S):
            await one.connect(other.key, other.addresses())
            await eventually(lambda: one.key in other.connected())
        yield one, other


async def echo(peer: bytes, payload: bytes) -> bytes:
    return peer + payload


async def test_a_peer_is_named_by_its_key_on_both_sides() -> None:
    async with pair() as (one, other):
        assert one.connected() == {other.key}
        assert other.connected() == {one.key}
        assert one.addresses()[0].endswith(f"/p2p/{peer_id(Key.from_seed(bytes([1]) * 32).public)}")
        assert other.remote_address(one.key).startswith("/ip4/127.0.0.1/tcp/")  # type: ignore[union-attr]
        assert one.remote_address(bytes(32)) is None


async def test_changes_tell_of_connections_and_their_end() -> None:
    async with pair() as (one, other):
        with trio.fail_after(PATIENCE_S):
            there, here = await one.changes.receive(), await other.changes.receive()
            assert (there.key, here.key) == (other.key, one.key)
            assert isinstance(there, Connected)
            assert isinstance(here, Connected)
            assert (there.inbound, here.inbound) == (False, True)
            await one.disconnect(other.key)
            assert await one.changes.receive() == Disconnected(other.key)
            assert await other.changes.receive() == Disconnected(one.key)
            await one.connect(other.key, other.addresses())
            assert isinstance(await one.changes.receive(), Connected)


async def test_a_dead_address_is_skipped_and_a_wrong_key_is_refused() -> None:
    async with meshes(2) as (one, other):
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(Unavailable):
                await one.connect(Key.from_seed(bytes([9]) * 32).public, [other.addresses()[0].split("/p2p/")[0]])
            with pytest.raises(Unavailable, match="no usable address"):
                await one.connect(
                    other.key, ["rubbish", "/ip4/1.2.3.4/udp/1", f"/ip4/1.2.3.4/tcp/1/p2p/{peer_id(one.key)}"]
                )
            await one.connect(other.key, ["/ip4/127.0.0.1/tcp/1", *other.addresses()])
            assert other.key in one.connected()


async def test_one_request_gets_one_reply() -> None:
    async with pair() as (one, other):
        other.serve_requests(echo)
        with trio.fail_after(PATIENCE_S):
            assert await one.request(other.key, b"hello", reply_max=100) == one.key + b"hello"
            large = b"x" * REQUEST_BYTES_MAX
            assert await one.request(other.key, large, reply_max=REQUEST_BYTES_MAX + 32) == one.key + large


async def test_many_requests_at_once_all_get_their_own_reply() -> None:
    async with pair() as (one, other):
        other.serve_requests(echo)
        replies: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            replies[number] = await one.request(other.key, b"%d" % number, reply_max=100)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number in range(300):  # more than streams a connection allows
                    nursery.start_soon(ask, number)
        assert replies == {number: one.key + b"%d" % number for number in range(300)}


async def test_a_reply_longer_than_allowed_is_the_peers_fault() -> None:
    async with pair() as (one, other):
        other.serve_requests(echo)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(PeerError) as caught:
                await one.request(other.key, b"hello", reply_max=36)
            assert caught.value.peer == other.key
            assert await one.request(other.key, b"hi", reply_max=36) == one.key + b"hi"


async def test_a_request_longer_than_allowed_is_not_served() -> None:
    async with pair() as (one, other):
        served = []

        async def service(peer: bytes, payload: bytes) -> bytes:
            served.append(payload)
            return b""

        other.serve_requests(service)
        async with one._stream(one._life, other.key, streams.REQUEST_PROTOCOL) as stream:  # type: ignore[arg-type]
            await streams.write(stream, (REQUEST_BYTES_MAX + 1).to_bytes(4, "big"))
            with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable):
                await streams.read_exactly(stream, 1)
        assert not served


async def test_a_service_that_raises_costs_one_stream() -> None:
    async with pair() as (one, other):

        async def service(peer: bytes, payload: bytes) -> bytes:
            if payload == b"bad":
                raise RuntimeError("a bug")
            return payload

        other.serve_requests(service)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(Unavailable):
                await one.request(other.key, b"bad", reply_max=100)
            assert await one.request(other.key, b"good", reply_max=100) == b"good"
        assert other.restarts == 0


async def test_without_a_service_and_beyond_the_limit_the_answer_is_busy() -> None:
    async with meshes(3) as (one, other, third):
        with trio.fail_after(PATIENCE_S):
            await one.connect(other.key, other.addresses())
            with pytest.raises(Unavailable, match="busy"):
                await one.request(other.key, b"too early", reply_max=100)
            await third.connect(other.key, other.addresses())
            gate, held = trio.Event(), []

            async def service(peer: bytes, payload: bytes) -> bytes:
                held.append(payload)
                await gate.wait()
                return payload

            other.serve_requests(service)
            async with trio.open_nursery() as nursery:
                for number in range(REQUESTS_PER_PEER):
                    nursery.start_soon(lambda n: one.request(other.key, bytes([n]), reply_max=9), number)
                await eventually(lambda: len(held) == REQUESTS_PER_PEER)
                # A peer that keeps no limit of its own is told to come again; others are served.
                async with one._stream(one._life, other.key, streams.REQUEST_PROTOCOL) as stream:  # type: ignore[arg-type]
                    with pytest.raises(Unavailable, match="busy"):
                        await streams.ask(stream, b"one more", reply_max=9)
                nursery.start_soon(lambda: third.request(other.key, b"third", reply_max=9))
                await eventually(lambda: b"third" in held)
                gate.set()


async def test_nobody_is_asked_without_a_connection() -> None:
    async with meshes(1) as (one,):
        with pytest.raises(Unavailable, match="not connected"):
            await one.request(bytes(32), b"", reply_max=1)


async def test_cancelled_requests_leave_the_connection_whole() -> None:
    async with pair() as (one, other):
        other.serve_requests(echo)
        payload = b"x" * 100_000
        with trio.fail_after(PATIENCE_S):
            for step in range(60):
                with trio.move_on_after(step * 0.0002):
                    await one.request(other.key, payload, reply_max=200_000)
            assert await one.request(other.key, b"still there", reply_max=100) == one.key + b"still there"
        assert one.connected() == {other.key}


async def test_a_peer_that_leaves_in_the_middle_makes_the_request_unavailable() -> None:
    async with meshes(1) as (one,):
        arrived = trio.Event()

        async def service(peer: bytes, payload: bytes) -> bytes:
            arrived.set()
            await trio.sleep_forever()
            return b""

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def short_life(task_status: Any) -> None:
                    async with open_host(bytes([7]) * 32, LOOPBACK) as other:
                        other.serve_requests(service)
                        task_status.started((other.key, other.addresses()))
                        await arrived.wait()

                key, addresses = await nursery.start(short_life)
                await one.connect(key, addresses)
                with pytest.raises(Unavailable):
                    await one.request(key, b"", reply_max=10)
        await eventually(lambda: not one.connected())


async def test_a_blob_is_resumed_where_it_broke_off() -> None:
    async with pair() as (one, other):
        blob = bytes(range(256)) * 8192
        sha256, got, reads = b"\5" * 32, bytearray(), []

        async def size(name: bytes) -> int | None:
            return len(blob) if name == sha256 else None

        async def read(name: bytes, offset: int, length: int) -> bytes | None:
            reads.append(offset)
            return blob[offset : offset + length]

        async def write(piece: bytes) -> None:
            got.extend(piece)
            if len(reads) == 1 and len(got) > 500_000:
                raise LocalError("the disk is full")

        other.serve_blobs(size, read)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(LocalError, match="disk"):
                await one.fetch(other.key, sha256, 0, write)
            broke_at = len(got)
            assert 500_000 < broke_at < len(blob)
            reads.append(-1)
            assert await one.fetch(other.key, sha256, broke_at, write) == len(blob)
            assert bytes(got) == blob
            assert broke_at in reads
            assert await one.fetch(other.key, sha256, len(blob), write) == len(blob)
            with pytest.raises(Unavailable, match="missing"):
                await one.fetch(other.key, bytes(32), 0, write)
            with pytest.raises(PeerError):
                await one.fetch(other.key, sha256, 0, write, size_max=len(blob) - 1)


async def test_a_holder_that_falls_silent_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "IDLE_S", 0.3)
    async with pair() as (one, other):

        async def size(name: bytes) -> int | None:
            return 10

        async def read(name: bytes, offset: int, length: int) -> bytes | None:
            await trio.sleep_forever()
            return None

        async def write(piece: bytes) -> None: ...

        other.serve_blobs(size, read)
        with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable, match="silent"):
            await one.fetch(other.key, bytes(32), 0, write)
        assert not one.connected()


async def test_a_dial_that_failed_does_not_stand_in_the_way_of_the_next() -> None:
    async with meshes(1) as (one,):
        async with meshes(2) as (_, other):
            key, (address,) = other.key, other.addresses()
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(Unavailable):
                await one.connect(key, [address])
            async with open_host(bytes([2]) * 32, [address.partition("/p2p/")[0]]):
                await one.connect(key, [address])


async def test_breaches_on_streams_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REQUEST_READ_S", 0.2)
    async with pair() as (one, other):
        told: list[tuple[bytes, int]] = []

        async def charge(key: bytes, error: PeerError) -> None:
            told.append((key, error.cost))

        one.on_breach = other.on_breach = charge
        other.serve_requests(echo)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(PeerError):
                await one.request(other.key, b"hello", reply_max=3)
            assert told.pop() == (other.key, 10)
            for words, cost in (((REQUEST_BYTES_MAX + 1).to_bytes(4, "big"), 10), (b"\0\0\1\0drip", streams.DRIP_COST)):
                async with one._stream(one._life, other.key, streams.REQUEST_PROTOCOL) as stream:  # type: ignore[arg-type]
                    await streams.write(stream, words)
                    await eventually(lambda: bool(told))
                assert told.pop() == (one.key, cost)
            assert await one.request(other.key, b"hi", reply_max=100) == one.key + b"hi"
        assert not told


async def test_ping_goes_there_and_back() -> None:
    async with pair() as (one, other):
        with trio.fail_after(PATIENCE_S):
            assert 0 < await one.ping(other.key) < 5
            assert 0 < await other.ping(one.key) < 5


async def test_a_failed_host_comes_back_with_the_same_handle_and_port() -> None:
    broken = trio.Event()
    lives = []

    @asynccontextmanager
    async def rider(library_host: Any) -> AsyncIterator[None]:
        lives.append(library_host)
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                await broken.wait()
                raise RuntimeError("a service of the library died")

            if len(lives) == 1:
                nursery.start_soon(fail)
            yield
            nursery.cancel_scope.cancel()

    async with open_host(bytes([1]) * 32, LOOPBACK, [rider]) as one, open_host(bytes([2]) * 32, LOOPBACK) as other:
        with trio.fail_after(PATIENCE_S):
            asked = trio.Event()

            async def service(peer: bytes, payload: bytes) -> bytes:
                if payload == b"wait":
                    asked.set()
                    await trio.sleep_forever()
                return payload

            one.serve_requests(service)
            other.serve_requests(service)
            await one.connect(other.key, other.addresses())
            before = one.addresses()
            assert isinstance(await one.changes.receive(), Connected)

            async def ask_in_vain() -> None:
                with pytest.raises(Unavailable):
                    await one.request(other.key, b"wait", reply_max=10)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_in_vain)
                await asked.wait()
                broken.set()
            assert await one.changes.receive() == Disconnected(other.key)
            assert not one.connected()
            await eventually(one.addresses)
            assert (one.restarts, len(lives)) == (1, 2)
            assert one.addresses() == before
            await eventually(lambda: one.key not in other.connected())
            await other.connect(one.key, before)
            assert await other.request(one.key, b"again", reply_max=10) == b"again"
            assert await one.request(other.key, b"again", reply_max=10) == b"again"


async def test_made_up_peers_do_not_fill_the_memory_and_harm_no_connection() -> None:
    """The library remembers a thousand peers by itself; a connected one it has forgotten is connected all the same."""
    async with pair() as (one, other):
        life = one._life
        assert life is not None
        store = life.host.get_peerstore()
        for number in range(1200):
            made_up = ID.from_base58(peer_id(number.to_bytes(32, "big")))
            store.add_addrs(made_up, [Multiaddr("/ip4/10.0.0.1/tcp/1")], 3600)
        assert len(store.peer_ids()) <= 1000
        assert await one.ping(other.key) < PATIENCE_S


async def test_a_port_in_use_is_the_operators_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ExceptionGroup) as caught:
            async with open_host(bytes([1]) * 32, [f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"]):
                pass
    error = caught.value.exceptions[0]
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LocalError)
    assert "cannot listen" in str(error)


async def test_a_port_shared_by_another_process_is_refused_as_well() -> None:
    """The library's listener shares its port with whoever shares it too, and each gets half of what comes."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ExceptionGroup):
            async with open_host(bytes([1]) * 32, [f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"]):
                pass


async def test_a_wildcard_listener_is_told_by_its_interfaces() -> None:
    async with open_host(bytes([1]) * 32, ["/ip4/0.0.0.0/tcp/0"], announce=["/dns4/node.example/tcp/4001"]) as one:
        addresses = one.addresses()
        assert addresses[0].startswith("/dns4/node.example/tcp/4001/p2p/")
        assert len(addresses) > 1
        assert not any("/0.0.0.0/" in address for address in addresses)
