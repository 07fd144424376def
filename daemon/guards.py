"""What keeps a libp2p 0.8.1 host alive among hostile peers: every patch to the library, in one place.

Knows the library's private names and proves at start that they still are what we patched. Must never know our own
protocols. Each guard is one small function whose docstring names the failure it stops.
"""

import importlib.metadata
import inspect
import ipaddress
import logging
import os
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libp2p.crypto.serialization as key_serialization
import libp2p.host.basic_host as basic_host
import libp2p.kad_dht.kad_dht as kad_dht
import libp2p.kad_dht.peer_routing as peer_routing
import libp2p.kad_dht.provider_store as provider_store
import libp2p.kad_dht.value_store as value_store
import libp2p.network.auto_connector as auto_connector
import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm
import libp2p.protocol_muxer.multiselect_communicator as communicator
import libp2p.pubsub.gossipsub as gossipsub
import libp2p.pubsub.pubsub as pubsub
import libp2p.pubsub.rpc_queue as rpc_queue
import libp2p.stream_muxer.muxer_multistream as muxer_multistream
import libp2p.stream_muxer.yamux.yamux as yamux
import trio
from libp2p.crypto.keys import KeyType
from libp2p.exceptions import ParseError
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from nexapod.errors import LocalError
from nexapod.limits import HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS, PEERS_MAX, STREAMS_PER_PEER

LIBP2P_VERSION = "0.8.1"
NEGOTIATION_BYTES_MAX = 64 * 1024  # one multistream frame, read before anyone proved who they are
WINDOW_BYTES_MAX = 4 * 1024 * 1024  # yamux window of one stream: 40 MB/s at 100 ms, and what one stream may cost us
HELD_BYTES_MAX = 32 * 1024 * 1024  # unread bytes of all streams of one connection
HELD_UNCOUNTED = 64 * 1024  # what one stream may hold before all are counted: counting takes time
WINDOW_SLACK = 64 * 1024  # what a stream may overdraw in its life: one frame
STREAMS_KEPT_MAX = 2 * STREAMS_PER_PEER  # streams a connection may hold half-open, both directions
SUBSCRIPTION_QUEUE = 4096  # gossip messages waiting for us on one topic; beyond, dropped by the library
RPC_QUEUE = 1024  # gossip messages waiting for one peer; beyond, dropped by the library
HANDSHAKES_PER_S = 10.0  # new connections of one address, in the long run: each costs us 5 to 15 ms
HANDSHAKES_AT_ONCE = 64.0  # new connections of one address after a while of none: a lab behind one address
CONNECTIONS_IN_MAX = PEERS_MAX - 40  # that came to us; the others are for peers we choose
CONNECTIONS_PER_ADDRESS = 100  # open at a time: whoever wants to surround us needs more than one address
ADDRESSES_COUNTED = 4096  # addresses whose handshakes are counted; the one silent for longest starts over
STREAMS_PER_S = 100.0  # streams one connection may open in the long run; further ones wait, unread
STREAMS_AT_ONCE = 512.0  # streams it may open after a while of none
DHT_RECORDS_MAX = 4096  # records kept for others: 4096 x 5 KiB is 20 MiB
DHT_PROVIDED_MAX = 8192  # keys whose providers we remember for others, 20 providers each
DHT_MESSAGE_BYTES_MAX = 256 * 1024  # one DHT message; 20 peers with their signed records are 20 KiB
DHT_STREAMS_PER_PEER = 4  # of the twelve the library answers at once
DHT_STREAM_S = 30.0  # how long one may stay open: it is a question and its answer
DIAL_HEAD_START_S = 0.02  # wait between two addresses of one dial; the library waits 250 ms even after success
PUBSUB_READ_BYTES = 64 * 1024  # one read from a gossip stream, instead of one per byte of a length prefix
CLOSE_S = 2.0  # how long closing a broken connection may take
FRAME_S = 10.0  # how long the kernel may refuse one frame of 64 KiB before the peer counts as gone

