"""Events and notes: made, opened, refused; bound to one network, one key, one spelling."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from nexapod.encoding import NotCanonical, encode
from nexapod.errors import PeerError
from nexapod.events import check_note, make_event, make_genesis, open_event, open_note, sign_note
from nexapod.hashing import Tag, tagged
from nexapod.identity import Key, next_key_digest
from nexapod.limits import CLAIM_BYTES_MAX, EVENT_BYTES_MAX
from nexapod.messages import (
    DATA_OF_KIND,
    Ack,
    AckEntry,
    Body,
    Claim,
    Close,
    Commit,
    CommitEntry,
    Envelope,
    Kind,
    Report,
    Signed,
    Vouch,
)
from tests.nexapod.spellings import spellings
from tests.nexapod.strategies import values

NETID, OTHER_NETID = b"\7" * 32, b"\x08" * 32
KEY, OTHER = Key.from_seed(b"\1" * 32), Key.from_seed(b"\2" * 32)
FEED, PREV = b"\5" * 32, b"\6" * 32
QUIET = settings(derandomize=True, deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))


def sealed(body: bytes, key: Key = KEY, netid: bytes = NETID) -> bytes:
    """An envelope around any body, signed as if it were an event."""
    return encode(Envelope(body, key.sign(tagged(Tag.EVENT, netid, body))))


def body(**change: Any) -> bytes:
    fields = {
        "version": 1,
        "feed": FEED,
        "seq": 3,
        "prev": PREV,
        "kind": Kind.VOUCH,
        "ts": 9,
        "data": Vouch(FEED, "hi"),
    }
    fields |= change
    fields["data"] = fields["data"] if isinstance(fields["data"], Raw) else Raw(encode(fields["data"]))
    return encode(Body(**fields))


# --- events ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(set(DATA_OF_KIND) - {Kind.GENESIS}), ids=lambda kind: Kind(kind).name.lower())
def test_an_event_of_every_kind_opens_to_what_was_made(kind: int) -> None:
    @QUIET
    @given(values(DATA_OF_KIND[kind]))
    def made_and_opened(data: Any) -> None:
        made = make_event(KEY, NETID, feed=FEED, seq=7, prev=PREV, ts=8, data=data)
        opened = open_event(made.raw, NETID)
        assert opened == made
        assert (opened.kind, opened.feed, opened.seq, opened.prev, opened.data) == (kind, FEED, 7, PREV, data)
        assert opened.signed_by(KEY.public)
        assert not opened.signed_by(OTHER.public)

    made_and_opened()


def test_a_genesis_is_the_same_whenever_it_is_made() -> None:
    made = make_genesis(KEY, NETID, next_key_digest(OTHER.public))
    assert made == make_genesis(KEY, NETID, next_key_digest(OTHER.public)) == open_event(made.raw, NETID)
    assert made.feed == made.id
    assert made.id != make_genesis(KEY, NETID, next_key_digest(KEY.public)).id
    assert make_genesis(KEY, OTHER_NETID, next_key_digest(OTHER.public)).id != made.id


def test_replay_across_networks_keeps_the_words_and_loses_id_and_signature() -> None:
    made = make_event(KEY, NETID, feed=FEED, seq=1, prev=PREV, ts=0, data=Close(FEED, PREV))
    there = open_event(made.raw, OTHER_NETID)
    assert there.data == made.data
    assert there.id != made.id
    assert not there.signed_by(KEY.public)


def test_a_signature_for_one_purpose_serves_no_other() -> None:
    note = Signed(made_body := body(), KEY.sign(tagged(Tag.CLAIM, NETID, made_body)))
    assert not open_event(encode(Envelope(note.body, note.signature)), NETID).signed_by(KEY.public)


def test_a_kind_of_a_later_version_is_carried() -> None:
    for kind, data in ((999, [1, [b"x", "y", None, True]]), (3, 0), (2**31 - 1, "text")):
        event = open_event(sealed(body(kind=kind, data=Raw(encode(data)))), NETID)
        assert (event.kind, event.data) == (kind, None)
        assert event.signed_by(KEY.public)


UNKNOWN = {
    "map": b"\x81\x01\x02",
    "float": b"\xcb" + bytes(8),
    "negative": b"\xff",
    "too deep": b"\x91" * 7 + b"\x00",
    "much too deep": b"\x91" * 10_000 + b"\x00",
    "not UTF-8": b"\xa1\xff",
    "escape sequence": encode("\x1b[2J"),
    "decomposed": encode(["e\u0301"]),
    "extension": b"\xd4\x01\x00",
    "longer spelling": b"\xcd\x00\x01",
    "no value": b"\xc1",
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_a_kind_of_a_later_version_may_not_hold(data: bytes) -> None:
    with pytest.raises(NotCanonical):
        open_event(sealed(body(kind=999, data=Raw(data))), NETID)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"seq": 0},
        {"feed": b""},
        {"feed": FEED[:-1]},
        {"prev": b""},
        {"prev": PREV[:-1]},
        {"kind": Kind.GENESIS},
        {"kind": Kind.PAY},  # the data is that of another kind
        {"data": Vouch(FEED, "x" * 201)},
        {"data": Raw(encode(Vouch(FEED, "x")) + b"\0")},
        {"data": Raw(b"")},
        {"ts": -1},
        {"seq": 2**63},
    ],
)
def test_a_contradiction_is_refused(change: dict[str, Any]) -> None:
    assert open_event(sealed(body()), NETID).seq == 3
    with pytest.raises(NotCanonical):
        open_event(sealed(body(**change)), NETID)


@pytest.mark.parametrize("change", [{"feed": FEED}, {"prev": PREV}, {"seq": 1}, {"ts": 1}])
def test_a_genesis_says_nothing_but_its_keys(change: dict[str, Any]) -> None:
    data = Raw(encode(DATA_OF_KIND[Kind.GENESIS](KEY.public, PREV)))
    empty = {"feed": b"", "prev": b"", "seq": 0, "ts": 0, "kind": Kind.GENESIS, "data": data}
    assert open_event(sealed(body(**empty)), NETID).seq == 0
    with pytest.raises(NotCanonical, match="genesis"):
        open_event(sealed(body(**empty | change)), NETID)


def test_every_other_spelling_of_an_event_is_refused() -> None:
    made = make_event(KEY, NETID, feed=FEED, seq=300, prev=PREV, ts=10**12, data=Report(FEED, 1, "note"))
    inner = encode(Body(1, FEED, 300, PREV, Kind.REPORT, 10**12, Raw(encode(made.data))))
    assert sealed(inner) == made.raw
    for other in spellings(made.raw):
        with pytest.raises(NotCanonical):
            open_event(other, NETID)
    for other in spellings(inner):
        if len(other) <= EVENT_BYTES_MAX:
            with pytest.raises(NotCanonical):
                open_event(sealed(other), NETID)


def test_an_event_too_large_is_refused_here_and_never_made() -> None:
    with pytest.raises(NotCanonical, match="allowed"):
        open_event(bytes(EVENT_BYTES_MAX + 1), NETID)
    entries = (CommitEntry(1, 1, FEED),) * 1000
    with pytest.raises(AssertionError):
        make_event(KEY, NETID, feed=FEED, seq=1, prev=PREV, ts=0, data=Commit(FEED, FEED, entries))


def test_damaged_events_raise_nothing_but_a_breach_by_the_peer() -> None:
    chance = random.Random(0)
    ack = make_event(KEY, NETID, feed=FEED, seq=1, prev=PREV, ts=0, data=Ack((AckEntry(FEED, 1, PREV),)))
    later = sealed(body(kind=999, data=Raw(encode([1, "two", [b"three"]]))))
    for good in (ack.raw, later, sealed(body())):
        for _ in range(3000):
            raw = bytearray(good)
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(raw))
                raw[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
            try:
                event = open_event(bytes(raw), NETID)
            except PeerError:
                continue
            assert event.raw == raw


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=300))
def test_any_signed_body_is_an_event_or_a_breach(raw: bytes) -> None:
    with pytest.raises(PeerError):
        open_event(sealed(raw), NETID)


# --- notes -----------------------------------------------------------------------------------------------------------
CLAIM = Claim(FEED, "x86-64-v3", 4, 1, 1000, None)


def test_a_note_opens_for_its_author_network_and_purpose_alone() -> None:
    raw = sign_note(KEY, Tag.CLAIM, NETID, CLAIM)
    claim, note = open_note(raw, Claim, Tag.CLAIM, NETID, size_max=CLAIM_BYTES_MAX)
    assert claim == CLAIM
    assert note.raw == raw
    check_note(note, KEY.public)
    for tag, netid, key in (
        (Tag.CLAIM, NETID, OTHER.public),
        (Tag.CLAIM, OTHER_NETID, KEY.public),
        (Tag.ASSIGNMENT, NETID, KEY.public),
        (Tag.CLAIM, NETID, b""),
    ):
        _, other = open_note(raw, Claim, tag, netid, size_max=CLAIM_BYTES_MAX)
        with pytest.raises(PeerError, match="does not match its author"):
            check_note(other, key)


def test_a_note_of_another_kind_or_spelling_or_length_is_refused() -> None:
    raw = sign_note(KEY, Tag.CLAIM, NETID, CLAIM)
    with pytest.raises(NotCanonical):
        open_note(raw, Vouch, Tag.CLAIM, NETID, size_max=CLAIM_BYTES_MAX)
    with pytest.raises(NotCanonical, match="allowed"):
        open_note(raw, Claim, Tag.CLAIM, NETID, size_max=len(raw) - 1)
    for other in spellings(raw):
        with pytest.raises(NotCanonical):
            open_note(other, Claim, Tag.CLAIM, NETID, size_max=CLAIM_BYTES_MAX)
