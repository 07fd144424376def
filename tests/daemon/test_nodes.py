"""Who is who: genesis events, adverts and signed notes are believed only from whose key they are."""

from typing import Any

import pytest

from daemon import nodes as nodes_file
from daemon.nodes import Nodes
from ledger.verdict import seed_commitment
from nexapod.errors import PeerError, Unavailable
from nexapod.events import make_genesis, sign_note
from nexapod.hashing import Tag, blob_id
from nexapod.identity import Key, next_key_digest, peer_id
from nexapod.messages import Assignment, Claim
from tests.daemon.standing import signed_advert
from tests.ledger.scribe import NETID, Scribe

ANNA, BEN = Scribe("anna"), Scribe("ben")


class Clock:
    ms = 0

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes(clock: Clock) -> Nodes:
    return Nodes(NETID, clock)


def claim_of(scribe: Scribe, **changes: Any) -> Claim:
    fields = {"feed": scribe.feed, "numeric_class": "", "slots": 1, "seq": 1, "valid_ms": 1_000, "offer": None}
    return Claim(**(fields | changes))


def assignment_of(owner: Scribe, worker: Scribe) -> Assignment:
    return Assignment(owner.feed, worker.feed, seed_commitment(bytes(32)), 0, 60_000, (0,))


def introduce(nodes: Nodes, *scribes: Scribe) -> None:
    for scribe in scribes:
        assert nodes.introduce(scribe.events[0].raw, scribe.key.public) == scribe.feed


# --- introductions ----------------------------------------------------------------------------------------------------
def test_a_genesis_binds_a_key_to_a_feed(nodes: Nodes) -> None:
    assert nodes.feed_of(ANNA.key.public) is None
    assert nodes.peer_of(ANNA.feed) == ""
    introduce(nodes, ANNA)
    assert nodes.feed_of(ANNA.key.public) == ANNA.feed
    assert nodes.key_of(ANNA.feed) == ANNA.key.public
    assert nodes.peer_of(ANNA.feed) == peer_id(ANNA.key.public)


def test_nobody_shows_the_genesis_of_another(nodes: Nodes) -> None:
    with pytest.raises(PeerError) as caught:
        nodes.introduce(BEN.events[0].raw, ANNA.key.public)
    assert caught.value.cost == 100
    with pytest.raises(PeerError):
        nodes.introduce(Scribe("anna").rotate().raw, ANNA.key.public)
    # A genesis that names the key and is signed by another.
    forged = make_genesis(ANNA.key, NETID, next_key_digest(BEN.key.public))
    mixed = forged.raw[:-64] + BEN.key.sign(forged.id)
    with pytest.raises(PeerError):
        nodes.introduce(mixed, ANNA.key.public)
    assert nodes.feed_of(ANNA.key.public) is None


def test_a_genesis_of_another_network_gives_another_feed(nodes: Nodes) -> None:
    """It proves nothing about the feed here: its signature is over the other network's id."""
    with pytest.raises(PeerError):
        nodes.introduce(Scribe("anna", blob_id(b"elsewhere")).events[0].raw, ANNA.key.public)


def test_the_oldest_introduction_makes_room(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_file, "FEEDS_MAX", 3)
    for number in range(3):
        nodes.remember(bytes([number]), b"feed" + bytes([number]))
    nodes.remember(b"\0", b"feed\0")  # heard of again: the oldest is number 1 now
    nodes.remember(b"\3", b"feed\3")
    assert [nodes.feed_of(bytes([number])) is not None for number in range(4)] == [True, False, True, True]
    assert nodes.key_of(b"feed\1") is None


