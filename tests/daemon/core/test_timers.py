"""Timers against the plainest thing that does the same: a dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.core.timers import Timers

KEYS = st.integers(0, 5)
MOMENTS = st.integers(0, 50)
ACTS = st.one_of(
    st.tuples(st.just("set"), KEYS, MOMENTS), st.tuples(st.just("drop"), KEYS), st.tuples(st.just("due"), MOMENTS)
)


@given(st.lists(ACTS, max_size=60))
def test_timers_do_what_a_dictionary_does(acts: list[tuple[str, int, int]]) -> None:
    timers: Timers[int] = Timers()
    model: dict[int, int] = {}
    for act, *rest in acts:
        if act == "set":
            key, at = rest
            timers.set(key, at)
            model[key] = at
        elif act == "drop":
            timers.drop(rest[0])
            model.pop(rest[0], None)
        else:
            wanted = sorted((at, key) for key, at in model.items() if at <= rest[0])
            assert timers.due(rest[0]) == [key for _, key in wanted]
            model = {key: at for key, at in model.items() if at > rest[0]}
        assert timers.next_at == min(model.values(), default=None)
        assert len(timers) == len(model)
        assert {key: timers.at(key) for key in range(6) if key in timers} == model


def test_moving_a_moment_for_ever_takes_no_room() -> None:
    timers: Timers[int] = Timers()
    for at in range(10_000, 0, -1):
        timers.set(1, at)
        timers.set(2, 20_000 - at)
    assert len(timers._heap) < 50
    timers.clear()
    assert timers.next_at is None
