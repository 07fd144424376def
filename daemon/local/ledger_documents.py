"""The ledger as JSON documents, the same with and without a running daemon.

Knows the answers of docs/api.md about the ledger. Must never know HTTP, files or peers: a replica and names go in,
plain values come out.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ledger.audit import Audit
from ledger.replica import Replica
from ledger.story import describe
from nexapod.errors import Exit, LocalError
from nexapod.events import Event
from nexapod.job_faults import nearest
from nexapod.messages import DATA_OF_KIND, Kind

EVENTS_READ_MAX = 10_000  # events read for one answer
_DIGITS_MIN = 4  # of a feed id, to mean a feed by
_SHOWN_MAX = 8

NameOf = Callable[[bytes], str]


def summary(replica: Replica) -> dict[str, Any]:
    """How much there is, and the two roots nodes compare."""
    fold = replica.fold
    return {
        "events": replica.events,
        "feeds": len(replica.heads),
        "certified_events": fold.events,
        "provisional": replica.provisional,
        "forks": len(replica.forks),
        "minted_micro": {colour.hex(): amount for colour, amount in fold.minted.items() if amount},
        "state_root": fold.state_root().hex(),
        "frontier_root": fold.frontier_root().hex(),
    }


def event_row(event: Event, replica: Replica, name_of: NameOf) -> dict[str, Any]:
    """One event in a list."""
    return {
        "id": event.id.hex(),
        "feed": event.feed.hex(),
        "name": name_of(event.feed),
        "seq": event.seq,
        "kind": kind_name(event.kind),
        "ts_ms": event.ts,
        "certified": event.seq <= replica.certificate.certified(event.feed),
        "text": describe(event),
    }


def event_document(event: Event, replica: Replica, name_of: NameOf) -> dict[str, Any]:
    """One event whole: its fields, its exact bytes, whether the key of its feed signed it, what was invalid in it."""
    head = replica.heads.get(event.feed)
    return event_row(event, replica, name_of) | {
        "prev": event.prev.hex(),
        "data": plain(event.data),
        "raw": event.raw.hex(),
        "signed": head is not None and (event.seq < head.key_since or event.signed_by(head.key)),
        "faults": list(replica.fold.faults.get(event.id, ())),
    }


def balances(replica: Replica, account: bytes | None, name_of: NameOf) -> dict[str, Any]:
    """What every account, or one, holds and has earned, by colour; certified events only."""
    fold = replica.fold
    rows = []
    for feed, colour in sorted(set(fold.net) | set(fold.earned)):
        held, earned = fold.net.get((feed, colour), 0), fold.earned.get((feed, colour), 0)
        if (held or earned) and account in (None, feed):
            rows.append(
                {
                    "account": feed.hex(),
                    "name": name_of(feed),
                    "colour": colour.hex(),
                    "issuer": name_of(colour),
                    "balance_micro": held,
                    "earned_micro": earned,
                }
            )
    minted = {colour.hex(): amount for colour, amount in fold.minted.items() if amount}
    return {"balances": rows, "provisional": replica.provisional, "minted_micro": minted}


def forks(replica: Replica, name_of: NameOf) -> dict[str, Any]:
    """Every proof of a fork."""
    return {
        "forks": [
            {
                "feed": fork.feed.hex(),
                "name": name_of(fork.feed),
                "seq": fork.seq,
                "kept": fork.kept.hex(),
                "other": fork.other.id.hex(),
            }
            for fork in replica.forks.values()
        ]
    }


def audit_document(audit: Audit) -> dict[str, Any]:
    """What an audit found."""
    return {key: plain(value) for key, value in audit._asdict().items()}


def kind_name(kind: int) -> str:
    """The kind as people write it."""
    return Kind(kind).name.lower() if kind in DATA_OF_KIND else f"kind {kind}"


def wanted_kind(name: str | None) -> int | None:
    """The number of a kind by its name; None stays None.

    Raises:
        LocalError: there is no such kind.
    """
    if name is None:
        return None
    if name.upper() not in Kind.__members__:
        known = [kind.name.lower() for kind in Kind]
        near = nearest(name, known)
        meant = f"did you mean {near}?" if near else f"kinds are {', '.join(known)}"
        raise LocalError(f"{name[:40]} is not a kind of event", "", meant, Exit.USAGE)
    return int(Kind[name.upper()])


def find_feed(reference: str, replica: Replica, name_of: NameOf) -> bytes:
    """The feed meant by a node's name or the beginning of the feed's id.

    Raises:
        LocalError: none (exit 4) or several (exit 2) are meant.
    """
    found = [
        feed
        for feed in replica.heads
        if (len(reference) >= _DIGITS_MIN and feed.hex().startswith(reference.lower())) or name_of(feed) == reference
    ]
    # A node may call itself what reads like the id of another: a whole id means the feed of that id.
    found = [feed for feed in found if feed.hex() == reference.lower()] or found
    if not found:
        raise LocalError(f"no feed is called {reference[:80]}", "", "see: nexapod node list", Exit.NOT_FOUND)
    if len(found) > 1:
        which = "\n".join(feed.hex() for feed in found[:_SHOWN_MAX])
        raise LocalError(f"{reference[:80]} may be one of {len(found)} feeds", which, "give more of it", Exit.USAGE)
    return found[0]


def to_read(kind: int | None, limit: int) -> int:
    """How many events to read so that `limit` of one kind are among them, as far as reason goes."""
    return limit if kind is None else EVENTS_READ_MAX


def chosen(events: Iterable[Event], kind: int | None) -> list[Event]:
    """The events of one kind, or all."""
    return [event for event in events if kind is None or event.kind == kind]


def plain(value: Any) -> Any:
    """Values as JSON has them: bytes in hexadecimal, messages as tables."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
