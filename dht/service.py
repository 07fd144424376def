"""Who offers what: the own advert kept alive in the DHT, and the adverts of others found there.

Knows adverts and provider keys. Must never know how a node is chosen. Everything here is best effort: what the DHT
does not find comes by gossip or on connect.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio

from dht import advert as adverts
from dht.kad import Table
from nexapod.errors import PeerError, Unavailable

PROVIDE_EVERY_S = 1.25  # peers accept 10 provider records in 10 s from one of us
PUBLISH_S = 60.0  # one publication of the advert or of one provider key
PAUSE_S = 2.0  # at least this long between two publications, however often the advert changes
FIRST_TRY_S = 5.0  # wait before the advert is tried again when nobody could be reached; doubles up to RENEW_S
BLOBS_WAITING = 1024  # blobs still to be announced; when full the oldest is dropped: providers are a hint
FOUND_MAX = 32  # adverts one search returns
FETCHED_AT_ONCE = 8

log = logging.getLogger("nexapod.dht")


class Directory:
    """Publishes and finds adverts and blob providers over whatever libp2p host it rides."""

    def __init__(self, netid: bytes, current: Callable[[], bytes | None]) -> None:
        """`current` gives the signed advert to publish, with a higher seq each time it is called, or None for none."""
        self._netid, self._current = netid, current
        self._table: Table | None = None
        self._changed, self._offered = trio.Event(), trio.Event()
        self._blobs: OrderedDict[bytes, None] = OrderedDict()
        self._labels: list[str] = []

    # --- riding a host ------------------------------------------------------------------------------------------------
    def ride(self, host: Any) -> AbstractAsyncContextManager[None]:
        """Use this host's DHT: call before it listens, enter while it runs."""
        fault = partial(adverts.fault, netid=self._netid)
        newest = partial(adverts.newest, netid=self._netid)
        return self._riding(Table(host, adverts.NAMESPACE, fault, newest))

    @asynccontextmanager
    async def _riding(self, table: Table) -> AsyncIterator[None]:
        async with table.running(), trio.open_nursery() as nursery:
            self._table = table
            try:
                nursery.start_soon(self._advertise, table)
                nursery.start_soon(self._announce, table)
                yield
            finally:
                self._table = None
                nursery.cancel_scope.cancel()

    def advert_changed(self) -> None:
        """Publish soon, not only at the next renewal."""
        self._changed.set()

    async def _advertise(self, table: Table) -> None:
        """Put the own advert again and again: at once, when it changed, and every RENEW_S."""
        retry = FIRST_TRY_S
        while True:
            self._changed = trio.Event()
            began, wait = trio.current_time(), adverts.RENEW_S
            raw = self._current()
            if raw is not None:
                try:
                    with trio.fail_after(PUBLISH_S):
                        own = adverts.open_advert(raw, self._netid)
                        await table.put(adverts.record_key(self._netid, own.key), raw)
                    self._labels = list(adverts.labels_of(own))
                    self._offered.set()
                    retry = FIRST_TRY_S
                except (Unavailable, trio.TooSlowError) as error:
                    log.debug("advert not published: %r", error)
                    wait, retry = retry, min(retry * 2, adverts.RENEW_S)
                except PeerError as error:
                    # Our own fault, but no reason to take the network down: others may still hear of us on connect.
                    log.error("this node's own advert is not sound and was not published: %s", error)
            with trio.move_on_after(wait):
                await self._changed.wait()
            await trio.sleep_until(began + PAUSE_S)

    async def _announce(self, table: Table) -> None:
        """Provide bucket keys and blobs one by one, below the rate at which peers drop them silently."""
        while True:
            if self._labels:
                key = adverts.bucket_key(self._netid, self._labels.pop(0))
            elif self._blobs:
                key = adverts.blob_key(self._netid, self._blobs.popitem(last=False)[0])
            else:
                self._offered = trio.Event()
                await self._offered.wait()
                continue
            try:
                with trio.move_on_after(PUBLISH_S):
                    await table.provide(key)
            except Unavailable as error:
                log.debug("not provided: %s", error)
            await trio.sleep(PROVIDE_EVERY_S)

    # --- asking; all under the caller's deadline ----------------------------------------------------------------------
    def provide(self, sha256: bytes) -> None:
        """Tell the network, soon, that this blob can be fetched here. Never waits."""
        self._blobs[sha256] = None
        if len(self._blobs) > BLOBS_WAITING:
            self._blobs.popitem(last=False)
        self._offered.set()

    async def providers(self, sha256: bytes) -> list[bytes]:
        """Keys of nodes that said they hold this blob; empty when the DHT is not available."""
        return await self._providers(adverts.blob_key(self._netid, sha256))

    async def advert_of(self, key: bytes) -> bytes | None:
        """The newest signed advert of this node that the DHT knows, checked; None when there is none."""
        if self._table is None:
            return None
        name = adverts.record_key(self._netid, key)
        try:
            raw = await self._table.get(name)
        except Unavailable as error:
            log.debug("no advert of %s: %s", key.hex()[:12], error)
            return None
        return raw if raw is not None and adverts.fault(name, raw, self._netid) is None else None

    async def find(self, labels: Iterable[str]) -> list[bytes]:
        """Signed, checked adverts of nodes standing in any of these buckets (see `dht.advert.labels_for`).

        At most FOUND_MAX; the buckets are asked in order until enough nodes are known.
        """
        keys: dict[bytes, None] = {}
        for label in labels:
            keys.update(dict.fromkeys(await self._providers(adverts.bucket_key(self._netid, label))))
            if len(keys) >= FOUND_MAX:
                break
        found: list[bytes] = []
        limiter = trio.CapacityLimiter(FETCHED_AT_ONCE)

        async def fetch(key: bytes) -> None:
            async with limiter:
                raw = await self.advert_of(key)
            if raw is not None:
                found.append(raw)

        async with trio.open_nursery() as nursery:
            for key in list(keys)[:FOUND_MAX]:
                nursery.start_soon(fetch, key)
        return found

    async def _providers(self, key: bytes) -> list[bytes]:
        if self._table is None:
            return []
        try:
            return await self._table.providers(key)
        except Unavailable as error:
            log.debug("no providers: %s", error)
            return []
