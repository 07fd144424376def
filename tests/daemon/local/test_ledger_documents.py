"""The ledger as JSON: rows, whole events, balances, forks, and who is meant by what a person types."""

import json

import pytest

from daemon.local import ledger_documents as documents
from ledger.replica import Replica
from nexapod.errors import Exit, LocalError
from nexapod.hashing import blob_id
from nexapod.messages import Kind, Report, Vouch
from tests.ledger.scribe import NETID, PRICE, Scribe, everything, walk

ANNA, BEN, CLEO = Scribe("anna"), Scribe("ben"), Scribe("cleo")
SETTLE = walk(ANNA, [BEN, CLEO])
NAMES = {ANNA.feed: "anna", BEN.feed: "ben", CLEO.feed: "ben"}


def name_of(feed: bytes) -> str:
    return NAMES.get(feed, feed.hex()[:12])


def replica_of(*scribes: Scribe) -> Replica:
    replica = Replica(NETID)
    replica.apply(replica.plan(everything(*scribes)))
    return replica


@pytest.fixture(scope="module")
def replica() -> Replica:
    return replica_of(ANNA, BEN, CLEO)


def test_the_summary_counts_what_is_there(replica: Replica) -> None:
    found = documents.summary(replica)
    assert found["events"] == found["certified_events"] == len(everything(ANNA, BEN, CLEO))
    assert (found["feeds"], found["forks"], found["provisional"]) == (3, 0, True)
    assert found["minted_micro"] == {ANNA.feed.hex(): 2 * PRICE}
    assert found["state_root"] == replica.fold.state_root().hex()
    assert json.dumps(found)


def test_a_row_says_who_did_what(replica: Replica) -> None:
    row = documents.event_row(SETTLE, replica, name_of)
    assert (row["id"], row["feed"], row["name"]) == (SETTLE.id.hex(), ANNA.feed.hex(), "anna")
    assert (row["kind"], row["seq"], row["certified"]) == ("settle", SETTLE.seq, True)
    assert row["text"]


def test_an_event_is_shown_with_its_bytes_and_whether_it_was_signed(replica: Replica) -> None:
    found = documents.event_document(SETTLE, replica, name_of)
    assert found["signed"]
    assert bytes.fromhex(found["raw"]) == SETTLE.raw
    assert found["prev"] == SETTLE.prev.hex()
    assert found["faults"] == []
    assert found["data"]["entries"][0]["openings"][0]["amount"] == PRICE
    assert json.dumps(found)
    forged = SETTLE._replace(signature=bytes(64))
    assert not documents.event_document(forged, replica, name_of)["signed"]
    stranger = Scribe("nobody here knows").events[0]
    assert not documents.event_document(stranger, replica, name_of)["signed"]


def test_events_before_a_rotation_count_as_signed() -> None:
    """Their key is gone; the chain was checked when it came in."""
    author = Scribe("rotates")
    first = author.write(Vouch(BEN.feed, ""))
    author.rotate()
    last = author.write(Report(BEN.feed, 0, ""))
    replica = replica_of(author)
    assert documents.event_document(first, replica, name_of)["signed"]
    assert documents.event_document(last, replica, name_of)["signed"]


def test_balances_of_all_and_of_one(replica: Replica) -> None:
    found = documents.balances(replica, None, name_of)
    held = {row["account"]: row["balance_micro"] for row in found["balances"]}
    assert held == {BEN.feed.hex(): PRICE, CLEO.feed.hex(): PRICE}
    assert {row["issuer"] for row in found["balances"]} == {"anna"}
    assert sum(held.values()) == sum(found["minted_micro"].values())
    one = documents.balances(replica, BEN.feed, name_of)["balances"]
    assert [row["earned_micro"] for row in one] == [PRICE]
    assert documents.balances(replica, ANNA.feed, name_of)["balances"] == []


def test_a_fork_is_listed_with_both_ids() -> None:
    author = Scribe("forks")
    kept = author.write(Vouch(BEN.feed, "one"))
    other = author.rewrite(1, Vouch(BEN.feed, "other"))
    replica = replica_of(author)
    replica.apply(replica.plan([other]))
    (row,) = documents.forks(replica, name_of)["forks"]
    assert (row["feed"], row["seq"]) == (author.feed.hex(), 1)
    assert (row["kept"], row["other"]) == (kept.id.hex(), other.id.hex())


def test_kinds_have_names_and_unknown_ones_numbers() -> None:
    assert documents.kind_name(Kind.CLOSE) == "close"
    assert documents.kind_name(99) == "kind 99"
    assert documents.wanted_kind(None) is None
    assert documents.wanted_kind("close") == documents.wanted_kind("CLOSE") == Kind.CLOSE
    with pytest.raises(LocalError) as caught:
        documents.wanted_kind("setle")
    assert caught.value.exit_code == Exit.USAGE
    assert "settle" in caught.value.next_step


def test_events_are_chosen_by_kind() -> None:
    events = everything(ANNA)
    assert documents.chosen(events, None) == events
    assert [event.kind for event in documents.chosen(events, Kind.SETTLE)] == [Kind.SETTLE]


def test_a_feed_is_meant_by_its_name_or_the_beginning_of_its_id(replica: Replica) -> None:
    assert documents.find_feed("anna", replica, name_of) == ANNA.feed
    assert documents.find_feed(ANNA.feed.hex()[:8].upper(), replica, name_of) == ANNA.feed
    for nobody in ("dora", ANNA.feed.hex()[:3], "", "zz"):
        with pytest.raises(LocalError) as caught:
            documents.find_feed(nobody, replica, name_of)
        assert caught.value.exit_code == Exit.NOT_FOUND
    with pytest.raises(LocalError) as caught:
        documents.find_feed("ben", replica, name_of)
    assert caught.value.exit_code == Exit.USAGE
    assert set(caught.value.why.split()) == {BEN.feed.hex(), CLEO.feed.hex()}


def test_nobody_takes_the_place_of_a_feed_by_calling_itself_by_its_id(replica: Replica) -> None:
    def lying(feed: bytes) -> str:
        return ANNA.feed.hex() if feed == BEN.feed else ""

    assert documents.find_feed(ANNA.feed.hex(), replica, lying) == ANNA.feed


def test_plain_values_are_what_json_has() -> None:
    found = documents.plain((b"\1", Vouch(blob_id(b""), "why"), [None, True, 3, "x"]))
    assert found == ["01", {"feed": blob_id(b"").hex(), "note": "why"}, [None, True, 3, "x"]]
