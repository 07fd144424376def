"""The ledger checked again from the first event, trusting nothing but the bytes on disk.

Knows how to read a stored ledger with every signature and every verdict checked. Must never know a running node.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ledger.replica import Replica
from ledger.store import Store
from nexapod.errors import PeerError
from nexapod.events import Event, open_event

_BATCH = 1024  # events verified before they are taken in
_FAULTS_SHOWN = 100  # faults spelled out; the rest is counted


class Audit(NamedTuple):
    """What an audit found. `ok`: every stored event stands; `faults`: what does not, in words.

    `refuted`: verdicts and other events of authors that stand in the ledger but were rightly given no effect.
    """

    ok: bool
    events: int
    feeds: int
    verdicts: int
    state_root: bytes
    frontier_root: bytes
    provisional: bool
    faults: tuple[str, ...]
    refuted: tuple[str, ...]


def audit(
    source: Path | Store,
    netid: bytes,
    witnesses: frozenset[bytes] = frozenset(),
    threshold: int = 0,
    *,
    on_batch: Callable[[], None] = lambda: None,
) -> Audit:
    """Refold a stored ledger and check every signature, link and verdict on the way. Blocks.

    An open store may be written to meanwhile: what comes later is not looked at. `on_batch` is called now and then and
    may raise to give up.

    Raises:
        LocalError: the database cannot be opened or read.
    """
    replica = Replica(netid, witnesses, threshold)
    if isinstance(source, Store):
        return _audit(source, replica, on_batch)
    store = Store(source, create=False)
    try:
        return _audit(store, replica, on_batch)
    finally:
        store.close()


def _audit(store: Store, replica: Replica, on_batch: Callable[[], None]) -> Audit:
    # First of all: a proof or an index entry that is written later would point to an event not looked at.
    forks, ids = list(store.every_fork()), set(store.every_id())
    faults: list[str] = []
    batch: list[Event] = []
    events = 0
    for feed, seq, raw in store.every_event():
        events += 1
        try:
            event = open_event(raw, replica.netid)
        except PeerError as error:
            faults.append(f"{feed.hex()[:12]} {seq}: {error.what}")
            continue
        if (event.feed, event.seq) != (feed, seq) or store.position(event.id) != (feed, seq):
            faults.append(f"{feed.hex()[:12]} {seq}: stored in the wrong place")
        ids.discard(event.id)
        batch.append(event)
        if len(batch) == _BATCH:
            faults += _take(replica, batch)
            batch = []
            on_batch()
    faults += _take(replica, batch)
    if replica.orphans:
        faults.append(f"{replica.orphans} events do not connect to their feed")
    faults += [f"event {event_id.hex()[:12]} is missing" for event_id in sorted(ids)]
    for feed, seq, raw in forks:
        faults += _check_fork(replica, feed, seq, raw)
    try:
        replica.check_invariants()
    except AssertionError as error:
        faults.append(f"an invariant does not hold: {error}")
    fold = replica.fold
    refuted = [f"{event_id.hex()[:12]}: {why}" for event_id, reasons in fold.faults.items() for why in reasons]
    return Audit(
        ok=not faults,
        events=events,
        feeds=len(replica.heads),
        verdicts=sum(len(state.ended) for state in fold.offers.values()),
        state_root=fold.state_root(),
        frontier_root=fold.frontier_root(),
        provisional=replica.provisional,
        faults=_shown(faults),
        refuted=_shown(sorted(refuted)),
    )


def _take(replica: Replica, batch: list[Event]) -> list[str]:
    plan = replica.plan(batch, bounded=False)
    replica.apply(plan)
    return [error.what for error in plan.refusals] + [f"fork of {fork.feed.hex()[:12]} in place" for fork in plan.forks]


def _check_fork(replica: Replica, feed: bytes, seq: int, raw: bytes) -> list[str]:
    try:
        other = open_event(raw, replica.netid)
    except PeerError as error:
        return [f"fork proof of {feed.hex()[:12]}: {error.what}"]
    forks = replica.plan([other]).forks
    if (other.feed, other.seq) == (feed, seq) and forks:
        return []
    return [f"fork proof of {feed.hex()[:12]} proves nothing"]


def _shown(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - _FAULTS_SHOWN
    return tuple(lines) if more <= 0 else (*lines[:_FAULTS_SHOWN], f"and {more} more")
