"""Signed events and signed notes: made, opened, checked.

Knows the envelope: how an event gets its id, what its signature covers, what makes it well formed on its own. Must
never know what an event does to a ledger or whether its predecessor is known.
"""

from typing import NamedTuple, TypeVar

from msgspec import Raw

from nexapod.encoding import NotCanonical, Wire, decode, decode_plain, encode
from nexapod.errors import PeerError
from nexapod.hashing import Tag, tagged
from nexapod.identity import Key, verify
from nexapod.limits import EVENT_BYTES_MAX
from nexapod.messages import DATA_OF_KIND, KIND_OF_DATA, VERSION, Body, Envelope, EventData, Genesis, Kind, Signed

W = TypeVar("W", bound=Wire)


class Event(NamedTuple):
    """An event whose shape has been checked; its signature has not (see `signed_by`).

    `raw` are the exact envelope bytes; `feed` of a genesis is its own id; `data` is None for a kind this version does
    not know.
    """

    id: bytes
    feed: bytes
    seq: int
    prev: bytes
    kind: int
    ts: int
    data: EventData | None
    raw: bytes
    signature: bytes

    def signed_by(self, key: bytes) -> bool:
        """Whether `key` signed this event's id."""
        return verify(key, self.id, self.signature)


def make_event(key: Key, netid: bytes, *, feed: bytes, seq: int, prev: bytes, ts: int, data: EventData) -> Event:
    """Sign one event. For a genesis pass empty `feed` and `prev`, seq 0 and ts 0, so that its id follows from its keys.

    Raises:
        AssertionError: the event would be larger than the protocol allows; the caller splits its entries.
    """
    kind = KIND_OF_DATA[type(data)]
    body = encode(Body(VERSION, feed, seq, prev, kind, ts, Raw(encode(data))))
    event_id = tagged(Tag.EVENT, netid, body)
    signature = key.sign(event_id)
    raw = encode(Envelope(body, signature))
    assert len(raw) <= EVENT_BYTES_MAX, f"event of {len(raw)} bytes"
    return Event(event_id, feed or event_id, seq, prev, kind, ts, data, raw, signature)


def make_genesis(key: Key, netid: bytes, next_digest: bytes) -> Event:
    """The first event of this key's feed; the same keys on the same network always give the same feed id."""
    return make_event(key, netid, feed=b"", seq=0, prev=b"", ts=0, data=Genesis(key.public, next_digest))


def open_event(raw: bytes, netid: bytes) -> Event:
    """Check shape and canonical form of envelope bytes and compute the id. The signature is checked by the caller.

    Raises:
        NotCanonical: not one canonical event, or its fields contradict each other.
    """
    envelope = decode(raw, Envelope, size_max=EVENT_BYTES_MAX)
    body = decode(envelope.body, Body, size_max=EVENT_BYTES_MAX)
    if body.version != VERSION:
        raise NotCanonical(f"event version {body.version}")
    data_raw = bytes(body.data)
    data_type = DATA_OF_KIND.get(body.kind)
    data: EventData | None = None
    if data_type is None:
        decode_plain(data_raw, size_max=EVENT_BYTES_MAX)
    else:
        data = decode(data_raw, data_type, size_max=EVENT_BYTES_MAX)
    event_id = tagged(Tag.EVENT, netid, envelope.body)
    if body.kind == Kind.GENESIS:
        if body.feed or body.prev or body.seq or body.ts:
            raise NotCanonical("a genesis has no feed, prev, seq or ts")
        return Event(event_id, event_id, 0, b"", body.kind, 0, data, raw, envelope.signature)
    if len(body.feed) != 32 or len(body.prev) != 32 or body.seq == 0:
        raise NotCanonical("feed, prev or seq is missing")
    return Event(event_id, body.feed, body.seq, body.prev, body.kind, body.ts, data, raw, envelope.signature)


def sign_note(key: Key, tag: Tag, netid: bytes, note: Wire) -> bytes:
    """Sign an advert, claim or assignment for one network; returns the bytes of a Signed."""
    body = encode(note)
    return encode(Signed(body, key.sign(tagged(tag, netid, body))))


class OpenNote(NamedTuple):
    """A note as received: its value, the digest that was signed, and the signature to check."""

    digest: bytes
    signature: bytes
    raw: bytes


def open_note(raw: bytes, kind: type[W], tag: Tag, netid: bytes, *, size_max: int) -> tuple[W, OpenNote]:
    """Decode a signed note; who signed it is checked by `check_note` once the caller knows the author's key.

    Raises:
        NotCanonical: not one canonical Signed holding one canonical `kind`.
    """
    signed = decode(raw, Signed, size_max=size_max)
    note = decode(signed.body, kind, size_max=size_max)
    return note, OpenNote(tagged(tag, netid, signed.body), signed.signature, raw)


def check_note(note: OpenNote, key: bytes) -> None:
    """
    Raises:
        PeerError: `key` did not sign the note.
    """
    if not verify(key, note.digest, note.signature):
        raise PeerError("a signature does not match its author", section="notes", cost=100)