# --- signed notes -----------------------------------------------------------------------------------------------------
def test_a_claim_is_believed_from_its_own_node_only(nodes: Nodes) -> None:
    claim = claim_of(ANNA)
    signed = sign_note(ANNA.key, Tag.CLAIM, NETID, claim)
    with pytest.raises(Unavailable):
        nodes.open_claim(signed)
    introduce(nodes, ANNA, BEN)
    assert nodes.open_claim(signed) == claim
    for forged in (
        sign_note(BEN.key, Tag.CLAIM, NETID, claim),
        sign_note(ANNA.key, Tag.ASSIGNMENT, NETID, claim),
        sign_note(ANNA.key, Tag.CLAIM, blob_id(b"elsewhere"), claim),
    ):
        with pytest.raises(PeerError) as caught:
            nodes.open_claim(forged)
        assert caught.value.cost == 100
    with pytest.raises(PeerError):
        nodes.open_claim(b"rubbish")


def test_an_assignment_is_believed_from_its_owner_only(nodes: Nodes) -> None:
    introduce(nodes, ANNA)
    assignment = assignment_of(ANNA, BEN)
    opened, digest = nodes.open_assignment(sign_note(ANNA.key, Tag.ASSIGNMENT, NETID, assignment))
    assert opened == assignment
    assert len(digest) == 32
    with pytest.raises(PeerError):
        nodes.open_assignment(sign_note(BEN.key, Tag.ASSIGNMENT, NETID, assignment))
    with pytest.raises(Unavailable):
        nodes.open_assignment(sign_note(BEN.key, Tag.ASSIGNMENT, NETID, assignment_of(BEN, ANNA)))


# --- adverts ----------------------------------------------------------------------------------------------------------
def test_the_newest_advert_counts(nodes: Nodes, clock: Clock) -> None:
    introduce(nodes, ANNA)
    first = signed_advert(ANNA.key, NETID, ANNA.feed, seq=5, name="anna")
    assert nodes.name_of(ANNA.feed) == ""
    assert nodes.learn_advert(first) is not None
    assert nodes.learn_advert(first) is None
    assert nodes.learn_advert(signed_advert(ANNA.key, NETID, ANNA.feed, seq=4, name="older")) is None
    assert nodes.name_of(ANNA.feed) == "anna"
    clock.ms = 500
    assert nodes.heard_ms_ago(ANNA.key.public) == 500
    assert nodes.learn_advert(signed_advert(ANNA.key, NETID, ANNA.feed, seq=6, name="newer")) is not None
    assert (nodes.name_of(ANNA.feed), nodes.heard_ms_ago(ANNA.key.public)) == ("newer", 0)
    assert nodes.heard_ms_ago(BEN.key.public) is None


def test_a_forged_advert_is_refused_and_so_is_anothers_where_the_own_is_due(nodes: Nodes) -> None:
    raw = signed_advert(ANNA.key, NETID)
    with pytest.raises(PeerError):
        nodes.learn_advert(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(PeerError):
        nodes.learn_advert(signed_advert(ANNA.key, blob_id(b"elsewhere")))
    assert nodes.learn_advert(raw) is not None
    with pytest.raises(PeerError, match="another's"):  # also when it is known already
        nodes.learn_advert(raw, by=BEN.key.public)


def test_an_advert_ends_when_its_time_is_over(nodes: Nodes, clock: Clock) -> None:
    nodes.learn_advert(signed_advert(ANNA.key, NETID, valid_ms=1_000))
    nodes.learn_advert(signed_advert(BEN.key, NETID, valid_ms=2_000))
    assert len(nodes.adverts()) == 2
    clock.ms = 1_000
    assert [advert.key for advert in nodes.adverts()] == [BEN.key.public]
    clock.ms = 2_000
    assert nodes.adverts() == []


def test_the_advert_heard_longest_ago_makes_room(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_file, "ADVERTS_MAX", 2)
    keys = [Key.from_seed(bytes([number]) * 32) for number in range(3)]
    for key in keys[:2]:
        nodes.learn_advert(signed_advert(key, NETID))
    nodes.learn_advert(signed_advert(keys[0], NETID, seq=2))
    nodes.learn_advert(signed_advert(keys[2], NETID))
    assert [nodes.advert_of(key.public) is not None for key in keys] == [True, False, True]
