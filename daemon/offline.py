"""The ledger of this home without a daemon: the same documents the local API answers, read from disk.

Knows the files of a home and the ledger. Must never open a network: the command line opens this file and no other of
this room.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bootstrap.manifest import Manifest, decode_manifest, member_names, netid_of_bytes, witness_feeds
from daemon.local import ledger_documents as documents
from ledger.service import Ledger, open_ledger
from nexapod.encoding import NotCanonical
from nexapod.errors import Exit, LocalError
from nexapod.home import Home
from nexapod.messages import Offer

_DIGITS_MIN = 4  # of an id, to mean a job or an event by


class _Shelf(NamedTuple):
    """A ledger on disk and the names its network's manifest gives."""

    ledger: Ledger
    names: dict[bytes, str]

    def name_of(self, feed: bytes) -> str:
        return self.names.get(feed, feed.hex()[:12])


def log(
    home: Home, feed: str | None = None, job: str | None = None, kind: str | None = None, after: int = -1,
    limit: int = 100,
) -> dict[str, Any]:  # fmt: skip
    """As GET /v1/ledger/log.

    Raises:
        LocalError: no ledger here, or what was asked for is not in it.
    """

    async def look(shelf: _Shelf) -> dict[str, Any]:
        replica, wanted = shelf.ledger.replica, documents.wanted_kind(kind)
        read = documents.to_read(wanted, limit)
        if job is not None:
            events = await shelf.ledger.of_offer(await _offer(shelf, job))
        elif feed is not None:
            events = await shelf.ledger.log(documents.find_feed(feed, replica, shelf.name_of), after, read)
        else:
            events = documents.chosen(await shelf.ledger.newest(read), wanted)[:limit][::-1]
        chosen = documents.chosen(events, wanted)[:limit]
        return {"events": [documents.event_row(event, replica, shelf.name_of) for event in chosen]}

    return _look(home, look)


def show(home: Home, event_id: str) -> dict[str, Any]:
    """As GET /v1/ledger/events/ID. Raises: LocalError."""

    async def look(shelf: _Shelf) -> dict[str, Any]:
        found = await shelf.ledger.find_ids(event_id.lower(), 2) if len(event_id) >= _DIGITS_MIN else []
        if len(found) != 1:
            why = "several begin like this" if found else "no event begins like this"
            raise LocalError(f"cannot tell which event {event_id} is", why, "give more of the id", Exit.NOT_FOUND)
        event = await shelf.ledger.event(found[0])
        assert event is not None, "an id that was just found has an event"
        return documents.event_document(event, shelf.ledger.replica, shelf.name_of)

    return _look(home, look)


def balances(home: Home, account: str | None = None) -> dict[str, Any]:
    """As GET /v1/ledger/balances. Raises: LocalError."""

    async def look(shelf: _Shelf) -> dict[str, Any]:
        replica = shelf.ledger.replica
        feed = documents.find_feed(account, replica, shelf.name_of) if account else None
        return documents.balances(replica, feed, shelf.name_of)

    return _look(home, look)


def verify(home: Home) -> dict[str, Any]:
    """As GET /v1/ledger/verify. Raises: LocalError."""

    async def look(shelf: _Shelf) -> dict[str, Any]:
        return documents.audit_document(await shelf.ledger.audit())

    return _look(home, look)


def forks(home: Home) -> dict[str, Any]:
    """As GET /v1/ledger/forks. Raises: LocalError."""

    async def look(shelf: _Shelf) -> dict[str, Any]:
        return documents.forks(shelf.ledger.replica, shelf.name_of)

    return _look(home, look)


# --- opening ----------------------------------------------------------------------------------------------------------
def _look(home: Home, look: Callable[[_Shelf], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def open_and_look() -> dict[str, Any]:
        async with _open(home) as shelf:
            return await look(shelf)

    return trio.run(open_and_look)


@asynccontextmanager
async def _open(home: Home) -> AsyncIterator[_Shelf]:
    manifest, netid = _manifest(home.manifest_file)
    if not home.ledger_dir.joinpath("CURRENT").exists():  # opening would begin a new one
        what = f"there is no ledger in {home.ledger_dir}"
        raise LocalError(what, "no daemon has run here yet", "run: nexapod daemon start", Exit.NOT_FOUND)
    async with open_ledger(home.ledger_dir, netid, witness_feeds(manifest), manifest.threshold) as ledger:
        yield _Shelf(ledger, member_names(manifest))


def _manifest(path: Path) -> tuple[Manifest, bytes]:
    try:
        raw = path.read_bytes()
        return decode_manifest(raw), netid_of_bytes(raw)
    except FileNotFoundError:
        what = "this node belongs to no network"
        raise LocalError(what, f"{path} is missing", "run: nexapod bootstrap import FILE", Exit.NOT_FOUND) from None
    except NotCanonical as error:
        raise LocalError(f"{path} is damaged", str(error), "import the bootstrap file again") from None


async def _offer(shelf: _Shelf, reference: str) -> bytes:
    """The offer meant by the beginning of its id or by its label."""
    offers = [event for event in await shelf.ledger.offers() if isinstance(event.data, Offer)]
    meant = [
        event.id
        for event in offers
        if (isinstance(event.data, Offer) and event.data.job_id == reference)
        or (len(reference) >= _DIGITS_MIN and event.id.hex().startswith(reference.lower()))
    ]
    meant = [event_id for event_id in meant if event_id.hex() == reference.lower()] or meant
    if not meant:
        raise LocalError(f"no job is called {reference}", "", "see: nexapod ledger log --kind offer", Exit.NOT_FOUND)
    if len(meant) > 1:
        which = "\n".join(event_id.hex() for event_id in meant[:8])
        raise LocalError(f"{reference} may be one of {len(meant)} jobs", which, "give more of the id", Exit.USAGE)
    return meant[0]