log = logging.getLogger("nexapod.guards")

# Every private name we replace or rely on: owner, name, its parameters (None: not a function).
_NAMES: tuple[tuple[Any, str, tuple[str, ...] | None], ...] = (
    (swarm, "_HAPPY_EYEBALLS_DELAY", None),
    (swarm.Swarm, "_do_handle_inbound_connection", ("self", "read_write_closer", "maddr", "failure_event")),
    (swarm.Swarm, "_build_remote_multiaddr", ("self", "read_write_closer")),
    (swarm.Swarm, "upgrade_inbound_raw_conn", ("self", "raw_conn", "maddr")),
    (swarm.Swarm, "add_conn", ("self", "muxed_conn", "direction")),
    (swarm.Swarm, "dial_addr", ("self", "addr", "peer_id", "source")),
    (swarm.Swarm, "set_resource_manager", ("self", "resource_manager", "enable_stream_semaphore")),
    (swarm_connection.SwarmConn, "start", ("self",)),
    (swarm_connection, "logging", None),
    (auto_connector.AutoConnector, "maybe_connect", ("self",)),
    (basic_host.BasicHost, "_swarm_stream_handler", ("self", "net_stream")),
    (communicator, "read_delim", ("reader",)),
    (muxer_multistream, "Yamux", None),
    (yamux, "MAX_WINDOW_SIZE", None),
    (yamux.Yamux, "_cleanup_on_error", ("self",)),
    (yamux.Yamux, "_write_frame", ("self", "data")),
    (yamux.Yamux, "open_stream", ("self",)),
    (pubsub, "SUBSCRIPTION_CHANNEL_SIZE", None),
    (pubsub, "maybe_consume_signed_record", ("msg", "host", "peer_id")),
    (gossipsub, "env_to_send_in_RPC", ("host",)),
    (pubsub.Pubsub, "push_msg", ("self", "msg_forwarder", "msg")),
    (pubsub.Pubsub, "continuously_read_stream", ("self", "stream")),
    (pubsub.Pubsub, "_handle_dead_peer", ("self", "peer_id")),
    (rpc_queue.RpcQueue, "__init__", ("self", "max_size", "max_message_size")),
    (value_store, "MAX_VALUE_STORE_SIZE", None),
    (value_store, "MAX_DHT_MESSAGE_SIZE", None),
    (kad_dht, "MAX_DHT_MESSAGE_SIZE", None),
    (peer_routing, "MAX_DHT_MESSAGE_SIZE", None),
    (provider_store, "MAX_DHT_MESSAGE_SIZE", None),
    (kad_dht.KadDHT, "handle_stream", ("self", "stream")),
    (provider_store.ProviderStore, "add_provider", ("self", "key", "provider")),
    (provider_store.ProviderStore, "_get_providers_from_peer_with_closers", ("self", "peer_id", "key")),
    (key_serialization, "key_type_to_public_key_deserializer", None),
)


def install() -> None:
    """Patch the library once for this process; must run before the first host is made.

    Raises:
        LocalError: another libp2p is installed, or a name we patch is not what it was.
    """
    if muxer_multistream.Yamux is _GuardedYamux:
        return
    check_library()
    _quieten()
    _keep_receipts_few()
    _bound_negotiation()
    _bound_windows()
    _bound_inbound()
    _dial_nobody()
    _pace_streams()
    _contain_streams()
    _contain_connections()
    _contain_pubsub()
    _widen_queues()
    _lighten_pubsub()
    _bound_dht()
    _share_dht()
    _know_one_kind_of_key()
    swarm._HAPPY_EYEBALLS_DELAY = DIAL_HEAD_START_S


