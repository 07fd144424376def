"""Two protocols between two nodes: one request with its reply, and a range of a blob.

Knows how their frames look and how a libp2p stream is opened, read and given up. Must never know what a request means
or where a blob is kept. Deadlines are the caller's cancel scope; a write that has begun is finished by the guards.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum
from typing import Any, TypeAlias

import trio
from libp2p.network.stream.exceptions import StreamEOF

from nexapod.errors import PeerError, Unavailable
from nexapod.hashing import HASH_BYTES
from nexapod.limits import PEERS_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX, REQUESTS_PER_PEER

REQUEST_PROTOCOL = "/nexapod/req/1"
BLOB_PROTOCOL = "/nexapod/blob/1"
CHUNK_BYTES = 65_524  # 64 KiB less the yamux header: exactly one frame
READ_BYTES = 262_144  # one read from a stream
SLICE_BYTES = 1_048_576  # one read from the disk, sent as 16 chunks
BLOBS_PER_PEER = 4  # transfers one peer may have running here; the next is answered busy
BLOBS_MAX = 32  # the same for all peers together
REQUEST_READ_S = 10.0  # a request must have arrived within this; it holds a slot meanwhile
DRIP_COST = (
    5  # of one that has not: a peer with a bad line stays below what is enough, one that drips by design does not
)
SERVICE_S = 60.0  # a service that takes longer is given up; the asker left long ago
REPLY_S = 20.0  # a reply must be taken within this
IDLE_S = 10.0  # silence in the middle of a blob: the peer counts as gone
RESET_S = 1.0  # how long giving up a stream may take

PeerKey: TypeAlias = bytes
Service: TypeAlias = Callable[[PeerKey, bytes], Awaitable[bytes]]
Charge: TypeAlias = Callable[[PeerKey, PeerError], Awaitable[None]]  # takes a peer and what it did
BlobSize: TypeAlias = Callable[[bytes], Awaitable[int | None]]
ReadBlob: TypeAlias = Callable[[bytes, int, int], Awaitable[bytes | None]]

log = logging.getLogger("nexapod.streams")


class Answer(IntEnum):
    """First byte of every reply."""

    OK = 0
    BUSY = 1
    MISSING = 2


_LENGTH = 4
_SIZE = 8
RANGE_BYTES = HASH_BYTES + _SIZE


def frame_request(payload: bytes) -> bytes:
    """Length in four big-endian bytes, then the payload."""
    assert len(payload) <= REQUEST_BYTES_MAX, f"request of {len(payload)} bytes"
    return len(payload).to_bytes(_LENGTH, "big") + payload


def frame_reply(answer: Answer, payload: bytes = b"") -> bytes:
    """Answer byte, length in four bytes, payload."""
    assert len(payload) <= REPLY_BYTES_MAX, f"reply of {len(payload)} bytes"
    return bytes([answer]) + len(payload).to_bytes(_LENGTH, "big") + payload


def parse_length(header: bytes, *, bytes_max: int) -> int:
    """The length in a frame's header.

    Raises:
        PeerError: longer than allowed.
    """
    length = int.from_bytes(header, "big")
    if length > bytes_max:
        raise PeerError(f"frame of {length} bytes, at most {bytes_max} allowed", section="streams", cost=10)
    return length


def parse_answer(byte: int) -> Answer:
    """The answer a reply begins with.

    Raises:
        PeerError: no such answer.
    """
    try:
        return Answer(byte)
    except ValueError:
        raise PeerError(f"unknown answer {byte}", section="streams", cost=10) from None


def frame_range(sha256: bytes, offset: int) -> bytes:
    """What a blob is asked for with: its SHA-256, then the offset in eight big-endian bytes."""
    assert len(sha256) == HASH_BYTES, "a blob is named by its SHA-256"
    return sha256 + offset.to_bytes(_SIZE, "big")


def parse_range(raw: bytes) -> tuple[bytes, int]:
    """SHA-256 and offset; any 40 bytes are a valid question."""
    return raw[:HASH_BYTES], int.from_bytes(raw[HASH_BYTES:], "big")


def frame_size(answer: Answer, size: int = 0) -> bytes:
    """Answer byte, then the size of the whole blob in eight bytes."""
    return bytes([answer]) + size.to_bytes(_SIZE, "big")


# --- reading and giving up --------------------------------------------------------------------------------------------
@contextmanager
def translated() -> Iterator[None]:
    """Whatever the library raises while we talk to a peer becomes Unavailable."""
    try:
        yield
    except (Unavailable, PeerError):
        raise
    except Exception as error:
        raise Unavailable(f"the peer is gone: {type(error).__name__}") from error


async def read_some(stream: Any, size: int) -> bytes:
    """Up to `size` bytes, nothing at the end of the stream. Raises Unavailable when it broke."""
    with translated():
        try:
            piece: bytes = await stream.read(size)
        except StreamEOF:
            return b""
    return piece


async def read_exactly(stream: Any, size: int) -> bytes:
    """Read `size` bytes.

    Raises:
        Unavailable: the stream ended before.
    """
    taken = bytearray()
    while len(taken) < size:
        piece = await read_some(stream, min(size - len(taken), READ_BYTES))
        if not piece:
            raise Unavailable("the stream ended early")
        taken += piece
    return bytes(taken)


async def _discard(stream: Any, size: int) -> None:
    while size > 0 and (piece := await read_some(stream, min(size, READ_BYTES))):
        size -= len(piece)


async def write(stream: Any, data: bytes) -> None:
    """Write all of it. Raises Unavailable when the stream broke or the peer granted no window for 5 s."""
    with translated():
        await stream.write(data)


async def _end(stream: Any, finished: bool) -> None:
    """Close a finished stream, reset any other; in bounded time, also when the caller is cancelled."""
    with trio.CancelScope(deadline=trio.current_time() + RESET_S, shield=True):
        try:
            if finished:
                await stream.close()
            else:
                await stream.reset()
        except Exception as error:  # noqa: BLE001 - the stream may be broken in any way; we are done with it
            log.debug("stream did not end cleanly: %r", error)


@asynccontextmanager
async def opened(host: Any, peer_id: Any, protocol: str) -> AsyncIterator[Any]:
    """A new stream to a connected peer: closed when the block ends well, reset when it does not."""
    with translated():
        stream = await host.new_stream(peer_id, [protocol])
    finished = False
    try:
        yield stream
        finished = True
    finally:
        await _end(stream, finished)


# --- asking -----------------------------------------------------------------------------------------------------------
async def ask(stream: Any, payload: bytes, *, reply_max: int) -> bytes:
    """Send one request and read its reply.

    Raises:
        Unavailable: the peer is gone or busy.
        PeerError: the reply is too long or not a reply.
    """
    await write(stream, frame_request(payload))
    header = await read_exactly(stream, 1 + _LENGTH)
    answer = parse_answer(header[0])
    length = parse_length(header[1:], bytes_max=reply_max)
    if answer is not Answer.OK:
        raise Unavailable(f"the peer is {answer.name.lower()}")
    return await read_exactly(stream, length)


async def pull(stream: Any, blob: tuple[bytes, int], size_max: int, take: Callable[[bytes], Awaitable[None]]) -> int:
    """Ask for `blob`, its SHA-256 and an offset, and hand each piece that arrives to `take` in order.

    Returns the size of the whole blob; the caller checks its hash. What `take` raises passes through.

    Raises:
        Unavailable: the peer does not hold it, is busy, or fell silent (IDLE_S).
        PeerError: the blob is larger than `size_max`.
    """
    sha256, offset = blob
    await write(stream, frame_range(sha256, offset))
    header = await _within(IDLE_S, read_exactly(stream, 1 + _SIZE))
    answer = parse_answer(header[0])
    if answer is not Answer.OK:
        raise Unavailable(f"blob: {answer.name.lower()}")
    size = int.from_bytes(header[1:], "big")
    if size > size_max:
        raise PeerError(f"blob of {size} bytes, at most {size_max} expected", section="streams", cost=10)
    left = size - offset
    while left > 0:
        piece = await _within(IDLE_S, read_some(stream, min(left, READ_BYTES)))
        if not piece:
            raise Unavailable("the blob ended early")
        left -= len(piece)
        await take(piece)
    return size


class Silent(Unavailable):
    """The peer said nothing for too long: its connection should be closed."""


async def _within(seconds: float, step: Awaitable[bytes]) -> bytes:
    with trio.move_on_after(seconds):
        return await step
    raise Silent(f"silent for {seconds:.0f} s")


# --- answering --------------------------------------------------------------------------------------------------------
class Slots:
    """How many things are in work, per peer and for all; a full one refuses instead of waiting."""

    def __init__(self, *, per_peer: int, overall: int) -> None:
        self._per_peer, self._overall = per_peer, overall
        self._taken: Counter[PeerKey] = Counter()

    @contextmanager
    def slot(self, peer: PeerKey) -> Iterator[bool]:
        """Yields whether a slot was free; it is given back when the block ends."""
        if self._taken[peer] >= self._per_peer or self._taken.total() >= self._overall:
            yield False
            return
        self._taken[peer] += 1
        try:
            yield True
        finally:
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]


class RequestServer:
    """Answers requests with whatever service is registered; before that, and when full, with BUSY."""

    def __init__(self, charge: Charge) -> None:
        self.service: Service | None = None
        self._charge = charge
        # Of one peer from its first byte on; of all together only once it is read: what drips must not hold those.
        self._slots = Slots(per_peer=REQUESTS_PER_PEER, overall=REQUESTS_PER_PEER * PEERS_MAX)
        self._working = Slots(per_peer=REQUESTS_PER_PEER, overall=REQUESTS_MAX)

    async def serve(self, stream: Any, peer: PeerKey) -> None:
        """One stream from first to last byte. What goes wrong resets the stream and nothing else."""
        finished = False
        try:
            with self._slots.slot(peer) as free:
                payload = await self._question(stream, read=free and self.service is not None)
                with self._working.slot(peer) as working:
                    finished = await self._reply(stream, peer, payload if working else None)
        except Unavailable as error:
            log.debug("request from %s: %s", peer.hex()[:12], error)
        except PeerError as error:
            log.debug("request from %s: %s", peer.hex()[:12], error)
            await self._charge(peer, error)
        finally:
            await _end(stream, finished)

    async def _question(self, stream: Any, *, read: bool) -> bytes | None:
        """The request; None when it was only thrown away: unread bytes would keep the stream in memory for a minute."""
        with translated(), _arriving():
            length = parse_length(await read_exactly(stream, _LENGTH), bytes_max=REQUEST_BYTES_MAX)
            if read:
                return await read_exactly(stream, length)
            await _discard(stream, length)
            return None

    async def _reply(self, stream: Any, peer: PeerKey, payload: bytes | None) -> bool:
        if payload is None or self.service is None:
            with translated(), trio.fail_after(REPLY_S):
                await stream.write(frame_reply(Answer.BUSY))
            return True
        try:
            with trio.fail_after(SERVICE_S):
                reply = await self.service(peer, payload)
        except Exception:  # a bug in the service costs one stream, never the host
            log.exception("serving a request of %s failed", peer.hex()[:12])
            return False
        with translated(), trio.fail_after(REPLY_S):
            await stream.write(frame_reply(Answer.OK, reply))
        return True


@contextmanager
def _arriving() -> Iterator[None]:
    """A question must have arrived by the end of this. Raises PeerError when it has not."""
    try:
        with trio.fail_after(REQUEST_READ_S):
            yield
    except trio.TooSlowError:
        raise PeerError("a question arrived too slowly", section="streams", cost=DRIP_COST) from None


class BlobServer:
    """Sends ranges of blobs from whatever store is registered."""

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self.size: BlobSize | None = None
        self.read: ReadBlob | None = None
        self._slots = Slots(per_peer=BLOBS_PER_PEER, overall=BLOBS_MAX)

    async def serve(self, stream: Any, peer: PeerKey) -> None:
        """One transfer. A peer that stops reading is given up after REPLY_S and comes back with an offset."""
        finished = False
        try:
            with self._slots.slot(peer) as free, translated():
                with _arriving():
                    sha256, offset = parse_range(await read_exactly(stream, RANGE_BYTES))
                if free and self.size is not None and self.read is not None:
                    await self._send(stream, sha256, offset, self.size, self.read)
                else:
                    await stream.write(frame_size(Answer.BUSY))
                finished = True
        except Unavailable as error:
            log.debug("blob for %s: %s", peer.hex()[:12], error)
        except PeerError as error:
            log.debug("blob for %s: %s", peer.hex()[:12], error)
            await self._charge(peer, error)
        finally:
            await _end(stream, finished)

    async def _send(self, stream: Any, sha256: bytes, offset: int, blob_size: BlobSize, read_blob: ReadBlob) -> None:
        size = await blob_size(sha256)
        if size is None:
            await stream.write(frame_size(Answer.MISSING))
            return
        await stream.write(frame_size(Answer.OK, size))
        while offset < size:
            piece = await read_blob(sha256, offset, min(SLICE_BYTES, size - offset))
            if not piece:
                raise Unavailable("the blob vanished while it was sent")
            for start in range(0, len(piece), CHUNK_BYTES):
                with trio.fail_after(REPLY_S):
                    await stream.write(piece[start : start + CHUNK_BYTES])
            offset += len(piece)
