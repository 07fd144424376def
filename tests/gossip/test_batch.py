"""Batches: when they go out, and that only canonical ones come in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.batch import GATHER_S, MESSAGE_BYTES_MAX, MESSAGES_MAX, Coalescer, decode_batch, encode_batch
from nexapod.encoding import NotCanonical, encode
from nexapod.limits import GOSSIP_BYTES_MAX


def test_the_first_message_goes_at_once_and_the_next_gather() -> None:
    coalescer = Coalescer()
    assert [decode_batch(raw) for raw in coalescer.add(b"one", 10.0)] == [[b"one"]]
    assert coalescer.add(b"two", 10.01) == []
    assert coalescer.add(b"three", 10.02) == []
    assert coalescer.due == 10.0 + GATHER_S
    assert coalescer.flush(10.1) == []
    assert [decode_batch(raw) for raw in coalescer.flush(10.0 + GATHER_S)] == [[b"two", b"three"]]
    assert coalescer.due is None
    assert [decode_batch(raw) for raw in coalescer.add(b"later", 11.0)] == [[b"later"]]


def test_a_full_batch_does_not_wait() -> None:
    coalescer = Coalescer()
    coalescer.add(b"first", 0)
    batches = [raw for _ in range(10) for raw in coalescer.add(b"x" * MESSAGE_BYTES_MAX, 0.01)]
    assert [len(decode_batch(raw)) for raw in batches] == [3, 3, 3]
    assert all(len(raw) <= GOSSIP_BYTES_MAX for raw in batches)


@settings(derandomize=True)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=400), st.floats(0, 0.5)), max_size=300))
def test_everything_comes_out_once_and_in_order(steps: list[tuple[bytes, float]]) -> None:
    coalescer, now, out = Coalescer(), 0.0, []
    for message, passed in steps:
        now += passed
        out += coalescer.flush(now)
        out += coalescer.add(message, now)
    out += coalescer.flush(now + GATHER_S)
    assert all(len(raw) <= GOSSIP_BYTES_MAX for raw in out)
    assert [message for raw in out for message in decode_batch(raw)] == [message for message, _ in steps]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        encode([]),
        encode([b""]),
        encode([1]),
        encode(["text"]),
        encode([b"x" * (MESSAGE_BYTES_MAX + 1)]),
        encode([b"x"] * (MESSAGES_MAX + 1)),
        encode_batch([b"x"]) + b"\0",
        b"\xdc\x00\x01\xc4\x01x",  # a longer spelling of [b"x"]
        b"\xdd\xff\xff\xff\xff",  # four billion elements to come
        encode([b"x" * MESSAGE_BYTES_MAX] * 5),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(NotCanonical):
        decode_batch(raw)
