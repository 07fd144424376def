"""Getting blobs from whoever holds them, and the descriptors and results that are made of blobs.

Knows content hashes and holders. Must never know why a blob is wanted. Transfers resume where they broke off; what
arrives is believed only when its hash is right.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, cast

import trio

from daemon.host import Mesh
from dht.service import Directory
from nexapod.encoding import decode, encode
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.limits import DESCRIPTOR_BYTES_MAX, REPLY_BYTES_MAX, REQUEST_MS, RESULT_BYTES_MAX
from nexapod.messages import Ask, AskHolding, HoldingReply, Reply
from runtime.blobs import BlobStore
from runtime.outputs import parse_manifest
from runtime.task import OutputFile

HOLDERS_ASKED_MAX = 16  # peers asked whether they hold a blob
BLOB_S = 600.0  # one attempt at one blob from one holder
TRANSFERS_AT_ONCE = 4  # further ones wait their turn
DISK_THREADS = trio.CapacityLimiter(4)

log = logging.getLogger("nexapod.transfer")

Contents: TypeAlias = tuple[int, tuple[OutputFile, ...]]  # what a result manifest says: exit code and files
Charge: TypeAlias = Callable[[bytes, PeerError], Awaitable[None]]  # takes the key of a peer and its breach


class Transfer:
    """Blobs of this node and, through the mesh, of others."""

    def __init__(self, mesh: Mesh, blobs: BlobStore, directory: Directory) -> None:
        self._mesh, self.blobs, self._directory = mesh, blobs, directory
        self._turns = trio.CapacityLimiter(TRANSFERS_AT_ONCE)
        self._coming: dict[bytes, trio.Event] = {}

    def serve(self) -> None:
        """Let peers read this node's blobs."""
        self._mesh.serve_blobs(self._size, self._read)

    async def _size(self, sha256: bytes) -> int | None:
        try:
            return await trio.to_thread.run_sync(self.blobs.size, sha256, limiter=DISK_THREADS)
        except KeyError:
            return None

    async def _read(self, sha256: bytes, offset: int, length: int) -> bytes | None:
        try:
            return await trio.to_thread.run_sync(self.blobs.read, sha256, offset, length, limiter=DISK_THREADS)
        except KeyError:
            return None

    async def put(self, content: bytes) -> bytes:
        """Keep a blob; returns its SHA-256."""
        return await trio.to_thread.run_sync(self.blobs.put, content, limiter=DISK_THREADS)

    async def need(self, sha256: bytes, *, size_max: int, holders: Iterable[bytes] = ()) -> None:
        """Make sure a blob is on this disk; `holders` are keys of nodes to ask first.

        Raises:
            Unavailable: nobody reachable holds it, or all attempts broke off.
            LocalError: there is no room for it.
        """
        while not self.blobs.has(sha256):
            coming = self._coming.get(sha256)
            if coming is not None:
                await coming.wait()
                continue
            event = self._coming[sha256] = trio.Event()
            try:
                async with self._turns:
                    await self._pull(sha256, size_max, list(holders))
            finally:
                del self._coming[sha256]
                event.set()

    async def _pull(self, sha256: bytes, size_max: int, first: list[bytes]) -> None:
        connected = self._mesh.connected()
        tried: set[bytes] = set()
        for key in first:
            if key in connected and key not in tried:
                tried.add(key)
                if await self._pull_from(key, sha256, size_max):
                    return
        for key in await self._holders(sha256, connected - tried):
            if await self._pull_from(key, sha256, size_max):
                return
        raise Unavailable(f"nobody reachable holds blob {sha256.hex()[:12]}")

    async def _pull_from(self, key: bytes, sha256: bytes, size_max: int) -> bool:
        """One attempt, resuming what an earlier one left."""
        alone = False
        try:
            with trio.move_on_after(BLOB_S):
                partial = self.blobs.partial(sha256, size_max)
                alone = partial.have == 0

                async def write(chunk: bytes) -> None:
                    await trio.to_thread.run_sync(partial.append, chunk, limiter=DISK_THREADS)

                await self._mesh.fetch(key, sha256, partial.have, write, size_max=size_max)
                await trio.to_thread.run_sync(partial.commit, limiter=DISK_THREADS)
                return True
        except Unavailable as error:
            log.debug("blob %s not from %s: %s", sha256.hex()[:12], key.hex()[:12], error)
        except PeerError as error:
            log.debug("blob %s not from %s: %s", sha256.hex()[:12], key.hex()[:12], error)
            if alone and not error.peer:  # else another may have sent the wrong bytes, or the mesh has charged it
                await self._mesh.on_breach(key, error)
        return False

    async def _holders(self, sha256: bytes, peers: Iterable[bytes]) -> list[bytes]:
        """Peers that say they hold a blob; the DHT is asked when no connected one does."""
        found: list[bytes] = []

        async def ask(key: bytes) -> None:
            reply = await ask_peer(self._mesh, key, AskHolding((sha256,)))
            if isinstance(reply, HoldingReply) and reply.held:
                found.append(key)

        async with trio.open_nursery() as nursery:
            for key in list(peers)[:HOLDERS_ASKED_MAX]:
                nursery.start_soon(ask, key)
        if not found:
            with trio.move_on_after(REQUEST_MS / 1000):
                connected = self._mesh.connected()
                found = [key for key in await self._directory.providers(sha256) if key in connected]
        return found

    async def need_result(self, root: bytes, *, holders: Iterable[bytes] = ()) -> Contents:
        """Make sure a result manifest and every file it names are on this disk.

        Raises:
            Unavailable: as `need`; also when the manifest behind `root` is not one.
        """
        keys = list(holders)
        exit_code, files = await self.need_manifest(root, holders=keys)
        for file in files:
            await self.need(file.sha256, size_max=file.size, holders=keys)
        return exit_code, files

    async def need_manifest(self, root: bytes, *, holders: Iterable[bytes] = ()) -> Contents:
        """Make sure a result manifest is on this disk, and read it.

        Raises:
            Unavailable: as `need`; also when the blob behind `root` is not a manifest.
        """
        await self.need(root, size_max=RESULT_BYTES_MAX, holders=holders)
        try:
            return parse_manifest(await self.content(root, RESULT_BYTES_MAX))
        except PeerError as error:
            raise Unavailable(f"result {root.hex()[:12]} is not a result manifest: {error}") from None

    async def content(self, sha256: bytes, size_max: int = DESCRIPTOR_BYTES_MAX) -> bytes:
        """A small blob that is on this disk."""
        raw = await self._read(sha256, 0, size_max)
        if raw is None:
            raise LocalError(f"blob {sha256.hex()[:12]} vanished from this node's store")
        return raw

    def held(self, blobs: Iterable[bytes]) -> tuple[int, ...]:
        """Positions of the blobs that are here."""
        return tuple(index for index, sha256 in enumerate(blobs) if self.blobs.has(sha256))


async def ask_peer(
    mesh: Mesh, key: bytes, question: Ask, *, timeout_ms: int = REQUEST_MS, blame: Charge | None = None
) -> Reply | None:
    """One question to a connected peer; None when it is gone, too slow, or answers rubbish, for which it is charged."""
    breach: PeerError | None = None
    with trio.move_on_after(timeout_ms / 1000):
        try:
            raw = await mesh.request(key, encode(question), reply_max=REPLY_BYTES_MAX)
            return cast(Reply, decode(raw, cast(Any, Reply), size_max=REPLY_BYTES_MAX))
        except Unavailable as error:
            log.debug("%s to %s: %s", type(question).__name__, key.hex()[:12], error)
        except PeerError as error:
            log.debug("%s to %s: %s", type(question).__name__, key.hex()[:12], error)
            breach = None if error.peer else error  # what names its peer the mesh has charged
    if breach is not None:
        await (blame or mesh.on_breach)(key, breach)
    return None
