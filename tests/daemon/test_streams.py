"""Frames of the two protocols, byte by byte, and the slots of a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.streams import (
    CHUNK_BYTES,
    Answer,
    Slots,
    frame_range,
    frame_reply,
    frame_request,
    frame_size,
    parse_answer,
    parse_length,
    parse_range,
)
from nexapod.errors import PeerError
from nexapod.limits import REPLY_BYTES_MAX, REQUEST_BYTES_MAX


def test_frames_look_like_this() -> None:
    assert frame_request(b"ab") == b"\0\0\0\2ab"
    assert frame_reply(Answer.OK, b"ab") == b"\0\0\0\0\2ab"
    assert frame_reply(Answer.BUSY) == b"\1\0\0\0\0"
    assert frame_range(b"\xaa" * 32, 258) == b"\xaa" * 32 + b"\0\0\0\0\0\0\1\2"
    assert frame_size(Answer.OK, 1) == b"\0" + b"\0\0\0\0\0\0\0\1"
    assert frame_size(Answer.MISSING) == b"\2" + bytes(8)
    assert CHUNK_BYTES + 12 == 65536


@given(st.binary(max_size=300))
def test_a_request_is_read_as_it_was_framed(payload: bytes) -> None:
    frame = frame_request(payload)
    assert parse_length(frame[:4], bytes_max=300) == len(payload)
    assert frame[4:] == payload


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1))
def test_a_range_is_read_as_it_was_framed(sha256: bytes, offset: int) -> None:
    assert parse_range(frame_range(sha256, offset)) == (sha256, offset)


@given(st.integers(0, 255))
def test_only_known_answers_pass(byte: int) -> None:
    if byte in list(Answer):
        assert parse_answer(byte) == byte
    else:
        with pytest.raises(PeerError):
            parse_answer(byte)


def test_lengths_beyond_the_bound_are_the_peers_fault_and_own_ones_a_mistake() -> None:
    with pytest.raises(PeerError, match="at most 10"):
        parse_length(b"\xff\xff\xff\xff", bytes_max=10)
    with pytest.raises(AssertionError):
        frame_request(bytes(REQUEST_BYTES_MAX + 1))
    with pytest.raises(AssertionError):
        frame_reply(Answer.OK, bytes(REPLY_BYTES_MAX + 1))


def test_slots_are_counted_per_peer_and_for_all_and_given_back() -> None:
    slots = Slots(per_peer=2, overall=3)
    with slots.slot(b"a") as first, slots.slot(b"a") as second, slots.slot(b"a") as third, slots.slot(b"b") as other:
        assert (first, second, third, other) == (True, True, False, True)
        with slots.slot(b"c") as beyond:
            assert not beyond
    with slots.slot(b"a") as again:
        assert again