def check_library() -> None:
    """Prove that the installed libp2p is the one these guards were written and tested for.

    Raises:
        LocalError: another version, or a patched name is missing or takes other parameters.
    """
    found = importlib.metadata.version("libp2p")
    if found != LIBP2P_VERSION:
        raise LocalError("the wrong libp2p is installed", f"{found}, not {LIBP2P_VERSION}", "run: uv sync")
    for owner, name, parameters in _NAMES:
        value = getattr(owner, name, None)
        if value is None or (parameters is not None and tuple(inspect.signature(value).parameters) != parameters):
            where = f"{getattr(owner, '__name__', owner)}.{name}"
            raise LocalError("this libp2p cannot be guarded", f"{where} is not what it was", "run: uv sync")


def _quieten() -> None:
    """Stops an error line with a traceback for every stranger who hangs up, and logging through the root logger."""
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")


def _keep_receipts_few() -> None:
    """Stops a window update per byte read, which makes gossip and RPC up to 143 times slower."""
    os.environ["PY_YAMUX_RELEASE_ON_READ"] = "0"


def _bound_negotiation() -> None:
    """Stops a stranger's 8 GiB negotiation frame, and the non-UTF-8 one that ends the process."""

    async def read_delim(reader: Any) -> bytes:
        try:
            frame: bytes = await read_varint_prefixed_bytes_limited(reader, NEGOTIATION_BYTES_MAX)
        except (MessageTooLarge, ValueError) as error:
            raise ParseError(str(error)) from error
        if not frame.endswith(b"\n"):
            raise ParseError("no newline at the end")
        try:
            frame.decode()
        except UnicodeDecodeError as error:
            raise ParseError("not UTF-8") from error
        return frame[:-1]

    communicator.read_delim = read_delim


class _WindowOverrun(trio.TooSlowError):
    """A peer sent more than it was granted. Of this type because yamux closes the connection on it, on nothing else."""


class _StreamBuffer(bytearray):
    """Bytes of one stream that wait for a reader: never more than the window we granted."""

    stream: Any = None
    others: "_StreamBuffers | None" = None
    overdrawn = 0

    def extend(self, data: Any) -> None:
        if self.stream is not None and (excess := len(data) - max(self.stream.recv_window, 0)) > 0:
            self.overdrawn += excess
            if self.overdrawn > WINDOW_SLACK:
                raise _WindowOverrun("more data than the window allows")
        if self.others is not None and len(self) + len(data) > HELD_UNCOUNTED and self.others.held() > HELD_BYTES_MAX:
            raise _WindowOverrun("more data than a connection may leave unread")
        super().extend(data)


class _StreamBuffers(dict[int, Any]):
    """Yamux's table of buffers; ties each buffer to its stream as it is put in."""

    def __init__(self, streams: dict[int, Any]) -> None:
        super().__init__()
        self._streams = streams

    def __setitem__(self, stream_id: int, buffer: Any) -> None:
        if len(self._streams) > STREAMS_KEPT_MAX:
            raise _WindowOverrun("too many streams are half-open")
        bounded = _StreamBuffer(buffer)
        bounded.stream, bounded.others = self._streams.get(stream_id), self
        super().__setitem__(stream_id, bounded)

    def held(self) -> int:
        """Bytes of all streams that wait for a reader."""
        return sum(map(len, self.values()))


