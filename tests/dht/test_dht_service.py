"""Adverts and providers among real hosts on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

import pytest
import trio
from libp2p.peer.id import ID

from daemon.host import Mesh, open_host
from dht import advert as adverts
from dht import service
from dht.kad import PROVIDERS_MAX, Table, shared_out
from dht.service import Directory
from nexapod.errors import Unavailable
from nexapod.events import sign_note
from nexapod.hashing import Tag
from nexapod.identity import Key, peer_id
from nexapod.messages import Advert, Gpu, Profile

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 30
NETID = b"\7" * 32
RAW_ID = bytes.fromhex("002408011220")  # what stands before an Ed25519 key in the bytes of a PeerId
NVIDIA = (Gpu("nvidia", "H200", 2**37),)
T = TypeVar("T")


class Node:
    """One node's advert, with a fresh seq each time it is published."""

    def __init__(self, number: int, gpus: tuple[Gpu, ...] = ()) -> None:
        self.seed = bytes([number]) * 32
        self.key, self.gpus, self.seq, self.name = Key.from_seed(self.seed), gpus, 0, f"n{number}"
        self.directory = Directory(NETID, self.advert)

    def advert(self) -> bytes:
        self.seq += 1
        profile = Profile(4, 8 * 2**30, 2**40, 10**9, "x86", self.gpus)
        note = Advert(self.key.public, b"\5" * 32, self.seq, 3_600_000, self.name, (), ("docker",), 1, 4, profile)
        return sign_note(self.key, Tag.ADVERT, NETID, note)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 0.1)
    monkeypatch.setattr(service, "PROVIDE_EVERY_S", 0.1)
    monkeypatch.setattr(service, "FIRST_TRY_S", 0.2)


@asynccontextmanager
async def chain(*nodes: Node) -> AsyncIterator[list[Mesh]]:
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(open_host(node.seed, LOOPBACK, [node.directory.ride])) for node in nodes
        ]
        with trio.fail_after(PATIENCE_S):
            for left, right in pairwise(hosts):
                await left.connect(right.key, right.addresses())
        yield hosts


async def found(search: Callable[[], Awaitable[T]]) -> T:
    with trio.fail_after(PATIENCE_S):
        while not (result := await search()):  # noqa: ASYNC110 - what is searched arrives by the library
            await trio.sleep(0.05)
    return result


def opened(raw: bytes) -> Advert:
    return adverts.open_advert(raw, NETID)


async def test_adverts_are_found_by_key_and_by_need_across_the_mesh() -> None:
    nodes = [Node(1), Node(2), Node(3), Node(4, NVIDIA)]
    first, second, _, fourth = nodes
    async with chain(*nodes):
        raw = await found(lambda: first.directory.advert_of(fourth.key.public))
        assert opened(raw).name == "n4"
        need = adverts.labels_for("docker", 2**30, "nvidia")
        assert [opened(raw).name for raw in await found(lambda: first.directory.find(need))] == ["n4"]
        assert await first.directory.advert_of(bytes(32)) is None
        assert await second.directory.find(adverts.labels_for("docker", 2**30, "amd")) == []


async def test_a_changed_advert_replaces_the_copies_others_keep() -> None:
    first, second, third = Node(1), Node(2), Node(3)
    async with chain(first, second, third):
        old = opened(await found(lambda: first.directory.advert_of(third.key.public)))
        third.name = "renamed"
        third.directory.advert_changed()

        async def renamed() -> bool:
            raw = await first.directory.advert_of(third.key.public)
            return raw is not None and opened(raw).name == "renamed" and opened(raw).seq > old.seq

        await found(renamed)


async def test_holders_of_a_blob_are_found_also_by_a_holder() -> None:
    first, second, third = Node(1), Node(2), Node(3)
    blob = b"\x33" * 32
    async with chain(first, second, third):
        first.directory.provide(blob)
        second.directory.provide(blob)

        async def both() -> bool:
            holders = {first.key.public, second.key.public}
            return all([set(await node.directory.providers(blob)) == holders for node in (first, second, third)])

        await found(both)
        assert await third.directory.providers(b"\x44" * 32) == []


