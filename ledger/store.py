"""The ledger on disk: one LevelDB database, the only file that knows plyvel.

Knows bytes, keys and batches; one write is one synced batch that is on disk before it returns. Must never know what
the bytes mean. Every call may block: callers keep it off the event loop.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import plyvel

from ledger.layout import (
    ABOUT,
    EVENT,
    FACT,
    FORK,
    FORMAT,
    ID_BYTES,
    NETWORK_KEY,
    POSITION,
    VERSION_KEY,
    about_key,
    after,
    event_key,
    place,
    split_place,
)
from ledger.order import about
from ledger.replica import Fork
from nexapod.errors import LocalError
from nexapod.events import Event

_WRITE_BUFFER_BYTES = 16 * 1024 * 1024  # fewer, larger table files while a long history comes in


class Store:
    """One node's database. LevelDB lets one process open it at a time."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """
        Raises:
            LocalError: in use, missing, unreadable, damaged, or written by another version.
        """
        self.path = path
        with _translated(path):
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Paranoid: a damaged log must be refused. Silently dropping its end would make this node forget its own
            # last events and write others in their place, a fork.
            self._db = plyvel.DB(
                str(path), create_if_missing=create, write_buffer_size=_WRITE_BUFFER_BYTES, paranoid_checks=True
            )
            version = self._db.get(VERSION_KEY)
            if version is None and create:
                self._db.put(VERSION_KEY, FORMAT, sync=True)
        if version not in (FORMAT, None if create else FORMAT):
            self.close()
            raise LocalError(f"{path} has another format", f"version {version!r}", "use the NEXAPod that wrote it")

    def close(self) -> None:
        """Let go of the database; a second call does nothing."""
        self._db.close()

    def bind(self, netid: bytes) -> None:
        """Tie the database to one network, or check that it is tied to this one.

        Raises:
            LocalError: it belongs to another network.
        """
        with _translated(self.path):
            known = self._db.get(NETWORK_KEY)
            if known is None:
                self._db.put(NETWORK_KEY, netid, sync=True)
        if known not in (None, netid):
            why = f"network {known.hex()[:12]}, not {netid.hex()[:12]}"
            raise LocalError(f"{self.path} belongs to another network", why, "use another --home for each network")

    def write(self, events: Iterable[Event], facts: Mapping[bytes, bytes | None], forks: Iterable[Fork] = ()) -> None:
        """Write events, fork proofs and private facts (None deletes) as one batch; all of it is on disk on return.

        Raises:
            LocalError: the disk is full or fails; nothing of the batch is kept.
        """
        with _translated(self.path), self._db.write_batch(transaction=True, sync=True) as batch:
            for event in events:
                batch.put(event_key(event.feed, event.seq), event.raw)
                batch.put(POSITION + event.id, place(event.feed, event.seq))
                if (subject := about(event)) is not None:
                    batch.put(about_key(subject, event.feed, event.seq), b"")
            for fork in forks:
                batch.put(FORK + fork.feed, place(b"", fork.seq) + fork.other.raw)
            for key, value in facts.items():
                if value is None:
                    batch.delete(FACT + key)
                else:
                    batch.put(FACT + key, value)

    # --- reading ---------------------------------------------------------------------------------------------------
    def events_of(self, feed: bytes, from_seq: int, bytes_max: int, count_max: int, room: int = 0) -> list[bytes]:
        """Envelopes of one feed in seq order from `from_seq` on, at most `count_max` and `bytes_max` bytes together.

        `room`: bytes counted for each besides its own, for what a reply puts around it.
        """
        found: list[bytes] = []
        if count_max < 1 or from_seq >= 2**63:
            return found
        with (
            _translated(self.path),
            self._db.iterator(
                start=event_key(feed, from_seq), stop=event_key(feed, 2**64 - 1), include_key=False
            ) as raws,
        ):
            for raw in raws:
                bytes_max -= len(raw) + room
                if bytes_max < 0:
                    break
                found.append(raw)
                if len(found) == count_max:
                    break
        return found

    def event(self, event_id: bytes) -> bytes | None:
        """The envelope of one event."""
        with _translated(self.path):
            at = self._db.get(POSITION + event_id)
            return None if at is None else self._get(EVENT + at)

    def event_at(self, feed: bytes, seq: int) -> bytes | None:
        """The envelope at one place."""
        with _translated(self.path):
            return self._get(event_key(feed, seq))

    def position(self, event_id: bytes) -> tuple[bytes, int] | None:
        """Feed and seq of an event."""
        with _translated(self.path):
            at = self._db.get(POSITION + event_id)
        return None if at is None else split_place(at)

    def ids(self, first: bytes, last: bytes, count_max: int) -> list[bytes]:
        """Ids of stored events from `first` to `last`, both included, in order, at most `count_max`."""
        found: list[bytes] = []
        keys = self._keys(POSITION + first, POSITION + last + b"\0")
        while len(found) < count_max and (key := next(keys, None)) is not None:
            found.append(key[len(POSITION) :])
        return found

    def about(self, subject: bytes, feed: bytes = b"") -> Iterator[tuple[bytes, int]]:
        """Places of the events about an offer or lock, of one feed or of all, by feed and seq."""
        prefix = ABOUT + subject
        for key in self._keys(prefix + feed, prefix + (feed or b"\xff" * ID_BYTES) + b"\xff" * 9):
            yield split_place(key[len(prefix) :])

    def every_id(self) -> Iterator[bytes]:
        """Ids of all stored events, in order."""
        for key in self._keys(POSITION, after(POSITION)):
            yield key[len(POSITION) :]

    def every_subject(self) -> Iterator[bytes]:
        """Every offer or lock that some event is about, in order; it may be unknown here."""
        start = ABOUT
        while (first := next(self._keys(start, after(ABOUT)), None)) is not None:
            subject = first[len(ABOUT) : len(ABOUT) + ID_BYTES]
            yield subject
            start = ABOUT + subject + b"\xff" * (ID_BYTES + 9)

    def every_event(self) -> Iterator[tuple[bytes, int, bytes]]:
        """All events as (feed, seq, envelope), feed by feed, each in seq order."""
        with _translated(self.path), self._db.iterator(start=EVENT, stop=after(EVENT)) as rows:
            for key, raw in rows:
                feed, seq = split_place(key[len(EVENT) :])
                yield feed, seq, raw

    def every_fork(self) -> Iterator[tuple[bytes, int, bytes]]:
        """All fork proofs as (feed, seq, the other envelope)."""
        with _translated(self.path), self._db.iterator(start=FORK, stop=after(FORK)) as rows:
            for key, value in rows:
                yield key[len(FORK) :], split_place(value[:8])[1], value[8:]

    def facts(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        """Private facts whose key begins with `prefix`."""
        with _translated(self.path), self._db.iterator(prefix=FACT + prefix) as rows:
            return {key[len(FACT) :]: value for key, value in rows}

    def _get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def _keys(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        with _translated(self.path), self._db.iterator(start=start, stop=stop, include_value=False) as keys:
            yield from keys


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except plyvel.CorruptionError as error:
        raise LocalError(f"{path} is damaged", str(error)[:200], "restore a backup, or move it away and sync") from None
    except plyvel.IOError as error:
        why = str(error)[:300]
        if "/LOCK: " in why:
            step = "stop the other nexapod that uses this --home, or use another --home"
            raise LocalError(f"{path} is in use", why, step) from None
        raise LocalError(f"cannot read or write {path}", why, "free or check the disk, then start again") from None
    except plyvel.Error as error:
        if "create_if_missing is false" in str(error):
            raise LocalError(
                f"there is no ledger at {path}", "nothing is stored there", "run: nexapod daemon start"
            ) from None
        raise LocalError(f"cannot open {path}", str(error)[:200], "check the folder and its owner") from None
    except OSError as error:
        raise LocalError(f"cannot write {path}", str(error), "free or check the disk, then start again") from None
