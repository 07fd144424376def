"""The dialer's decisions, and the task that keeps real hosts connected."""

from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon import connections
from daemon.connections import (
    BACKOFF_LAST_S,
    DIALS_AT_ONCE,
    FORGET_AFTER,
    KNOWN_MAX,
    WANTED,
    Connections,
    Dialer,
)
from daemon.host import Mesh, open_host
from nexapod.errors import Unavailable
from nexapod.limits import ADDRESSES_MAX, PEERS_MAX

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 20
NOBODY: frozenset[bytes] = frozenset()


def test_a_new_peer_is_dialled_at_once_and_only_once() -> None:
    dialer = Dialer()
    assert dialer.learn(b"a", ["x"], False, 0)
    assert dialer.due(NOBODY, 0) == [(b"a", ("x",))]
    assert dialer.due(NOBODY, 0) == []
    dialer.succeeded(b"a")
    assert dialer.due(frozenset([b"a"]), 0) == []


def test_failures_wait_twice_as_long_each_time_up_to_a_minute() -> None:
    dialer, now, waits = Dialer(), 0.0, []
    dialer.learn(b"a", ["x"], True, now)
    for _ in range(10):
        assert dialer.due(NOBODY, now)
        dialer.failed(b"a", now, 1.0)
        began = now
        while not (due := dialer.due(NOBODY, now)):
            now += 0.5
        waits.append(now - began)
        assert due == [(b"a", ("x",))]
        dialer.succeeded(b"a")  # gives the turn back without a connection
        dialer._known[b"a"].failures = len(waits)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_lost_peer_is_dialled_within_a_second() -> None:
    for jitter in (0.0, 0.5, 1.0):
        dialer = Dialer()
        dialer.learn(b"a", ["x"], False, 0)
        dialer.due(NOBODY, 0)
        dialer.succeeded(b"a")
        dialer.lost(b"a", 100, jitter)
        assert not dialer.due(NOBODY, 100)
        assert dialer.due(NOBODY, 101)


def test_a_stranger_that_never_answers_is_forgotten_and_a_kept_peer_is_not() -> None:
    dialer, now = Dialer(), 0.0
    dialer.learn(b"stranger", ["x"], False, now)
    dialer.learn(b"kept", ["x"], True, now)
    for _ in range(FORGET_AFTER):
        now += BACKOFF_LAST_S
        for key, _ in dialer.due(NOBODY, now):
            dialer.failed(key, now, 0.5)
    assert b"stranger" not in dialer
    assert b"kept" in dialer


def test_new_addresses_are_tried_first_and_at_once() -> None:
    dialer = Dialer()
    dialer.learn(b"a", ["old"], False, 0)
    dialer.due(NOBODY, 0)
    dialer.failed(b"a", 0, 1)
    dialer.learn(b"a", ["new"], False, 0.1)
    assert dialer.due(NOBODY, 0.1) == [(b"a", ("new", "old"))]
    dialer.learn(b"a", [str(number) for number in range(100)], False, 1)
    assert len(dialer._known[b"a"].addresses) == ADDRESSES_MAX


def test_kept_peers_come_first_and_beyond_the_wanted_number() -> None:
    dialer = Dialer()
    for number in range(WANTED):
        dialer.learn(b"s%d" % number, ["x"], False, 0)
    dialer.learn(b"kept", ["x"], True, 5)
    assert dialer.due(NOBODY, 5)[0][0] == b"kept"
    dialer = Dialer()
    dialer.learn(b"stranger", ["x"], False, 0)
    dialer.learn(b"kept", ["x"], True, 0)
    many = frozenset(b"%d" % number for number in range(WANTED))
    assert dialer.due(many, 0) == [(b"kept", ("x",))]
    full = frozenset(b"%d" % number for number in range(PEERS_MAX))
    dialer.failed(b"kept", 0, 0)
    assert dialer.due(full, 100) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["learn", "keep", "due", "failed", "succeeded", "lost", "forget"]),
            st.integers(0, 2 * KNOWN_MAX),
            st.floats(0, 10),
            st.floats(0, 1),
        ),
        max_size=300,
    )
)
def test_whatever_happens_the_table_and_the_dials_stay_bounded(steps: list[tuple[str, int, float, float]]) -> None:
    dialer, now, open_dials = Dialer(), 0.0, set()
    for number in range(KNOWN_MAX):
        dialer.learn(number.to_bytes(4, "big"), ["x"], False, now)
    for action, number, passed, jitter in steps:
        key, now = number.to_bytes(4, "big"), now + passed
        match action:
            case "learn" | "keep":
                dialer.learn(key, ["y"], action == "keep", now)
            case "due":
                due = {peer for peer, _ in dialer.due(NOBODY, now)}
                assert not due & open_dials
                open_dials |= due
            case "failed" | "succeeded":
                if open_dials:
                    key = open_dials.pop()
                    dialer.failed(key, now, jitter) if action == "failed" else dialer.succeeded(key)
            case "lost":
                dialer.lost(key, now, jitter)
            case "forget":
                dialer.forget(key)
                open_dials.discard(key)
        assert len(dialer) <= KNOWN_MAX
        assert len(open_dials) <= DIALS_AT_ONCE


