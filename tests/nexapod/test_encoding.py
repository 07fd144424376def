"""Canonical encoding of plain values, and which text is one."""

import unicodedata
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexapod.encoding import NotCanonical, Wire, Worded, as_text, check_text, decode, decode_plain, encode
from nexapod.limits import DEPTH_MAX
from tests.nexapod.spellings import spellings

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 2**63 - 1)
    | st.binary(max_size=300)
    | TEXTS.map(lambda text: as_text(text, 20)),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=20,
)


class Pair(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: int
    text: str = ""


class Note(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: int
    text: str


def depth(value: Any) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@settings(derandomize=True)
@given(PLAIN)
def test_plain_values_come_back_equal_and_have_one_spelling(value: Any) -> None:
    raw = encode(value)
    assert msgpack.packb(value, use_bin_type=True) == raw, "two libraries write the same bytes"
    if depth(value) > DEPTH_MAX:
        with pytest.raises(NotCanonical, match="too deep"):
            decode_plain(raw, size_max=len(raw))
        return
    assert decode_plain(raw, size_max=len(raw)) == value
    for other in spellings(raw):
        with suppress(NotCanonical):  # or it is another value, such as text in place of bytes
            assert decode_plain(other, size_max=2**20) != value


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80",  # a map
        b"\x81\x01\x01",
        b"\xca\x00\x00\x00\x00",  # a float
        b"\xcb" + bytes(8),
        b"\xff",  # -1
        b"\xd0\x80",
        b"\xcf" + b"\xff" * 8,  # beyond 2^63
        b"\xd4\x01\x00",  # an extension
        b"\xc7\x00\x01",
        b"\xd6\xff" + bytes(4),  # a timestamp
        b"\xc1",
        b"\xa1\xff",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # half of a pair
        b"\xdd\xff\xff\xff\xff",  # four billion elements to come
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\x00",
        b"\x91" * (DEPTH_MAX + 1) + b"\x00",
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_plain_value_is_refused(raw: bytes) -> None:
    with pytest.raises(NotCanonical):
        decode_plain(raw, size_max=2**20)
    with pytest.raises(NotCanonical):
        decode(raw, Pair, size_max=2**20)


def test_nesting_is_allowed_up_to_the_bound() -> None:
    assert depth(decode_plain(b"\x91" * DEPTH_MAX + b"\x00", size_max=100)) == DEPTH_MAX


@settings(derandomize=True, max_examples=500)
@given(st.binary(max_size=60))
def test_rubbish_is_refused_or_is_its_own_one_spelling(raw: bytes) -> None:
    try:
        value = decode_plain(raw, size_max=100)
    except NotCanonical:
        return
    assert encode(value) == raw


def test_size_is_looked_at_first() -> None:
    with pytest.raises(NotCanonical, match="at most 3"):
        decode(bytes(4), Pair, size_max=3)
    with pytest.raises(NotCanonical, match="at most 3"):
        decode_plain(bytes(4), size_max=3)


@pytest.mark.parametrize("value", [[1], [1, "", 0], [], ["1", ""], [1.0, ""], [True, ""], [1, b""], [1, None], {}])
def test_a_default_left_out_is_another_spelling_and_a_field_too_many_none_at_all(value: Any) -> None:
    with pytest.raises(NotCanonical):
        decode(encode(value), Pair, size_max=100)
    assert decode(encode([1, ""]), Pair, size_max=100) == Pair(1)


# --- text ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "plain", "Zürich", "東京", "Ωμέγα", "a b", "naïve ½ €", "🚀 go", "हिन्दी", "~"])
def test_text_people_write_passes(text: str) -> None:
    check_text(text)
    assert Note(1, text).text == text


BAD_TEXTS = {
    "bell": "\a",
    "new line": "a\nb",
    "escape sequence": "\x1b[2J",
    "delete": "\x7f",
    "C1 control": "\x9b31m",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right to left override": "\u202e",
    "zero width joiner": "a\u200db",
    "byte order mark": "\ufeff",
    "private use": "\ue000",
    "surrogate": "\ud800",
    "decomposed": "e\u0301",
    "compatibility ideograph": "\uf900",
    "noncharacter": "\uffff",
    "format control of Unicode 15, unassigned in 14": "\U0001343a",
    "accent of Unicode 15, unassigned in 14": "\U0001e08f",
    "tag character": "\U000e0041",
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_text_that_could_lie_or_divide_the_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="text"):
        check_text(text)
    with pytest.raises(ValueError, match="text"):
        Note(1, text)
    if not any("\ud800" <= char <= "\udfff" for char in text):
        with pytest.raises(NotCanonical, match="text"):
            decode(encode([1, text]), Note, size_max=100)
        with pytest.raises(NotCanonical, match="text"):
            decode_plain(encode(text), size_max=100)


@settings(derandomize=True, max_examples=500)
@given(TEXTS)
def test_text_that_passes_looks_like_itself_to_every_python(text: str) -> None:
    """The table is frozen; what it lets through must be composed and printable by this Python's own table too."""
    try:
        check_text(text)
    except ValueError:
        return
    assert unicodedata.is_normalized("NFC", text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for char in text)


@settings(derandomize=True, max_examples=500)
@given(st.text(max_size=60), st.integers(0, 40))
@example("e\u0301" * 10, 5)
@example("\u0958" * 30, 20)  # composed, it is longer
@example("a\ud800\n\x1b[31mb", 40)
def test_any_words_can_be_made_text(text: str, most: int) -> None:
    made = as_text(text, most)
    check_text(made)
    assert len(made) <= most
    assert as_text(made, most) == made.strip() or len(made) == most


def test_text_that_is_sound_is_left_alone() -> None:
    assert as_text("  no room\n\tleft: Zürich 🚀 ", 200) == "no room left: Zürich 🚀"
    assert as_text("e\u0301", 200) == "é"
