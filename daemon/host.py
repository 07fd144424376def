"""One node on the wire: the libp2p host, guarded, supervised, and named by keys instead of PeerIds.

Knows libp2p, addresses and connections. Must never know what is said on a stream or who deserves a connection. The
host may die and be made again at any time; whoever holds the Mesh sees all peers disconnected and, a moment later, a
handle that works again.
"""

import logging
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import psutil
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction, ResourceLimits, ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from daemon import guards, streams
from daemon.streams import BlobServer, BlobSize, Charge, PeerKey, ReadBlob, RequestServer, Service
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.identity import Key, key_of_peer_id, peer_id
from nexapod.limits import ADDRESSES_MAX, PEERS_MAX, REQUESTS_PER_PEER

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

CHANGES_BUFFER = 256  # changes nobody read yet; when full the watcher waits and later reports only the difference
WATCH_S = 1.0  # the table is compared at least this often; the library's notices only make it sooner
DIAL_S = 5.0  # one address of a peer; the next may be better
ADDRESS_TTL_S = 3600  # how long the library remembers an address that worked
INTERFACES_S = 30.0  # how long a list of network interfaces counts as fresh
RESTART_FIRST_S = 0.1  # wait before the host is made again; doubles
RESTART_LAST_S = 30.0
STEADY_S = 60.0  # a host that lived this long starts over with the shortest wait
CLOSE_S = 3.0  # how long taking down a host or a connection may take
CONNECTIONS_PER_PEER = 4  # two nodes may dial each other at once, over what is left of earlier connections
BACKLOG = 4096  # connections the kernel keeps until we accept them; the library's 128 are gone in one burst
PING_PROTOCOL = "/ipfs/ping/1.0.0"
PING_BYTES = 32
BLOB_BYTES_MAX = 2**40  # a caller that knows the size passes it

Rider: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
log = logging.getLogger("nexapod.host")


class Connected(NamedTuple):
    """A peer is there, proven by its key. `address` is where its bytes come from."""

    key: PeerKey
    address: str
    inbound: bool


class Disconnected(NamedTuple):
    """The last connection to a peer is gone."""

    key: PeerKey


Change: TypeAlias = Connected | Disconnected


@dataclass(eq=False)
class _Life:
    """One libp2p host from its making to its end, and everything that ends with it."""

    host: Any
    calls: set[trio.CancelScope] = field(default_factory=set)
    dialing: dict[PeerKey, trio.Lock] = field(default_factory=dict)
    asking: dict[PeerKey, trio.CapacityLimiter] = field(default_factory=dict)

    @property
    def network(self) -> Any:
        return self.host.get_network()

    def connections(self, key: PeerKey) -> list[Any]:
        return [conn for conn in self.network.get_connections(_library_id(key)) if _open(conn)]

    def table(self) -> dict[PeerKey, list[Any]]:
        """Open connections by peer; peers without an Ed25519 key are not peers of ours."""
        found = {}
        for library_id, conns in list(self.network.connections.items()):
            key = _key_of(library_id.to_base58())
            live = [conn for conn in conns if _open(conn)]
            if key is not None and live:
                found[key] = live
        return found


