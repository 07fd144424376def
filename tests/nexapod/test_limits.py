"""The bounds fit each other: what one bound allows, another does not refuse."""

from itertools import pairwise
from typing import Any, cast, get_args

import pytest
from msgspec.structs import replace

from bootstrap import bootstrap_file
from bootstrap.address import PeerAddress
from bootstrap.bootstrap_file import Bootstrap, Vouched, read_bootstrap
from bootstrap.manifest import MEMBERS_MAX, Manifest, Member, decode_manifest, netid_of_bytes
from dht import advert as adverts
from gossip.batch import MESSAGE_BYTES_MAX, MESSAGES_MAX, encode_batch
from gossip.pubsub import RPC_BYTES_MAX
from nexapod import limits
from nexapod.encoding import Wire, decode_plain, encode
from nexapod.events import make_event, sign_note
from nexapod.hashing import Tag
from nexapod.identity import Key, peer_id
from nexapod.limits import (
    ADVERT_BYTES_MAX,
    CLAIM_BYTES_MAX,
    DEPTH_MAX,
    ENTRIES_MAX,
    EVENT_BYTES_MAX,
    EVENTS_PER_PAGE,
    GOSSIP_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    NAME_CHARS_MAX,
    NOTE_CHARS_MAX,
    REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    RESULT_BYTES_MAX,
)
from nexapod.messages import (
    DATA_OF_KIND,
    Advert,
    Ask,
    Assignment,
    Claim,
    EventData,
    EventsReply,
    Genesis,
    Opening,
    Reply,
    Seal,
    Settle,
    Settlement,
    Void,
)
from runtime.outputs import FILES_MAX, PART_BYTES_MAX, manifest_of
from runtime.task import OutputFile
from tests.nexapod.strategies import LONGEST, worst

NETID, KEY = b"\7" * 32, Key.from_seed(b"\1" * 32)
BIG = 2**63 - 1
FILLED_BY_BYTES = (Seal, Settle, Void)  # their writer counts bytes: daemon/core/author.py
EVENT_ROOM = 512  # what that writer leaves for all but the entries


def event_of(data: EventData) -> bytes:
    return make_event(KEY, NETID, feed=b"f" * 32, seq=BIG, prev=b"p" * 32, ts=BIG, data=data).raw


def fullest(kind: type[EventData]) -> Any:
    data = worst(kind)
    return replace(data, entries=data.entries[:1]) if kind in FILLED_BY_BYTES else data


# --- events ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(set(DATA_OF_KIND.values()) - {Genesis}, key=lambda kind: kind.__name__))
def test_the_fullest_event_of_every_kind_fits(kind: type[EventData]) -> None:
    """A list of ENTRIES_MAX, or one entry of the kinds that are filled by bytes."""
    raw = event_of(fullest(kind))
    assert len(raw) <= EVENT_BYTES_MAX
    assert decode_plain(encode(fullest(kind)), size_max=EVENT_BYTES_MAX), f"deeper than {DEPTH_MAX}"


@pytest.mark.parametrize("kind", FILLED_BY_BYTES)
def test_an_event_filled_by_bytes_fits_whatever_it_is_filled_with(kind: type[EventData]) -> None:
    data = fullest(kind)
    around = len(event_of(data)) - len(encode(data.entries[0]))
    assert around <= EVENT_ROOM
    small = replace(data, entries=data.entries * ENTRIES_MAX) if kind is Seal else None
    assert small is None or len(encode(small)) > EVENT_BYTES_MAX, "else it need not be filled by bytes"


def test_a_settlement_of_sixty_tasks_by_two_nodes_fits() -> None:
    opening = Opening(b"c" * 32, b"n" * 16, "x86-64-v3+sm90-550.54.14", 10**14, None, 10**8)
    settlement = Settlement(limits.TASKS_MAX - 1, b"r" * 32, (opening, opening))
    assert len(event_of(Settle(b"o" * 32, (settlement,) * 60))) <= EVENT_BYTES_MAX


# --- notes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "tag", "size_max"),
    [
        (Advert, Tag.ADVERT, ADVERT_BYTES_MAX),
        (Claim, Tag.CLAIM, CLAIM_BYTES_MAX),
        (Assignment, Tag.ASSIGNMENT, EVENT_BYTES_MAX),
    ],
)
def test_the_fullest_note_fits(kind: type[Wire], tag: Tag, size_max: int) -> None:
    assert len(sign_note(KEY, tag, NETID, worst(kind))) <= size_max


def test_the_fullest_advert_stands_in_no_more_buckets_than_peers_accept() -> None:
    assert len(adverts.labels_of(worst(Advert))) <= adverts.LABELS_MAX


