"""Keys keep the order that ranges rely on."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.layout import (
    ABOUT,
    EVENT,
    FACT,
    FORK,
    NETWORK_KEY,
    POSITION,
    VERSION_KEY,
    about_key,
    after,
    event_key,
    place,
    split_place,
)

FEEDS = st.binary(min_size=32, max_size=32)
SEQS = st.integers(0, 2**63 - 1)


@given(FEEDS, SEQS)
def test_a_place_is_read_back(feed: bytes, seq: int) -> None:
    assert split_place(place(feed, seq)) == (feed, seq)
    assert event_key(feed, seq) == EVENT + place(feed, seq)


@given(st.tuples(FEEDS, SEQS), st.tuples(FEEDS, SEQS))
def test_keys_are_in_feed_and_seq_order(one: tuple[bytes, int], two: tuple[bytes, int]) -> None:
    assert (event_key(*one) < event_key(*two)) == (one < two)
    assert (about_key(b"s" * 32, *one) < about_key(b"s" * 32, *two)) == (one < two)


@given(FEEDS, SEQS)
def test_the_key_after_a_prefix_bounds_it(feed: bytes, seq: int) -> None:
    assert event_key(feed, seq) < after(EVENT)
    assert event_key(b"\xff" * 32, 2**63 - 1) < after(EVENT)
    assert after(EVENT) not in (EVENT, event_key(feed, seq))


def test_no_prefix_begins_another() -> None:
    prefixes = [VERSION_KEY, NETWORK_KEY, EVENT, POSITION, ABOUT, FORK, FACT]
    assert len(set(prefixes)) == len(prefixes)
    assert {len(prefix) for prefix in prefixes} == {1}
