"""py-libp2p's Kademlia, dressed for our use: records of one namespace, provider keys in bytes, and no stale answers.

Knows the library and its traps: a local copy shadows the network, provider keys that look like hex are decoded, an
equal record is not renewed. Must never know what an advert says; validity is asked for.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice, zip_longest
from typing import Any

import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import NamespacedValidator, Validator
from libp2p.tools.anyio_service import background_trio_service

from nexapod.errors import Unavailable
from nexapod.identity import key_of_raw_peer_id

QUORUM = 3  # equal answers that end a search early; liars need more than luck
ASKED_AT_ONCE = 8
PROVIDERS_MAX = 64  # providers of one key that are looked at

log = logging.getLogger("nexapod.dht")


class _Rule(Validator):  # type: ignore[misc]  # the library is untyped to us
    """Our namespace's rule in the library's shape: raise, or say which value is best."""

    def __init__(self, fault: Callable[[str, bytes], str | None], newest: Callable[[list[bytes]], int]) -> None:
        self._fault, self._newest = fault, newest

    def validate(self, key: str, value: bytes) -> None:
        reason = self._fault(key, value)
        if reason is not None:
            raise ValueError(reason)

    def select(self, key: str, values: list[bytes]) -> int:
        return self._newest(values)


class Table:
    """Kademlia on one libp2p host; make it before the host listens, run it while the host runs.

    Every call runs under the caller's deadline and raises Unavailable for whatever the library raises.
    """

    def __init__(
        self,
        host: Any,
        namespace: str,
        fault: Callable[[str, bytes], str | None],
        newest: Callable[[list[bytes]], int],
    ) -> None:
        """`fault(record key, value)` names what is wrong with a record; `newest` picks the best of valid ones."""
        self._host, self._newest = host, newest
        rules = NamespacedValidator({namespace: _Rule(fault, newest)}, strict_validation=True)
        self._dht = KadDHT(host, DHTMode.SERVER, validator=rules, validator_changed=True, strict_validation=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer others and keep the routing table while the block runs."""
        async with background_trio_service(self._dht):
            yield

    async def put(self, key: str, value: bytes) -> None:
        """Store a record with the peers closest to its key.

        Raises:
            Unavailable: nobody is connected (the library would be content with the local copy).
        """
        with _translated():
            if not self._host.get_connected_peers():
                raise Unavailable("nobody is connected")
            await self._meet_neighbours()
            await self._dht.put_value(key, value)

    async def get(self, key: str) -> bytes | None:
        """The newest valid record found in the network or here."""
        store, raw_key = self._dht.value_store, key.encode()
        with _translated():
            await self._meet_neighbours()
            store.get(raw_key)  # strikes it out when it is too old
            kept = store.store.get(raw_key)
            store.store.pop(raw_key, None)  # the library would answer with our own, possibly stale copy
            try:
                found: bytes | None = await self._dht.get_value(key, quorum=QUORUM)
            finally:
                self._keep_newer(raw_key, kept)
        values = [value for value in (found, kept[0].value if kept else None) if value is not None]
        return values[self._newest(values)] if values else None

    async def provide(self, key: bytes) -> None:
        """Tell the peers closest to this key that we provide it."""
        store = self._dht.provider_store
        with _translated():
            await self._meet_neighbours()
            await store.provide(key)
            # Renewal is ours: the library would send all keys at once and run into its own rate limit.
            store.providing_keys.discard(key)

    async def providers(self, key: bytes) -> list[bytes]:
        """Keys of nodes that said they provide this, without duplicates; those we know ourselves come first."""
        store = self._dht.provider_store
        with _translated():
            await self._meet_neighbours()
            answers = [list(store.get_providers(key))]  # the library would stop here when this is not empty
            closest = await self._dht.peer_routing.find_closest_peers_network(key)
            limiter = trio.CapacityLimiter(ASKED_AT_ONCE)

            async def ask(peer: Any) -> None:
                async with limiter:
                    providers, _ = await store._get_providers_from_peer_with_closers(peer, key)
                    answers.append(providers[:PROVIDERS_MAX])

            async with trio.open_nursery() as nursery:
                for peer in closest:
                    if peer != self._host.get_id():
                        nursery.start_soon(ask, peer)
        return shared_out([[key_of_raw_peer_id(info.peer_id.to_bytes()) for info in found] for found in answers])

    def _keep_newer(self, key: bytes, kept: Any) -> None:
        """Put our own copy back unless the search brought a newer one: whoever answers it may have kept an old one."""
        store = self._dht.value_store.store
        found = store.get(key)
        if kept is not None and (found is None or self._newest([kept[0].value, found[0].value]) == 0):
            store[key] = kept

    async def _meet_neighbours(self) -> None:
        """Put connected peers into the routing table; the library waits for them to ask us something first."""
        for peer in self._host.get_connected_peers():
            await self._dht.add_peer(peer)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Unavailable(f"the DHT gave up: {error}") from error


def shared_out(answers: Sequence[Sequence[bytes | None]]) -> list[bytes]:
    """One key of each answer in turn, each once, at most PROVIDERS_MAX: nobody's answer crowds out another's."""
    turns = (key for turn in zip_longest(*answers) for key in turn if key is not None)
    return list(islice(dict.fromkeys(turns), PROVIDERS_MAX))