class _GuardedYamux(yamux.Yamux):  # type: ignore[misc]  # the library is untyped to us
    """Yamux that keeps its window, never breaks off within a frame, and whose end is never the host's end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stream_buffers = _StreamBuffers(self.streams)

    async def open_stream(self) -> Any:
        # Wait for a free slot where the caller can still cancel; the library leaks the slot when cancelled after that.
        await self.stream_backlog_semaphore.acquire()
        self.stream_backlog_semaphore.release()
        with trio.CancelScope(shield=True):
            return await super().open_stream()

    async def _write_frame(self, data: bytes) -> None:
        # A cancelled write leaves half a frame, or a nonce that was never sent: the connection is broken and looks
        # alive. So a frame that has begun is finished, or the connection is closed.
        async with self._write_lock:
            with trio.CancelScope(deadline=trio.current_time() + FRAME_S, shield=True) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                await _close_quietly(self.secured_conn.close)
                raise RawConnError("connection closed: the peer does not read")
        await trio.lowlevel.checkpoint()

    async def start(self) -> None:
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001 - the library raises anything; one connection ends, not the host
            log.debug("connection ended: %r", error)
            await _close_quietly(self._cleanup_on_error)
        finally:
            # Also when the host ends: the library, cancelled while it closes, would leave the socket open.
            self.event_closed.set()
            await _close_quietly(self.secured_conn.close)


def _bound_windows() -> None:
    """Stops a peer that ignores flow control or stops reading, and a cancelled write that breaks its connection."""
    yamux.MAX_WINDOW_SIZE = WINDOW_BYTES_MAX
    muxer_multistream.Yamux = _GuardedYamux


class _Bucket:
    """How often something may happen: `per_s` in the long run, `most` at once."""

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most, self._left, self._at = per_s, most, most, trio.current_time()

    def take(self) -> float:
        """Pay for one more; the seconds until it may happen."""
        now = trio.current_time()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return max(0.0, -self._left / self._per_s)

    def give_back(self) -> None:
        self._left += 1


class _Gate:
    """Connections that came to one host: half-open and open ones, in all and by remote address, and how fast."""

    def __init__(self) -> None:
        self.half_open: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self._paces: OrderedDict[str, _Bucket] = OrderedDict()

    def admits(self, address: str) -> bool:
        """Whether one more may begin its handshake."""
        return (
            self.half_open.total() < HANDSHAKES_MAX
            and self.half_open.total() + self.open.total() < CONNECTIONS_IN_MAX
            and self.half_open[address] < HANDSHAKES_PER_ADDRESS
            and self.open[address] < CONNECTIONS_PER_ADDRESS
            and self._in_time(address)
        )

    def _in_time(self, address: str) -> bool:
        pace = self._paces.pop(address, None) or _Bucket(HANDSHAKES_PER_S, HANDSHAKES_AT_ONCE)
        self._paces[address] = pace  # newest last
        if len(self._paces) > ADDRESSES_COUNTED:
            self._paces.popitem(last=False)
        if not pace.take():
            return True
        pace.give_back()
        return False


@contextmanager
def _counted(counts: Counter[str], address: str) -> Iterator[None]:
    counts[address] += 1
    try:
        yield
    finally:
        counts[address] -= 1
        if not counts[address]:
            del counts[address]


def _remote_network(closer: Any) -> str:
    """The address of a stranger, or of an IPv6 one its /64: that is what one machine is given."""
    try:
        address = ipaddress.ip_address(closer.stream.socket.getpeername()[0].partition("%")[0])
    except (OSError, AttributeError, ValueError):
        return "unknown"  # strangers without an address share one quota
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _bound_inbound() -> None:
    """Stops the lifetime cap of 250 inbound connections, and one address that takes every handshake or connection."""
    gates: weakref.WeakKeyDictionary[Any, _Gate] = weakref.WeakKeyDictionary()

    async def inbound(self: Any, read_write_closer: Any, maddr: Any, failure_event: Any) -> None:
        gate = gates.setdefault(self, _Gate())
        address = _remote_network(read_write_closer)
        raw = RawConnection(read_write_closer, False)
        try:
            if not gate.admits(address):
                log.debug("too many connections from %s", address)
                return
            with _counted(gate.half_open, address):
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
            # The library waits here for the end of the host; the slot belongs to the connection.
            with _counted(gate.open, address):
                await muxed.event_closed.wait()
        except Exception as error:  # noqa: BLE001 - a failed handshake is the stranger's affair, whatever it raised
            log.debug("inbound connection from %s failed: %r", address, error)
        finally:
            await _close_quietly(raw.close)

    swarm.Swarm._do_handle_inbound_connection = inbound


def choose(network: Any, turns_away: Callable[[Any], bool]) -> None:
    """Stops whoever was sent away from coming back at once, and one peer from taking every connection of a host.

    `turns_away(peer id)` is asked about each connection once its key is proven and before anything else happens.
    """
    add = network.add_conn

    async def add_conn(muxed_conn: Any, direction: str = "unknown") -> Any:
        if turns_away(muxed_conn.peer_id):
            await _close_quietly(muxed_conn.secured_conn.close)
            raise RawConnError("this peer is turned away")
        return await add(muxed_conn, direction=direction)

    network.add_conn = add_conn


async def _close_quietly(close: Callable[[], Any]) -> None:
    with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - closing what is broken may raise anything
            log.debug("closing failed: %r", error)


def _contain_streams() -> None:
    """Stops any exception of any stream handler from ending the process, and floods of opened streams."""
    handle = basic_host.BasicHost._swarm_stream_handler
    open_streams: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()

    async def contained(self: Any, net_stream: Any) -> None:
        count = open_streams.setdefault(net_stream.muxed_conn, [0])
        if count[0] >= STREAMS_PER_PEER:
            await _close_quietly(net_stream.reset)
            return
        count[0] += 1
        try:
            await handle(self, net_stream)
        except Exception as error:  # noqa: BLE001 - this is the guard
            log.debug("stream handler failed: %r", error)
            await _close_quietly(net_stream.reset)
        else:
            await _close_quietly(net_stream.close)  # not every handler of the library does; the peer would wait
        finally:
            count[0] -= 1

    basic_host.BasicHost._swarm_stream_handler = contained


def _pace_streams() -> None:
    """Stops one peer from taking most of our time with streams it opens and closes as fast as it can."""
    handle = basic_host.BasicHost._swarm_stream_handler
    paces: weakref.WeakKeyDictionary[Any, _Bucket] = weakref.WeakKeyDictionary()

    async def paced(self: Any, net_stream: Any) -> None:
        pace = paces.get(net_stream.muxed_conn) or _Bucket(STREAMS_PER_S, STREAMS_AT_ONCE)
        paces[net_stream.muxed_conn] = pace
        await trio.sleep(pace.take())
        await handle(self, net_stream)

    basic_host.BasicHost._swarm_stream_handler = paced


def _dial_nobody() -> None:
    """Stops the library from dialling half its limit of peers by itself, past our own choice and back-off."""

    async def nothing(self: Any) -> None: ...

    auto_connector.AutoConnector.maybe_connect = nothing


def _contain_connections() -> None:
    """Stops an exception while a connection accepts streams from ending the swarm with all other connections."""
    start = swarm_connection.SwarmConn.start

    async def contained(self: Any) -> None:
        try:
            await start(self)
        except Exception as error:  # noqa: BLE001 - this is the guard
            log.debug("connection failed: %r", error)
            await _close_quietly(self.close)

    swarm_connection.SwarmConn.start = contained


class _BufferedStream:
    """A gossip stream read in large pieces; everything but `read` is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ahead = bytearray()

    async def read(self, n: int) -> bytes:
        if not self._ahead:
            self._ahead += await self._stream.read(PUBSUB_READ_BYTES)
        taken = bytes(self._ahead[:n])
        del self._ahead[:n]
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _contain_pubsub() -> None:
    """Stops garbage frames, undecodable keys and failing validators from ending the pubsub service."""
    push = pubsub.Pubsub.push_msg
    read = pubsub.Pubsub.continuously_read_stream

    async def push_msg(self: Any, msg_forwarder: Any, msg: Any) -> None:
        try:
            await push(self, msg_forwarder, msg)
        except Exception as error:
            if msg_forwarder == self.my_id:
                raise
            log.debug("gossip message dropped: %r", error)

    async def continuously_read_stream(self: Any, stream: Any) -> None:
        try:
            await read(self, _BufferedStream(stream))
        except Exception as error:  # noqa: BLE001 - this is the guard
            log.debug("gossip stream dropped: %r", error)
            await _close_quietly(stream.reset)
            self._handle_dead_peer(stream.muxed_conn.peer_id)

    pubsub.Pubsub.push_msg = push_msg
    pubsub.Pubsub.continuously_read_stream = continuously_read_stream


