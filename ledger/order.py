"""Causes before effects: a reading order for events of many feeds.

Knows which events an event names, and which one it is about. Must never know state or storage.
"""

import heapq
from collections.abc import Iterable

from nexapod.events import Event
from nexapod.messages import Attest, Close, Commit, EventData, Lock, Offer, Release, Reveal, Seal, Settle, Steward, Void


def names(data: EventData | None) -> tuple[bytes, ...]:
    """Ids of all events that an event names."""
    match data:
        case Commit(offer) | Steward(offer) | Close(offer):
            return (offer,)
        case Seal(offer, entries):
            return (offer, *(commit for entry in entries for commit in entry.commits))
        case Settle(offer, entries) | Void(offer, entries):
            return (offer, *(opening.commit for entry in entries for opening in entry.openings))
        case Reveal(offer, _, opening):
            return (offer, opening.commit)
        case Release(lock, settle):
            return (lock,) if settle is None else (lock, settle)
        case _:
            return ()


def about(event: Event) -> bytes | None:
    """The offer an event concerns, its own id when it is one; for a release, the lock it ends."""
    match event.data:
        case Offer():
            return event.id
        case Steward(offer) | Commit(offer) | Seal(offer) | Settle(offer) | Void(offer) | Close(offer) | Lock(offer):
            return offer
        case Reveal(offer) | Attest(offer):
            return offer
        case Release(lock):
            return lock
        case _:
            return None


def causal(events: Iterable[Event]) -> list[Event]:
    """The events so that each comes after those it names and after its predecessors in its feed, as far as given.

    The same events give the same order. A forged circle of names cannot exist: an id is a hash over the names.
    """
    by_id = {event.id: event for event in events}
    last: dict[bytes, bytes] = {}
    followers: dict[bytes, list[bytes]] = {}
    missing: dict[bytes, int] = {}
    for event in sorted(by_id.values(), key=lambda event: (event.feed, event.seq)):
        causes = {cause for cause in names(event.data) if cause in by_id}
        if event.feed in last:
            causes.add(last[event.feed])
        last[event.feed] = event.id
        missing[event.id] = len(causes)
        for cause in causes:
            followers.setdefault(cause, []).append(event.id)
    ready = [event_id for event_id, count in missing.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        event_id = heapq.heappop(ready)
        ordered.append(by_id[event_id])
        for follower in followers.get(event_id, ()):
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, follower)
    assert len(ordered) == len(by_id)
    return ordered
