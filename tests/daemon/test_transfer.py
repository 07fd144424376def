"""Blobs over real hosts: resumed where they broke off, believed only when they are right, fetched once."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from daemon.host import Mesh, open_host
from daemon.transfer import Transfer, ask_peer
from dht.service import Directory
from nexapod.encoding import decode, encode
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.hashing import blob_id
from nexapod.messages import Ask, AskHolding, AskPing, Done, HoldingReply
from runtime.blobs import BlobStore
from runtime.outputs import manifest_of
from runtime.task import OutputFile
from tests.daemon.standing import LOOPBACK, PATIENCE_S

MB = 2**20
BLOB = bytes(range(256)) * 8192  # 2 MiB


class Holder(NamedTuple):
    """A node that can be asked for blobs, and what it was asked for: (sha256, offset) of each read."""

    mesh: Mesh
    transfer: Transfer
    reads: list[tuple[bytes, int]]

    @property
    def key(self) -> bytes:
        return self.mesh.key

    def put(self, content: bytes) -> bytes:
        return self.transfer.blobs.put(content)

    async def answer(self, key: bytes, payload: bytes) -> bytes:
        ask: Any = decode(payload, Ask, size_max=len(payload))  # type: ignore[arg-type]
        assert isinstance(ask, AskHolding)
        return encode(HoldingReply(self.transfer.held(ask.blobs)))


@asynccontextmanager
async def holders(folder: Path, count: int, quota: int = 64 * MB) -> AsyncIterator[list[Holder]]:
    """Connected nodes; the first is connected to all others."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            mesh = await stack.enter_async_context(open_host(bytes([number + 1]) * 32, LOOPBACK))
            store = BlobStore(folder / str(number), quota)
            made = Holder(mesh, Transfer(mesh, store, Directory(bytes(32), lambda: None)), [])
            made.transfer.serve()
            mesh.serve_requests(made.answer)
            found.append(made)
        with trio.fail_after(PATIENCE_S):
            for other in found[1:]:
                await found[0].mesh.connect(other.key, other.mesh.addresses())
        yield found


def watch_reads(holder: Holder) -> None:
    async def read(sha256: bytes, offset: int, length: int) -> bytes | None:
        holder.reads.append((sha256, offset))
        return await holder.transfer._read(sha256, offset, length)

    holder.mesh.serve_blobs(holder.transfer._size, read)


async def test_a_blob_comes_from_whoever_holds_it(tmp_path: Path) -> None:
    async with holders(tmp_path, 3) as (one, _, third):
        sha = third.put(BLOB)
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(sha, size_max=len(BLOB))
            assert one.transfer.blobs.read(sha) == BLOB
            assert await one.transfer.content(sha, len(BLOB)) == BLOB
            assert one.transfer.held([bytes(32), sha]) == (1,)
            with pytest.raises(Unavailable, match="nobody reachable"):
                await one.transfer.need(bytes(32), size_max=10)
            with pytest.raises(Unavailable):  # larger than allowed is as good as not there
                await one.transfer.need(third.put(BLOB[1:]), size_max=10)
            with pytest.raises(LocalError, match="vanished"):
                await one.transfer.content(bytes(32))


async def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(other.put(b""), size_max=0)
        assert one.transfer.blobs.read(blob_id(b"")) == b""


async def test_what_is_here_is_asked_of_nobody(tmp_path: Path) -> None:
    async with holders(tmp_path, 1) as (one,):
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(await one.transfer.put(b"here"), size_max=1)


async def test_a_transfer_goes_on_where_it_broke_off_with_another_holder(tmp_path: Path) -> None:
    async with holders(tmp_path, 3) as (one, breaks, whole):
        sha = blob_id(BLOB)
        assert whole.put(BLOB) == breaks.put(BLOB) == sha
        watch_reads(whole)

        async def read(sha256: bytes, offset: int, length: int) -> bytes | None:
            if offset >= MB:
                await breaks.mesh.disconnect(one.key)
                await trio.sleep_forever()
            return BLOB[offset : offset + length]

        breaks.mesh.serve_blobs(breaks.transfer._size, read)
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(sha, size_max=len(BLOB), holders=[breaks.key, whole.key])
        assert one.transfer.blobs.read(sha) == BLOB
        assert whole.reads[0] == (sha, MB)


async def test_a_transfer_goes_on_after_a_restart(tmp_path: Path) -> None:
    sha = blob_id(BLOB)
    BlobStore(tmp_path / "0", 64 * MB).partial(sha, len(BLOB)).append(BLOB[:1000])
    async with holders(tmp_path, 2) as (one, other):
        other.put(BLOB)
        watch_reads(other)
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(sha, size_max=len(BLOB))
        assert other.reads[0] == (sha, 1000)
        assert one.transfer.blobs.read(sha) == BLOB