def _widen_queues() -> None:
    """Stops the silent loss of every gossip message after the 32nd of a burst."""
    pubsub.SUBSCRIPTION_CHANNEL_SIZE = SUBSCRIPTION_QUEUE
    rpc_queue.RpcQueue.__init__.__defaults__ = (RPC_QUEUE, rpc_queue.DefaultMaxMessageSize)


def _lighten_pubsub() -> None:
    """Stops a signature made and a signature checked for the same peer record in every gossip message."""
    make, consume = gossipsub.env_to_send_in_RPC, pubsub.maybe_consume_signed_record
    made: weakref.WeakKeyDictionary[Any, tuple[float, bytes]] = weakref.WeakKeyDictionary()
    seen: weakref.WeakKeyDictionary[Any, dict[Any, bytes]] = weakref.WeakKeyDictionary()

    def env_to_send(host: Any) -> tuple[bytes, bool]:
        now = trio.current_time()
        at, envelope = made.get(host, (-60.0, b""))
        if now - at < 1.0:  # addresses change rarely; a second late is soon enough
            return envelope, False
        envelope, fresh = make(host)
        made[host] = (now, envelope)
        return envelope, bool(fresh)

    def consume_record(msg: Any, host: Any, peer_id: Any) -> bool:
        known = seen.setdefault(host, {})
        if msg.HasField("senderRecord") and known.get(peer_id) == msg.senderRecord:
            return True
        if not consume(msg, host, peer_id):
            return False
        if msg.HasField("senderRecord"):
            if len(known) >= 1024:  # more than connections; a memo may be forgotten at any time
                known.clear()
            known[peer_id] = msg.senderRecord
        return True

    for module in (gossipsub, pubsub):
        module.env_to_send_in_RPC = env_to_send
    pubsub.maybe_consume_signed_record = consume_record


