"""The pen of this node's own feed: the next event in it, signed.

Knows the own key and head. Ed25519 signatures are deterministic, so writing is a pure function of the head.
"""

from collections.abc import Iterable
from typing import TypeVar

from daemon.core.step import Now, Step
from nexapod.encoding import Wire, encode
from nexapod.events import Event, make_event, sign_note
from nexapod.hashing import Tag, tagged
from nexapod.identity import Key
from nexapod.limits import ENTRIES_MAX, EVENT_BYTES_MAX
from nexapod.messages import EventData

W = TypeVar("W", bound=Wire)
_ENTRY_BYTES_ROOM = EVENT_BYTES_MAX - 512  # what an event leaves for its entries


class Author:
    """Appends to one feed; `seq` and `head` are those of its newest event."""

    def __init__(self, key: Key, netid: bytes, feed: bytes, *, seq: int, head: bytes) -> None:
        self._key, self.netid, self.feed, self.seq, self.head = key, netid, feed, seq, head

    def append(self, step: Step, data: EventData, now: Now) -> Event:
        """Sign the next event and add it to the step's record."""
        event = make_event(
            self._key, self.netid, feed=self.feed, seq=self.seq + 1, prev=self.head, ts=now.wall_ms, data=data
        )
        self.seq, self.head = event.seq, event.id
        step.events.append(event)
        return event

    def sign(self, tag: Tag, note: Wire) -> bytes:
        """The bytes of a Signed note by this node."""
        return sign_note(self._key, tag, self.netid, note)

    def nonce(self, offer: bytes, task: int, round_: int) -> bytes:
        """The 16 secret bytes under which a commit hides its result: the same after a crash, unknown to all others."""
        place = task.to_bytes(4, "big") + round_.to_bytes(4, "big")
        return tagged(Tag.NONCE, self._key.seed, self.netid, offer, place)[:16]


def in_events(entries: Iterable[W]) -> list[tuple[W, ...]]:
    """Entries in groups that each fit one event."""
    groups: list[list[W]] = []
    room = 0
    for entry in entries:
        size = len(encode(entry))
        if not groups or size > room or len(groups[-1]) == ENTRIES_MAX:
            groups.append([])
            room = _ENTRY_BYTES_ROOM
        groups[-1].append(entry)
        room -= size
    return [tuple(group) for group in groups]