# --- streams and gossip ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", get_args(Ask))
def test_the_fullest_question_fits(kind: type[Wire]) -> None:
    assert len(encode(worst(kind))) <= REQUEST_BYTES_MAX


@pytest.mark.parametrize("kind", sorted(set(get_args(Reply)) - {EventsReply}, key=lambda kind: kind.__name__))
def test_the_fullest_answer_fits(kind: type[Wire]) -> None:
    """A page of events is filled by bytes; the one of the frontier always fits."""
    assert len(encode(worst(kind))) <= REPLY_BYTES_MAX


def test_a_page_of_events_holds_the_largest_event_and_as_many_usual_ones_as_a_page_has() -> None:
    assert len(encode(EventsReply((bytes(EVENT_BYTES_MAX),)))) <= REPLY_BYTES_MAX
    assert len(encode(EventsReply((bytes(1000),) * EVENTS_PER_PAGE))) <= REPLY_BYTES_MAX


def test_whatever_is_gossiped_fits_a_batch_and_a_batch_fits_a_message_of_the_library() -> None:
    assert max(EVENT_BYTES_MAX, ADVERT_BYTES_MAX, CLAIM_BYTES_MAX) <= MESSAGE_BYTES_MAX
    assert len(encode_batch([bytes(MESSAGE_BYTES_MAX)])) <= GOSSIP_BYTES_MAX
    assert len(encode_batch([b"x"] * MESSAGES_MAX)) <= GOSSIP_BYTES_MAX
    assert GOSSIP_BYTES_MAX + 4096 <= RPC_BYTES_MAX


# --- files -----------------------------------------------------------------------------------------------------------
def fullest_manifest() -> Manifest:
    longest = worst(Member)
    keys = [number.to_bytes(32, "big") for number in range(MEMBERS_MAX)]
    members = tuple(replace(longest, key=key, roles=2) for key in keys)
    return Manifest(1, "n" * NAME_CHARS_MAX, LONGEST * NOTE_CHARS_MAX, members, 0, tuple(keys))


def test_the_fullest_manifest_fits_and_so_does_the_fullest_bootstrap_file() -> None:
    manifest = fullest_manifest()
    raw = encode(manifest)
    assert len(raw) <= MANIFEST_BYTES_MAX
    assert decode_manifest(raw) == manifest
    host = ".".join(["a" * 60] * 3)
    peers = tuple(
        PeerAddress(f"/dns4/{number:03}{host}/tcp/65535"[:200], KEY.public, peer_id(KEY.public))
        for number in range(bootstrap_file.PEERS_MAX)
    )
    made = Bootstrap(manifest, raw, netid_of_bytes(raw), peers)
    keys = [Key.from_seed(number.to_bytes(32, "big")) for number in range(bootstrap_file.SIGNATURES_MAX)]
    signatures = tuple(Vouched(key.public, key.sign(made.digest())) for key in keys)
    full = Bootstrap(manifest, raw, made.netid, peers, signatures)
    assert read_bootstrap(full.text()) == full


def test_the_fullest_result_fits_with_names_as_long_as_a_file_system_takes() -> None:
    files = [OutputFile(f"{number:05}".ljust(PART_BYTES_MAX, "x"), BIG, b"h" * 32) for number in range(FILES_MAX)]
    assert len(manifest_of(255, files)) <= RESULT_BYTES_MAX


# --- time and tables -------------------------------------------------------------------------------------------------
def test_what_is_renewed_is_renewed_in_time() -> None:
    assert 3 * limits.RENEW_MS <= limits.LEASE_MS
    assert limits.REQUEST_MS < limits.RENEW_MS
    assert adverts.RENEW_S * 1000 * 3 <= limits.ADVERT_VALID_MS


def test_one_peer_cannot_take_what_is_there_for_all() -> None:
    assert limits.REQUESTS_PER_PEER * 4 <= limits.REQUESTS_MAX
    assert limits.HANDSHAKES_PER_ADDRESS * 4 <= limits.HANDSHAKES_MAX
    assert limits.REQUESTS_PER_PEER < limits.STREAMS_PER_PEER


def test_every_bound_is_a_positive_whole_number_and_says_why() -> None:
    bounds = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert all(isinstance(value, int) and value > 0 for value in bounds.values())
    source = cast(Any, limits.__spec__).loader.get_source(limits.__name__)
    lines = ["", *source.splitlines()]
    bare = [line for before, line in pairwise(lines) if line.split(" ")[0] in bounds and "#" not in line + before]
    assert bare == []
