"""How acks certify a feed."""

from itertools import permutations

import pytest

from ledger import certificate as certificate_module
from ledger.certificate import Certificate
from nexapod.messages import AckEntry

FEED = b"f" * 32
KEYS = [bytes((i,)) * 32 for i in range(4)]


def event_id(seq: int) -> bytes:
    return seq.to_bytes(32, "big")


def id_at(feed: bytes, seq: int) -> bytes | None:
    return event_id(seq) if feed == FEED and seq < 10 else None


def entry(seq: int) -> AckEntry:
    return AckEntry(FEED, seq, event_id(seq))


def waiting(certificate: Certificate) -> int:
    return sum(len(ahead) for feeds in certificate._ahead.values() for ahead in feeds.values())


def test_the_threshold_th_highest_ack_counts_in_any_order() -> None:
    acks = [(KEYS[0], 9), (KEYS[1], 4), (KEYS[2], 6), (KEYS[0], 2)]
    for order in permutations(acks):
        certificate = Certificate(frozenset(KEYS), 2)
        reached = [-1]
        for key, seq in order:
            certificate.ack(key, entry(seq), id_at)
            reached.append(certificate.certified(FEED))
        assert reached == sorted(reached)
        assert reached[-1] == 6


def test_one_witness_counts_once() -> None:
    certificate = Certificate(frozenset(KEYS), 2)
    for seq in range(5):
        certificate.ack(KEYS[0], entry(seq), id_at)
    assert certificate.certified(FEED) == -1
    assert certificate.acked(KEYS[0], FEED) == 4


def test_strangers_and_other_chains_do_not_count() -> None:
    certificate = Certificate(frozenset(KEYS), 1)
    certificate.ack(b"stranger" * 4, entry(3), id_at)
    certificate.ack(KEYS[0], AckEntry(FEED, 3, event_id(4)), id_at)
    assert certificate.certified(FEED) == -1


def test_acks_ahead_of_the_chain_count_when_it_gets_there() -> None:
    certificate = Certificate(frozenset(KEYS), 1)
    certificate.ack(KEYS[0], entry(5), lambda feed, seq: None)
    certificate.grown(FEED, 4, id_at)
    assert certificate.certified(FEED) == -1
    certificate.grown(FEED, 5, id_at)
    assert certificate.certified(FEED) == 5


def test_an_ack_of_another_branch_does_not_hide_an_earlier_one() -> None:
    certificate = Certificate(frozenset(KEYS), 1)
    certificate.ack(KEYS[0], entry(5), lambda feed, seq: None)
    certificate.ack(KEYS[0], AckEntry(FEED, 6, b"x" * 32), lambda feed, seq: None)
    certificate.grown(FEED, 8, id_at)
    assert certificate.certified(FEED) == 5


def test_acks_ahead_are_bounded() -> None:
    certificate = Certificate(frozenset(KEYS), 1)
    for seq in range(100):
        certificate.ack(KEYS[0], entry(seq), lambda feed, seq: None)
    assert waiting(certificate) == 16
    assert certificate.awaited(FEED) == 99
    certificate.grown(FEED, 99, lambda feed, seq: event_id(seq))
    assert certificate.certified(FEED) == 99
    assert waiting(certificate) == 0


def test_acks_of_feeds_that_never_exist_are_bounded_for_each_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_module, "FEEDS_MAX", 3)
    certificate = Certificate(frozenset(KEYS), 1)
    for number in range(10):
        certificate.ack(KEYS[0], AckEntry(event_id(number), 0, event_id(number)), lambda feed, seq: None)
    assert waiting(certificate) == 3
    certificate.ack(KEYS[1], entry(2), lambda feed, seq: None)  # another witness has room of its own
    certificate.grown(FEED, 2, id_at)
    assert certificate.certified(FEED) == 2


def test_what_is_awaited_needs_as_many_witnesses_as_a_certificate() -> None:
    certificate = Certificate(frozenset(KEYS), 2)
    assert certificate.awaited(FEED) == -1
    certificate.ack(KEYS[0], entry(50), id_at)
    assert certificate.awaited(FEED) == -1
    certificate.ack(KEYS[1], entry(4), id_at)
    assert certificate.awaited(FEED) == 4
    assert certificate.certified(FEED) == -1
    certificate.ack(KEYS[2], entry(20), id_at)
    assert certificate.awaited(FEED) == 20
    assert Certificate(frozenset(), 0).awaited(FEED) == -1


def test_without_witnesses_everything_stored_counts_provisionally() -> None:
    certificate = Certificate(frozenset(), 0)
    certificate.grown(FEED, 7, id_at)
    certificate.grown(FEED, 3, id_at)
    assert certificate.provisional
    assert certificate.certified(FEED) == 7


def test_more_acks_than_witnesses_cannot_be_asked_for() -> None:
    with pytest.raises(AssertionError):
        Certificate(frozenset(KEYS[:2]), 3)