async def test_wrong_bytes_cost_one_attempt_and_are_not_kept(tmp_path: Path) -> None:
    async with holders(tmp_path, 3) as (one, liar, honest):
        sha = honest.put(BLOB)

        async def size(sha256: bytes) -> int | None:
            return len(BLOB)

        async def read(sha256: bytes, offset: int, length: int) -> bytes | None:
            return bytes(min(length, len(BLOB) - offset))

        liar.mesh.serve_blobs(size, read)
        with trio.fail_after(PATIENCE_S):
            await one.transfer.need(sha, size_max=len(BLOB), holders=[liar.key])
            assert one.transfer.blobs.read(sha) == BLOB
            assert one.transfer.blobs.total_bytes == len(BLOB)
            with pytest.raises(Unavailable):  # a liar alone gives nothing
                await one.transfer.need(bytes(32), size_max=len(BLOB), holders=[liar.key])
            assert one.transfer.blobs.total_bytes == len(BLOB)


async def test_two_who_need_one_blob_fetch_it_once(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):
        sha = other.put(BLOB)
        watch_reads(other)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(lambda: one.transfer.need(sha, size_max=len(BLOB), holders=[other.key]))
        offsets = [offset for name, offset in other.reads if name == sha]
        assert offsets == sorted(set(offsets))


async def test_who_waited_for_a_fetch_that_failed_tries_itself(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):
        sha, begun, turn = blob_id(b"late"), trio.Event(), trio.Event()

        async def size(sha256: bytes) -> int | None:
            begun.set()
            await turn.wait()
            return None

        other.mesh.serve_blobs(size, other.transfer._read)

        async def first() -> None:
            with pytest.raises(Unavailable):
                await one.transfer.need(sha, size_max=10, holders=[other.key])

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await begun.wait()
                nursery.start_soon(lambda: one.transfer.need(sha, size_max=10, holders=[other.key]))
                await trio.testing.wait_all_tasks_blocked()
                one.put(b"late")
                turn.set()


async def test_without_room_nothing_is_left_behind(tmp_path: Path) -> None:
    async with holders(tmp_path, 2, quota=3 * MB) as (one, other):
        sha = other.put(BLOB)
        one.put(BLOB[: MB + MB // 2])
        before = one.transfer.blobs.total_bytes
        with trio.fail_after(PATIENCE_S), pytest.raises(LocalError, match="no room"):
            await one.transfer.need(sha, size_max=len(BLOB), holders=[other.key])
        assert not one.transfer.blobs.has(sha)
        one.transfer.blobs.partial(sha, 0)  # what had come may stay for another attempt; it counts
        assert one.transfer.blobs.total_bytes == before


async def test_a_result_is_its_manifest_and_every_file_it_names(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):
        files = [OutputFile(name, len(name), other.put(name.encode())) for name in ("a", "b/c")]
        root = other.put(manifest_of(3, files))
        with trio.fail_after(PATIENCE_S):
            assert await one.transfer.need_manifest(root) == (3, tuple(files))
            assert not one.transfer.blobs.has(files[0].sha256)
            assert await one.transfer.need_result(root) == (3, tuple(files))
            assert one.transfer.held(file.sha256 for file in files) == (0, 1)
            with pytest.raises(Unavailable, match="not a result manifest"):
                await one.transfer.need_result(other.put(b"rubbish"))


# --- questions --------------------------------------------------------------------------------------------------------
async def test_an_answer_or_none(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):
        replies = [encode(Done()), b"rubbish", encode(AskPing())]
        blamed: list[PeerError] = []

        async def answer(key: bytes, payload: bytes) -> bytes:
            return replies.pop(0)

        async def blame(key: bytes, error: PeerError) -> None:
            assert key == other.key
            blamed.append(error)

        other.mesh.serve_requests(answer)
        with trio.fail_after(PATIENCE_S):
            assert await ask_peer(one.mesh, other.key, AskPing(), blame=blame) == Done()
            assert blamed == []
            assert await ask_peer(one.mesh, other.key, AskPing(), blame=blame) is None
            assert await ask_peer(one.mesh, other.key, AskPing()) is None
            assert len(blamed) == 1
            assert await ask_peer(one.mesh, bytes(32), AskPing(), blame=blame) is None
            assert len(blamed) == 1


async def test_a_peer_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    async with holders(tmp_path, 2) as (one, other):

        async def answer(key: bytes, payload: bytes) -> bytes:
            await trio.sleep_forever()
            return b""

        other.mesh.serve_requests(answer)
        with trio.fail_after(PATIENCE_S):
            assert await ask_peer(one.mesh, other.key, AskPing(), timeout_ms=100) is None
