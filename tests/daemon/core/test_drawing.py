"""The draw of executors."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from daemon.core.drawing import draw
from nexapod.hashing import blob_id

FEEDS = [blob_id(bytes([number])) for number in range(8)]
SEED = blob_id(b"seed")


@given(st.sets(st.sampled_from(FEEDS), min_size=1), st.integers(0, 9_999))
def test_who_leaves_does_not_change_the_order_of_the_others(leaving: set[bytes], task: int) -> None:
    everybody = draw(SEED, task, dict.fromkeys(FEEDS, 4))
    rest = draw(SEED, task, {feed: 4 for feed in FEEDS if feed not in leaving})
    assert rest == [feed for feed in everybody if feed not in leaving]


def test_the_draw_is_fixed_by_seed_and_task_and_nothing_else() -> None:
    weights = dict.fromkeys(FEEDS, 2)
    assert draw(SEED, 7, weights) == draw(SEED, 7, dict(reversed(weights.items())))
    assert draw(SEED, 7, weights) != draw(SEED, 8, weights)
    assert draw(SEED, 7, weights) != draw(blob_id(b"another"), 7, weights)


def test_first_places_follow_the_weights() -> None:
    weights = {FEEDS[0]: 6, FEEDS[1]: 3, FEEDS[2]: 1}
    first = Counter(draw(SEED, task, weights)[0] for task in range(3_000))
    for feed, weight in weights.items():
        assert abs(first[feed] / 3_000 - weight / 10) < 0.03


def test_nobody_to_draw() -> None:
    assert draw(SEED, 0, {}) == []