def _bound_dht() -> None:
    """Stops strangers from storing 50,000 records of a mebibyte, any number of provider keys, and 4 MiB answers."""
    value_store.MAX_VALUE_STORE_SIZE = DHT_RECORDS_MAX
    for module in (kad_dht, peer_routing, provider_store, value_store):
        module.MAX_DHT_MESSAGE_SIZE = DHT_MESSAGE_BYTES_MAX
    add = provider_store.ProviderStore.add_provider

    def add_provider(self: Any, key: bytes, provider: Any) -> None:
        if key in self.providers or len(self.providers) < DHT_PROVIDED_MAX:
            add(self, key, provider)

    provider_store.ProviderStore.add_provider = add_provider


def _share_dht() -> None:
    """Stops one peer from keeping all of the DHT's streams open, so that nobody else is answered."""
    handle = kad_dht.KadDHT.handle_stream
    held: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()

    async def shared(self: Any, stream: Any) -> None:
        count = held.setdefault(stream.muxed_conn, [0])
        if count[0] >= DHT_STREAMS_PER_PEER:
            await _close_quietly(stream.reset)
            return
        count[0] += 1
        try:
            with trio.move_on_after(DHT_STREAM_S) as scope:
                await handle(self, stream)
            if scope.cancelled_caught:
                await _close_quietly(stream.reset)
        finally:
            count[0] -= 1

    kad_dht.KadDHT.handle_stream = shared


def _know_one_kind_of_key() -> None:
    """Stops RSA keys of any size, whose signatures take 30 ms each to check: every peer of ours has an Ed25519 key."""
    readers = key_serialization.key_type_to_public_key_deserializer
    for kind in [kind for kind in readers if kind != KeyType.Ed25519.value]:
        del readers[kind]
