"""Bytes that are no events, and events that make no sense: refused or ignored, and nothing else ever happens."""

from collections.abc import Iterable
from random import Random

import pytest
from msgspec import Raw

from ledger.replica import Replica
from nexapod.encoding import encode
from nexapod.errors import PeerError
from nexapod.events import Event, open_event
from nexapod.hashing import Tag, blob_id, tagged
from nexapod.limits import EVENT_BYTES_MAX
from nexapod.messages import (
    Ack,
    AckEntry,
    Body,
    Commit,
    CommitEntry,
    Envelope,
    Lock,
    Release,
    Report,
    Reveal,
    Rotate,
    Verdict,
    Void,
    Voided,
)
from tests.ledger.scribe import NETID, PRICE, Scribe, everything, offer_of, walk


def take(replica: Replica, *events: Event) -> None:
    replica.apply(replica.plan(events))
    replica.check_invariants()


def holding(*scribes: Scribe) -> Replica:
    replica = Replica(NETID)
    take(replica, *everything(*scribes))
    return replica


# --- parse bombs ------------------------------------------------------------------------------------------------------
def body_of(kind: int, data: bytes) -> bytes:
    """An envelope with any data."""
    body = encode(Body(1, b"f" * 32, 1, b"p" * 32, kind, 0, Raw(data)))
    return encode(Envelope(body, bytes(64)))


BOMBS: dict[str, bytes] = {
    "nothing": b"",
    "oversize": b"\x00" * (EVENT_BYTES_MAX + 1),
    "deep arrays": body_of(99, b"\x91" * 2000 + b"\xc0"),
    "deep arrays in a known kind": body_of(10, b"\x91" * 2000 + b"\xc0"),
    "deep arrays as envelope": b"\x91" * 10_000,
    "a promised million items": body_of(99, b"\xdd\x00\x0f\x42\x40"),
    "four billion items as envelope": b"\xdd\xff\xff\xff\xff",
    "four gigabytes of bytes": b"\x92\xc6\xff\xff\xff\xff",
    "four gigabytes of text": body_of(50, b"\x93\xdb\xff\xff\xff\xff"),
    "a map": body_of(99, b"\x81\x01\x02"),
    "a float": body_of(99, b"\x91\xcb" + bytes(8)),
    "a negative": body_of(99, b"\x91\xff"),
    "an extension": body_of(99, b"\x91\xd4\x05\x00"),
    "a time stamp": body_of(99, b"\x91\xd6\xff\x00\x00\x00\x00"),
    "2^64-1": body_of(99, b"\x91\xcf" + b"\xff" * 8),
    "a long spelling": body_of(99, b"\x91\xcd\x00\x01"),
    "broken text": body_of(99, b"\x91\xa1\xff"),
    "an escape sequence": body_of(99, b"\x91\xa4\x1b[2J"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_parse_bomb_is_the_senders_fault_and_nothing_else(name: str) -> None:
    with pytest.raises(PeerError):
        open_event(BOMBS[name], NETID)


def test_unknown_kinds_are_carried_without_effect() -> None:
    event = open_event(body_of(99, b"\x92\x01\xa5hello"), NETID)
    assert event.data is None
    assert event.kind == 99


def corpus() -> list[bytes]:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    ann.rotate()
    ann.write(Report(bytes(32), 3, "with a few words"))
    bob.write(Commit(bytes(32), bytes(32), tuple(CommitEntry(task, 0, blob_id(b"")) for task in range(20))))
    return [event.raw for event in everything(owner, ann, bob)]


STUMBLES = (b"\xc1", b"\xff", b"\xdf\xff\xff\xff\xff", b"\x91", b"\xc0", b"\xcb")


def mutated(raw: bytes, chance: Random) -> bytes:
    """The bytes with a few of them flipped, cut, doubled, inserted or put to a value parsers stumble over."""
    content = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                del content[at : at + chance.randrange(1, 40)]
            case 2:
                content[at:at] = content[at : at + chance.randrange(1, 40)]
            case 3:
                content[at:at] = chance.randbytes(chance.randrange(1, 9))
            case _:
                content[at : at + 1] = chance.choice(STUMBLES)
    return bytes(content)


def opened(raws: Iterable[bytes]) -> list[Event]:
    """Those that have the shape of an event; whatever is wrong with the others must be a PeerError."""
    found = []
    for raw in raws:
        try:
            found.append(open_event(raw, NETID))
        except PeerError:
            continue
    return found


def test_mutated_events_are_refused_and_nothing_else_happens() -> None:
    chance, raws = Random(11), corpus()
    replica = Replica(NETID)
    take(replica, *opened(raws))
    state, heads = replica.fold.state_root(), dict(replica.heads)
    assert replica.events == len(raws)
    shaped = 0
    for _ in range(1000):
        events = opened(mutated(chance.choice(raws), chance) for _ in range(100))
        shaped += len(events)
        applied = replica.apply(replica.plan(events))
        assert applied.stored == ()
        assert applied.forks == ()
    replica.check_invariants()
    assert shaped > 1000  # many had the shape of an event, so signatures and links were tried too
    assert (replica.fold.state_root(), replica.heads) == (state, heads)


def signed(author: Scribe, kind: int, data: bytes) -> bytes:
    """The author's next event, with these bytes as its data whatever they are."""
    last = author.events[-1]
    body = encode(Body(1, author.feed, last.seq + 1, last.id, kind, 0, Raw(data)))
    return encode(Envelope(body, author.key.sign(tagged(Tag.EVENT, NETID, body))))


def test_properly_signed_nonsense_never_breaks_the_fold() -> None:
    chance, eve = Random(12), Scribe("eve")
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    settle_event = walk(owner, (ann, bob))
    offer = ann.write(offer_of(colour=owner.feed, price=3, job_id="second"))
    lock = bob.write(Lock(offer.id, owner.feed, 2**63 - 1))
    bob.write(Release(lock.id, settle_event.id))
    bob.write(Void(offer.id, (Voided(0, Verdict.FAILED, "why", ()),)))
    bob.write(Reveal(offer.id, 0, settle_event.data.entries[0].openings[0]))  # type: ignore[union-attr]
    bob.write(Ack((AckEntry(ann.feed, 1, offer.id),)))
    replica = holding(owner, ann, bob, eve)
    models = [(event.kind, encode(event.data)) for event in everything(owner, ann, bob) if event.seq]
    kinds: set[int] = set()
    for _ in range(6000):
        kind, data = chance.choice(models)
        data = mutated(data, chance) if chance.random() < 0.8 else data
        events = opened([signed(eve, chance.choice((kind, kind, kind, chance.randrange(60))), data)])
        if not events or isinstance(events[0].data, Rotate):
            continue
        assert replica.apply(replica.plan(events)).stored
        eve.events += events
        kinds.add(events[0].kind)
        if len(eve.events) == 200 or replica.fold.parked(eve.feed):
            replica.check_invariants()
            take(replica, *everything(eve := Scribe(f"eve {len(replica.heads)}")))
    replica.check_invariants()
    assert len(kinds) > 12
    assert replica.fold.net[ann.feed, owner.feed] == PRICE - 12  # her own offer locks that; nothing else moved it