class Mesh:
    """The node's place among its peers: who is connected, asking and answering, over whatever host is running."""

    def __init__(
        self, seed: bytes, listen: Sequence[str], riders: Sequence[Rider] = (), announce: Sequence[str] = ()
    ) -> None:
        """Nothing happens before `serve`.

        `riders` are called with each new libp2p host before it listens and entered once it does (pubsub, DHT);
        `announce` are addresses to be told to others before those we find ourselves.
        """
        self._seed = seed
        self.key = Key.from_seed(seed).public
        self.restarts = 0
        self._listen, self._riders, self._announce = [Multiaddr(text) for text in listen], list(riders), list(announce)
        self._requests, self._blobs = RequestServer(self._breached), BlobServer(self._breached)
        self.refuses: Callable[[PeerKey], bool] = _nobody  # whom no connection is kept with, whoever dials
        self.on_breach: Charge = _uncharged  # told of every breach of a peer on a stream, once
        self._life: _Life | None = None
        self._stir = trio.Event()
        self._interfaces: tuple[float, list[str]] = (-math.inf, [])
        self._send_change, self.changes = trio.open_memory_channel[Change](CHANGES_BUFFER)

    # --- who is there -------------------------------------------------------------------------------------------------
    def connected(self) -> frozenset[PeerKey]:
        """Keys of all peers with an open connection; empty while the host is restarted."""
        return frozenset(self._life.table()) if self._life else frozenset()

    def remote_address(self, key: PeerKey) -> str | None:
        """Where a connected peer's bytes come from, as a multiaddr without its id."""
        conns = self._life.connections(key) if self._life else []
        return _address_of(conns[0]) if conns else None

    def is_inbound(self, key: PeerKey) -> bool:
        """Whether a connected peer came to us."""
        conns = self._life.connections(key) if self._life else []
        return bool(conns) and bool(conns[0].direction == Direction.INBOUND)

    def addresses(self) -> list[str]:
        """Where we can be dialled: full multiaddrs, wildcard listeners expanded to this machine's interfaces."""
        if self._life is None:
            return []
        own = f"/p2p/{peer_id(self.key)}"
        return [f"{address}{own}" for address in map(str, self._expand(self._life.host.get_transport_addrs()))]

    def listening(self) -> list[str]:
        """The addresses listened on, as wanted, with the ports the system chose."""
        return [str(address) for address in self._listen]

    async def connect(self, key: PeerKey, addresses: Sequence[str]) -> None:
        """Be connected to this peer: dial its addresses one by one under the caller's deadline.

        Raises:
            Unavailable: none of them answered with this key.
        """
        if key == self.key:
            raise Unavailable("that is this node itself")
        if self.refuses(key):
            raise Unavailable("that peer was sent away a while ago")
        with self._alive() as life:
            lock = life.dialing.setdefault(key, trio.Lock())
            try:
                async with lock:
                    if not life.connections(key):
                        await self._dial(life, key, addresses)
            finally:
                if not lock.statistics().locked:
                    life.dialing.pop(key, None)

    async def _dial(self, life: _Life, key: PeerKey, addresses: Sequence[str]) -> None:
        library_id = _library_id(key)
        failure = "no usable address"
        for text in addresses[:ADDRESSES_MAX]:
            address = _dialable(text, key)
            if address is None:
                continue
            try:
                with trio.fail_after(DIAL_S):
                    # Not dial_peer, which refuses for 60 s after one failure.
                    await life.network.dial_addr(address, library_id)
            except trio.TooSlowError:
                failure = "no answer"
                continue
            except Exception as error:  # noqa: BLE001 - whatever the library raises, the next address may work
                failure = type(error).__name__
                log.debug("dialling %s failed: %r", text, error)
                continue
            if life.connections(key):
                life.host.get_peerstore().add_addrs(library_id, [address], ADDRESS_TTL_S)
                return
        raise Unavailable(f"cannot reach {key.hex()[:12]}: {failure}")

    async def disconnect(self, key: PeerKey) -> None:
        """Close every connection to this peer, also one that no longer moves. Never raises for the peer's state."""
        if self._life is not None:
            await _hang_up(self._life, key)
            self._stir.set()

    # --- asking -------------------------------------------------------------------------------------------------------
    async def request(self, key: PeerKey, payload: bytes, *, reply_max: int) -> bytes:
        """Ask a connected peer and wait for its reply, under the caller's deadline.

        Cancellation gives up the stream and keeps the connection.

        Raises:
            Unavailable: not connected, gone, busy, or the host is restarted.
            PeerError: the reply is longer than `reply_max` or not a reply; the peer has been charged for it.
        """
        async with self._talking(key) as life:
            # Never more at once than the peer would take from one of us; the others wait their turn here.
            turn = life.asking.setdefault(key, trio.CapacityLimiter(REQUESTS_PER_PEER))
            try:
                async with turn, self._stream(life, key, streams.REQUEST_PROTOCOL) as stream:
                    return await streams.ask(stream, payload, reply_max=reply_max)
            finally:
                if not turn.borrowed_tokens and not turn.statistics().tasks_waiting:
                    life.asking.pop(key, None)

    async def fetch(
        self,
        key: PeerKey,
        sha256: bytes,
        offset: int,
        write: Callable[[bytes], Awaitable[None]],
        *,
        size_max: int = BLOB_BYTES_MAX,
    ) -> int:
        """Pull a blob from `offset` to its end, handing each piece to `write`; returns the size of the whole blob.

        What has been written stays good for a later call with a larger offset. The caller checks the hash.

        Raises:
            Unavailable: not connected, not held there, busy, or it fell silent (then it is disconnected).
            PeerError: the blob is larger than `size_max`; the peer has been charged for it.
        """
        async with self._talking(key) as life:
            try:
                async with self._stream(life, key, streams.BLOB_PROTOCOL) as stream:
                    return await streams.pull(stream, (sha256, offset), size_max, write)
            except streams.Silent:
                await _hang_up(life, key)
                raise

    async def ping(self, key: PeerKey) -> float:
        """Seconds to a peer and back, by the ping protocol every libp2p node speaks.

        Raises:
            Unavailable: not connected, gone, or it answered something else.
        """
        with self._alive() as life:
            async with self._stream(life, key, PING_PROTOCOL) as stream:
                nonce, began = os.urandom(PING_BYTES), trio.current_time()
                await streams.write(stream, nonce)
                if await streams.read_exactly(stream, PING_BYTES) != nonce:
                    raise Unavailable("the peer answered a ping with something else")
                return trio.current_time() - began

    @asynccontextmanager
    async def _talking(self, key: PeerKey) -> AsyncIterator[_Life]:
        """The running host, for words with a peer that is charged for what it says wrong."""
        try:
            with self._alive() as life:
                yield life
        except PeerError as error:
            error.peer = key
            await self._breached(key, error)
            raise

    async def _breached(self, key: PeerKey, error: PeerError) -> None:
        await self.on_breach(key, error)

    @asynccontextmanager
    async def _stream(self, life: _Life, key: PeerKey, protocol: str) -> AsyncIterator[Any]:
        if not life.connections(key):  # the library would dial by itself, outside of our address book
            raise Unavailable(f"not connected to {key.hex()[:12]}")
        async with streams.opened(life.host, _library_id(key), protocol) as stream:
            yield stream

    @contextmanager
    def _alive(self) -> Iterator[_Life]:
        """The running host; the block is cancelled and ends in Unavailable when that host dies."""
        life = self._life
        if life is None:
            raise Unavailable("the network is being restarted")
        with trio.CancelScope() as scope:
            life.calls.add(scope)
            try:
                yield life
            finally:
                life.calls.discard(scope)
        if scope.cancelled_caught:
            raise Unavailable("the network was restarted")

    # --- answering ----------------------------------------------------------------------------------------------------
    def serve_requests(self, service: Service) -> None:
        """Answer requests with `service`; until then they are answered busy. It stays across restarts of the host.

        A service that raises costs its stream only. At most REQUESTS_PER_PEER and REQUESTS_MAX run at once.
        """
        self._requests.service = service

    def serve_blobs(self, blob_size: BlobSize, read_blob: ReadBlob) -> None:
        """Send blobs from this store: size by SHA-256 or None, and up to `length` bytes from an offset."""
        self._blobs.size, self._blobs.read = blob_size, read_blob

    # --- one host after another ---------------------------------------------------------------------------------------
    async def serve(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a host running until cancelled; started once the first one listens.

        Raises:
            LocalError: the first host cannot start. Later failures are logged and tried again, slower each time.
        """
        guards.install()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            wait, announced = RESTART_FIRST_S, False

            def up() -> None:
                nonlocal announced
                if not announced:
                    announced = True
                    task_status.started()

            while True:
                began = trio.current_time()
                try:
                    await self._live(up)
                except Exception as error:
                    if not announced:
                        raise
                    # Everything the library can raise ends up here, and only here.
                    log.warning("the network host failed and is started again: %r", error)
                self.restarts += 1
                wait = RESTART_FIRST_S if trio.current_time() - began > STEADY_S else wait
                await trio.sleep(wait)
                wait = min(wait * 2, RESTART_LAST_S)

    async def _live(self, up: Callable[[], None]) -> None:
        life = _Life(_make_host(self._seed, self._expand))
        guards.choose(life.network, partial(self._turns_away, life))
        life.host.set_stream_handler(TProtocol(streams.REQUEST_PROTOCOL), _for_peers(self._requests.serve))
        life.host.set_stream_handler(TProtocol(streams.BLOB_PROTOCOL), _for_peers(self._blobs.serve))
        life.network.register_notifee(_Notices(self._on_notice))
        rides = [rider(life.host) for rider in self._riders]
        try:
            async with AsyncExitStack() as stack:
                _refuse_taken(self._listen)
                await stack.enter_async_context(life.host.run(self._listen))
                self._listen = [_bound(life, wanted) for wanted in self._listen]
                _lengthen_backlogs(life)
                for ride in rides:
                    await stack.enter_async_context(ride)
                self._life = life
                up()
                await trio.sleep_forever()
        finally:
            self._life = None
            self._stir.set()
            for scope in life.calls:
                scope.cancel()
            await _quietly(life.host.close)  # the library leaves sockets open when it is cancelled

    def _turns_away(self, life: _Life, library_id: Any) -> bool:
        """Whether a connection that has just proven its key is closed again."""
        key = _key_of(library_id.to_base58())
        return key is None or self.refuses(key) or len(life.connections(key)) >= CONNECTIONS_PER_PEER

    async def _watch(self) -> None:
        """Report how the table changed since the last report, as fast as somebody reads it."""
        known: dict[PeerKey, list[Any]] = {}
        while True:
            table = self._life.table() if self._life else {}
            for key in list(known):
                if not any(conn in known[key] for conn in table.get(key, ())):
                    del known[key]
                    await self._send_change.send(Disconnected(key))
            for key, conns in table.items():
                if key not in known:
                    inbound = conns[0].direction == Direction.INBOUND
                    await self._send_change.send(Connected(key, _address_of(conns[0]), inbound))
                known[key] = conns
            with trio.move_on_after(WATCH_S):
                await self._stir.wait()
            self._stir = trio.Event()

    async def _on_notice(self) -> None:
        self._stir.set()

    def _expand(self, listening: Sequence[Any]) -> list[Any]:
        """Announced addresses, then those we listen on; wildcards become the addresses of this machine."""
        now = trio.current_time()
        if now - self._interfaces[0] > INTERFACES_S:
            self._interfaces = (now, _interface_addresses())
        found = list(self._announce)
        for address in map(str, listening):
            family, host, rest = address.split("/", 3)[1:]
            if host in ("0.0.0.0", "::"):
                found += [f"/{family}/{ip}/{rest}" for ip in self._interfaces[1] if (":" in ip) == (family == "ip6")]
            else:
                found.append(address)
        return [Multiaddr(text) for text in list(dict.fromkeys(found))[:ADDRESSES_MAX]]


@asynccontextmanager
async def open_host(
    seed: bytes, listen: Sequence[str], riders: Sequence[Rider] = (), announce: Sequence[str] = ()
) -> AsyncIterator[Mesh]:
    """A Mesh that is served while the block runs.

    Raises:
        ExceptionGroup: of the block's exception, or of a LocalError when it cannot listen.
    """
    mesh = Mesh(seed, listen, riders, announce)
    async with trio.open_nursery() as nursery:
        await nursery.start(mesh.serve)
        yield mesh
        nursery.cancel_scope.cancel()


# --- the library, dressed for our use ---------------------------------------------------------------------------------
class _Notices:
    """Hears the library say that something about connections changed; what exactly is read from its table."""

    def __init__(self, notice: Callable[[], Awaitable[None]]) -> None:
        self._notice = notice

    async def connected(self, network: Any, conn: Any) -> None:
        await self._notice()

    async def disconnected(self, network: Any, conn: Any) -> None:
        await self._notice()

    async def opened_stream(self, network: Any, stream: Any) -> None: ...
    async def closed_stream(self, network: Any, stream: Any) -> None: ...
    async def listen(self, network: Any, multiaddr: Any) -> None: ...
    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...


def _make_host(seed: bytes, expand: Callable[[Sequence[Any]], list[Any]]) -> Any:
    """A host that speaks TCP, Noise and Yamux and nothing else; its own choice would accept plaintext strangers."""
    keys = create_new_key_pair(seed)
    host = new_host(
        key_pair=keys,
        sec_opt={NOISE: Noise(keys, noise_privkey=create_noise_key().private_key)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        connection_config=ConnectionConfig(
            max_connections=PEERS_MAX,
            min_connections=0,
            low_watermark=0,
            high_watermark=PEERS_MAX,
            max_connections_per_peer=2,  # two nodes may dial each other at the same moment
            inbound_upgrade_timeout=5,
            outbound_upgrade_timeout=5,
            auto_connect_interval=3600,
        ),
        resource_manager=ResourceManager(limits=ResourceLimits(), enable_circuit_breaker=False),
        addrs_factory=expand,
        disable_identify_address_discovery=True,  # strangers must not add to the addresses we advertise
    )
    network = host.get_network()
    network.set_resource_manager(None)  # it leaks slots of connections that died early; the guards count instead
    network.retry_config = RetryConfig(max_retries=0)  # redialling is ours
    return host


def _for_peers(serve: Callable[[Any, PeerKey], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def handle(stream: Any) -> None:
        key = _key_of(stream.muxed_conn.peer_id.to_base58())
        if key is None:
            await stream.reset()
            return
        await serve(stream, key)

    return handle


def _nobody(key: PeerKey) -> bool:
    return False


async def _uncharged(key: PeerKey, error: PeerError) -> None:
    """Nobody keeps accounts."""


def _library_id(key: PeerKey) -> Any:
    return ID.from_base58(peer_id(key))


@lru_cache(maxsize=4096)
def _key_of(text: str) -> PeerKey | None:
    try:
        return key_of_peer_id(text)
    except ValueError:
        return None


def _open(conn: Any) -> bool:
    return not conn.is_closed and not conn.muxed_conn.is_closed


def _address_of(conn: Any) -> str:
    addresses = conn.get_transport_addresses()
    return str(addresses[0]) if addresses else ""


def _dialable(text: str, key: PeerKey) -> Any:
    """The address without its id, or None when we cannot dial it or it names another peer."""
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if names[-1:] == ["p2p"]:
            if address.value_for_protocol("p2p") != peer_id(key):
                return None
            names.pop()
            address = address.decapsulate(Multiaddr(f"/p2p/{peer_id(key)}"))
    except Exception:  # noqa: BLE001 - a peer's text; the parser raises a dozen kinds
        return None
    return address if names[1:] == ["tcp"] and names[0] in ("ip4", "ip6", "dns", "dns4", "dns6") else None


def _bound(life: _Life, wanted: Any) -> Any:
    """The address really listened on; a restarted host takes the same port again."""
    listener = life.network.listeners.get(str(wanted))
    found = listener.get_addrs() if listener else ()
    if not found:
        raise LocalError(f"cannot listen on {wanted}", "in use, or not an address of this machine", "choose another")
    return found[0]


def _lengthen_backlogs(life: _Life) -> None:
    for listener in life.network.listeners.values():
        for waiting in listener.listeners:
            waiting.socket.listen(BACKLOG)


def _refuse_taken(listen: Sequence[Any]) -> None:
    """The library shares a port with every process of the same user that shares it too: two nodes would split the
    connections that come in, and neither would say a word.

    Raises:
        LocalError: somebody listens there already.
    """
    for address in listen:
        family, host, _, port = str(address).split("/")[1:5]
        if family not in ("ip4", "ip6"):
            continue
        with socket.socket(socket.AF_INET6 if family == "ip6" else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not what an ended node left behind
            if family == "ip6":
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise LocalError(f"cannot listen on {address}", error.strerror or "", "choose another") from None


def _interface_addresses() -> list[str]:
    """IP addresses of this machine others may reach; loopback only when there is nothing else."""
    entries = [entry for found in psutil.net_if_addrs().values() for entry in found]
    every = [entry.address for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
    outward = [ip for ip in every if not ip.startswith(("127.", "fe80", "169.254.")) and ip != "::1"]
    return outward or ["127.0.0.1"]


async def _hang_up(life: _Life, key: PeerKey) -> None:
    for conn in life.network.get_connections(_library_id(key)):
        # The socket first: a polite goodbye would wait behind a write that hangs.
        await _quietly(conn.muxed_conn.secured_conn.close)
        await _quietly(conn.close)
        life.network.remove_conn(conn)


async def _quietly(step: Callable[[], Awaitable[Any]]) -> None:
    with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - taking down what may be broken in any way
            log.debug("closing: %r", error)