def test_a_peer_that_was_sent_away_is_forgotten_or_dialled_later() -> None:
    dialer = Dialer()
    dialer.learn(b"stranger", ["x"], False, 0)
    dialer.learn(b"kept", ["x"], True, 0)
    dialer.send_away(b"stranger", 60)
    dialer.send_away(b"kept", 60)
    assert b"stranger" not in dialer
    dialer.learn(b"kept", ["new"], True, 1)  # whatever happens meanwhile
    dialer.lost(b"kept", 2, 0)
    assert not dialer.due(NOBODY, 59)
    assert [key for key, _ in dialer.due(NOBODY, 60)] == [b"kept"]


async def test_whoever_was_sent_away_is_neither_dialled_nor_taken_back() -> None:
    async with open_host(bytes([1]) * 32, LOOPBACK) as one, open_host(bytes([2]) * 32, LOOPBACK) as other:
        keeper = Connections(one)
        with trio.fail_after(PATIENCE_S):
            await one.connect(other.key, other.addresses())
            await keeper.send_away(other.key)
            assert not one.connected()
            keeper.learn(other.key, other.addresses())
            assert other.key not in keeper._dialer
            await gone(other, one.key)
            with suppress(Unavailable):
                await other.connect(one.key, one.addresses())
            await gone(other, one.key)
            assert not one.connected()


async def connected(mesh: Mesh, *others: Mesh) -> None:
    with trio.fail_after(PATIENCE_S):
        while not mesh.connected() >= {other.key for other in others}:  # noqa: ASYNC110 - the library connects
            await trio.sleep(0.01)


async def gone(mesh: Mesh, key: bytes) -> None:
    with trio.fail_after(PATIENCE_S):
        while key in mesh.connected():  # noqa: ASYNC110 - the library disconnects
            await trio.sleep(0.01)


async def test_known_peers_are_connected_and_connected_again() -> None:
    async with AsyncExitStack() as stack:
        one, other, third = [await stack.enter_async_context(open_host(bytes([n]) * 32, LOOPBACK)) for n in (1, 2, 3)]
        async with trio.open_nursery() as nursery:
            keeper = Connections(one)
            await nursery.start(keeper.serve)
            keeper.learn(one.key, one.addresses())
            keeper.learn(other.key, ["/ip4/127.0.0.1/tcp/1", *other.addresses()])
            keeper.learn(third.key, third.addresses(), keep=True)
            await connected(one, other, third)
            lost_at = trio.current_time()
            await other.disconnect(one.key)
            await gone(one, other.key)
            await connected(one, other)
            assert trio.current_time() - lost_at < 5
            nursery.cancel_scope.cancel()


async def test_a_peer_that_answers_no_pings_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PING_EVERY_S", 0.1)
    async with open_host(bytes([1]) * 32, LOOPBACK) as one, open_host(bytes([2]) * 32, LOOPBACK) as other:
        with trio.fail_after(PATIENCE_S):
            await one.connect(other.key, other.addresses())
            async with trio.open_nursery() as nursery:
                keeper = Connections(one, jitter=lambda: 0.0)
                await nursery.start(keeper.serve)
                while keeper.latency_s(other.key) is None:  # noqa: ASYNC110 - the ping answers
                    await trio.sleep(0.01)

                async def silence(stream: Any) -> None:
                    raise Unavailable("this node answers no pings")

                assert other._life is not None
                other._life.host.set_stream_handler("/ipfs/ping/1.0.0", silence)
                await gone(one, other.key)
                nursery.cancel_scope.cancel()