async def test_hostile_records_are_stored_nowhere() -> None:
    victim, node = Node(1), Node(2)
    tables: list[Table] = []

    def lawless(host: Any) -> Any:
        tables.append(Table(host, "nexapod", lambda key, value: None, lambda values: 0))
        return tables[0].running()

    async with chain(victim, node) as (mesh, _), open_host(bytes([6]) * 32, LOOPBACK, [lawless]) as attacker:
        await found(lambda: victim.directory.advert_of(node.key.public))
        with trio.fail_after(PATIENCE_S):
            await attacker.connect(mesh.key, mesh.addresses())
        name = adverts.record_key(NETID, node.key.public)
        own = Node(6)
        store, target = tables[0]._dht.value_store, ID.from_base58(peer_id(victim.key.public))
        for key, value in [
            (name, b"rubbish"),
            (name, Node(5).advert()),
            (name, bytes(200_000)),
            ("/pk/x", b"x"),
            ("plain", b"x"),
            ("/nexapod/x", node.advert()),
        ]:
            assert not await store._store_at_peer(target, key.encode(), value), key
        own_name = adverts.record_key(NETID, own.key.public)
        assert await store._store_at_peer(target, own_name.encode(), own.advert())  # the way itself works
        raw = await victim.directory.advert_of(node.key.public)
        assert raw is not None
        assert opened(raw).key == node.key.public


async def test_an_old_record_answered_by_a_liar_replaces_no_newer_copy() -> None:
    victim, absent = Node(1), Node(2)
    old, new = absent.advert(), absent.advert()
    tables: list[Table] = []

    def lawless(host: Any) -> Any:
        tables.append(Table(host, "nexapod", lambda key, value: None, lambda values: 0))
        return tables[0].running()

    async with chain(victim) as (mesh,), open_host(bytes([6]) * 32, LOOPBACK, [lawless]) as attacker:
        with trio.fail_after(PATIENCE_S):
            await attacker.connect(mesh.key, mesh.addresses())
        name = adverts.record_key(NETID, absent.key.public).encode()
        lie, target = tables[0]._dht.value_store, ID.from_base58(peer_id(victim.key.public))
        assert await lie._store_at_peer(target, name, new)
        assert not await lie._store_at_peer(target, name, old), "an older record is not taken in place of a newer one"
        lie.put(name, old)
        assert victim.directory._table is not None
        with trio.fail_after(PATIENCE_S):
            assert await victim.directory._table._dht.value_store._get_from_peer(ID(RAW_ID + attacker.key), name) == old
            assert await victim.directory.advert_of(absent.key.public) == new
        assert victim.directory._table._dht.value_store.get(name).value == new


def test_a_liar_with_many_providers_crowds_nobody_out() -> None:
    honest = [b"1", b"2"]
    invented: list[bytes | None] = [b"x%d" % number for number in range(10 * PROVIDERS_MAX)]
    shared = shared_out([[], invented, [b"1", None, b"2"], invented[5:]])
    assert len(shared) == PROVIDERS_MAX
    assert set(honest) <= set(shared[:9])
    assert shared_out([]) == shared_out([[None]]) == []


async def test_an_own_advert_that_is_not_sound_is_not_the_end_of_the_network() -> None:
    asked = trio.Event()

    def unsound() -> bytes:
        asked.set()
        return b"rubbish"

    broken, friend = Node(1), Node(2)
    broken.directory = Directory(NETID, unsound)
    async with chain(broken, friend) as (mesh, _):
        with trio.fail_after(PATIENCE_S):
            await asked.wait()
        raw = await found(lambda: broken.directory.advert_of(friend.key.public))
        assert opened(raw).name == "n2"
        assert mesh.restarts == 0


async def test_alone_nothing_is_found_and_nothing_raises() -> None:
    node = Node(1)
    assert await node.directory.find(["engine=docker"]) == []
    async with chain(node):
        with trio.fail_after(PATIENCE_S):
            assert await node.directory.advert_of(bytes(32)) is None
            assert await node.directory.providers(bytes(32)) == []


async def test_a_record_needs_somebody_to_keep_it() -> None:
    tables: list[Table] = []

    def ride(host: Any) -> Any:
        tables.append(Table(host, "nexapod", lambda key, value: None, lambda values: 0))
        return tables[0].running()

    async with open_host(bytes([1]) * 32, LOOPBACK, [ride]):
        with pytest.raises(Unavailable, match="nobody"):
            await tables[0].put("/nexapod/x", b"x")
