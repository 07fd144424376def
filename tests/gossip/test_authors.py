"""Rates per author and neighbour, in tables that stay bounded."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.authors import (
    AUTHOR_AT_ONCE,
    AUTHOR_PER_S,
    AUTHORS_MAX,
    NEIGHBOUR_AT_ONCE,
    NEIGHBOUR_PER_S,
    NEIGHBOURS_MAX,
    Authors,
)
from gossip.batch import GATHER_S, MESSAGES_MAX
from gossip.service import TOPICS
from nexapod.limits import GOSSIP_BYTES_MAX


def passed(authors: Authors, author: bytes, neighbour: bytes, tries: int, now: float) -> int:
    return sum(authors.allow(author, neighbour, 1, 10, now) for _ in range(tries))


def test_a_burst_passes_and_then_the_rate() -> None:
    authors = Authors()
    assert passed(authors, b"a", b"n", 1000, 0) == AUTHOR_AT_ONCE.batches
    assert not authors.allow(b"a", b"n", 1, 10, 0)
    assert authors.allow(b"b", b"n", 1, 10, 0)  # another author is not held back
    assert passed(authors, b"a", b"n", 1000, 1) == AUTHOR_PER_S.batches


def test_bytes_and_messages_count_as_well() -> None:
    authors = Authors()
    size = int(AUTHOR_AT_ONCE.size / 8)
    assert sum(authors.allow(b"a", b"n", 1, size, 0) for _ in range(100)) == 8
    assert not authors.allow(b"a", b"n", 1, size, 1)
    assert authors.allow(b"a", b"n", 1, int(AUTHOR_PER_S.size), 2)
    full = int(AUTHOR_AT_ONCE.messages) // MESSAGES_MAX
    assert sum(authors.allow(b"b", b"n", MESSAGES_MAX, 9000, 2) for _ in range(100)) == full


def test_an_honest_author_is_never_held_back() -> None:
    assert AUTHOR_PER_S.batches >= len(TOPICS) / GATHER_S
    assert AUTHOR_AT_ONCE.size >= GOSSIP_BYTES_MAX
    assert AUTHOR_AT_ONCE.messages >= MESSAGES_MAX


def test_old_words_repeated_by_one_neighbour_silence_nobody() -> None:
    authors = Authors()
    passed(authors, b"honest", b"liar", 10_000, 0)
    assert passed(authors, b"honest", b"friend", 10, 0) == 10


def test_invented_authors_share_what_their_neighbour_may_pass_on() -> None:
    authors = Authors()
    invented = [number.to_bytes(4, "big") for number in range(3000)]
    assert sum(authors.allow(author, b"liar", 1, 10, 0) for author in invented) == NEIGHBOUR_AT_ONCE.batches
    assert sum(authors.allow(author, b"liar", 1, 10, 1) for author in invented) == NEIGHBOUR_PER_S.batches
    assert authors.allow(b"honest", b"friend", 1, 10, 1)


def test_what_is_refused_costs_nothing() -> None:
    authors = Authors()
    too_large = int(AUTHOR_AT_ONCE.size) + 1
    assert not any(authors.allow(b"a", b"n", 1, too_large, 0) for _ in range(5000))
    assert passed(authors, b"a", b"n", 1000, 0) == AUTHOR_AT_ONCE.batches


def test_a_clock_that_goes_back_gives_nothing() -> None:
    authors = Authors()
    passed(authors, b"a", b"n", 1000, 100)
    assert not authors.allow(b"a", b"n", 1, 1, 0)


@settings(derandomize=True, max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * AUTHORS_MAX), max_size=50), st.integers(0, AUTHORS_MAX))
def test_the_tables_are_bounded(some: list[int], first: int) -> None:
    authors = Authors()
    for number in (*range(first, first + AUTHORS_MAX), *some):
        key = number.to_bytes(4, "big")
        authors.allow(key, key, 1, 1, 0)
    assert len(authors) <= AUTHORS_MAX + NEIGHBOURS_MAX
