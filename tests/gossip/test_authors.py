"""Rates per author, in a table that stays bounded."""

from hypothesis import given
from hypothesis import strategies as st

from gossip.authors import AUTHORS_MAX, BATCHES_BURST, BATCHES_PER_S, BYTES_BURST, BYTES_PER_S, Authors


def test_a_burst_passes_and_then_the_rate() -> None:
    authors = Authors()
    assert sum(authors.allow(b"a", 10, 0) for _ in range(1000)) == BATCHES_BURST
    assert not authors.allow(b"a", 10, 0)
    assert authors.allow(b"b", 10, 0)  # another author is not held back
    assert sum(authors.allow(b"a", 10, 1) for _ in range(1000)) == BATCHES_PER_S


def test_bytes_count_as_well() -> None:
    authors = Authors()
    size = int(BYTES_BURST / 8)
    assert sum(authors.allow(b"a", size, 0) for _ in range(100)) == 8
    assert not authors.allow(b"a", size, 1)
    assert authors.allow(b"a", int(BYTES_PER_S), 2)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    authors = Authors()
    while authors.allow(b"a", 1, 100):
        pass
    assert not authors.allow(b"a", 1, 0)


@given(st.lists(st.integers(0, 3 * AUTHORS_MAX), max_size=50), st.integers(0, AUTHORS_MAX))
def test_the_table_is_bounded(some: list[int], first: int) -> None:
    authors = Authors()
    for number in range(first, first + AUTHORS_MAX):
        authors.allow(number.to_bytes(4, "big"), 1, 0)
    for number in some:
        authors.allow(number.to_bytes(4, "big"), 1, 1)
    assert len(authors) <= AUTHORS_MAX
