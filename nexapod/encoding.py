"""Canonical encoding: one value, one string of bytes.

The only file that touches msgpack. Knows how values become bytes and back; must never know what they mean.
Canonical means: arrays, shortest unsigned integers below 2^63, byte strings, NFC text, booleans and nil; no maps,
floats, negative numbers or extensions. What is decoded is encoded again and compared, so exactly one spelling passes.
"""

import re
import unicodedata
from functools import cache
from typing import Any, TypeVar

import msgpack
import msgspec

from nexapod.errors import PeerError
from nexapod.limits import DEPTH_MAX

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Anything that travels or is signed: an array of fields in fixed order."""


class Worded(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A Wire value that holds text: all of it is checked, whether it was received or made here."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: as `check_text`.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str):
                check_text(value)


class NotCanonical(PeerError):
    """The bytes are not the canonical encoding of a value of the expected type."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not canonical: {why}", section="encoding", cost=10)


def encode(value: object) -> bytes:
    """Canonical bytes of a Wire value or of plain tuples, lists, ints, bytes, text, booleans and None."""
    return _encoder.encode(value)


def decode(raw: bytes, kind: type[T], *, size_max: int) -> T:
    """The value of type `kind` that `raw` is the one canonical encoding of.

    Raises:
        NotCanonical: too long, not msgpack, wrong schema, or another spelling of the same value.
    """
    if len(raw) > size_max:
        raise NotCanonical(f"{len(raw)} bytes, at most {size_max} allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise NotCanonical(str(error)[:200]) from None
    if _encoder.encode(value) != raw:
        raise NotCanonical("the value has a shorter spelling")
    return value


def decode_plain(raw: bytes, *, size_max: int) -> Any:
    """Nested lists of plain values, for kinds this version does not know but carries.

    Raises:
        NotCanonical: as in `decode`; also maps, floats, negatives, extensions, or nesting beyond DEPTH_MAX.
    """
    if len(raw) > size_max:
        raise NotCanonical(f"{len(raw)} bytes, at most {size_max} allowed")
    try:
        value = msgpack.unpackb(raw, raw=False, use_list=True, max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise NotCanonical(str(error)[:200] or type(error).__name__) from None
    _check_plain(value, DEPTH_MAX)
    if msgpack.packb(value, use_bin_type=True) != raw:
        raise NotCanonical("the value has a shorter spelling")
    return value


def _check_plain(value: Any, depth: int) -> None:
    match value:
        case None | bool() | bytes():
            return
        case int():
            if not 0 <= value < 2**63:
                raise NotCanonical("integer out of range")
        case str():
            try:
                check_text(value)
            except ValueError as error:
                raise NotCanonical(str(error)) from None
        case list():
            if depth == 0:
                raise NotCanonical("nested too deep")
            for item in value:
                _check_plain(item, depth - 1)
        case _:
            raise NotCanonical(f"{type(value).__name__} is not allowed")


# Every node must find the same texts valid, whichever Python it runs, so this is not the table of that Python's own
# Unicode version: a character assigned last year would split the network. Version 3.2 ships with every Python and never
# changes. It knows all living scripts of science; pictographs came later and are let through as a block.
_UNICODE = unicodedata.ucd_3_2_0
_PICTOGRAPHS = range(0x1F300, 0x1FB00)  # none composes with anything, so their normal form is themselves
_REFUSED = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})  # controls, line ends, and what is no character yet


def check_text(text: str) -> None:
    """Text must be NFC and free of control characters, so that equal looks equal and terminals stay safe.

    Raises:
        ValueError: it is not. Inside a decode this becomes NotCanonical.
    """
    if text.isascii() and text.isprintable():
        return
    if _refused_characters().search(text):
        raise ValueError("text holds control characters, or characters without a place in Unicode 3.2")
    # By its stability policy Unicode says the same of these characters in every later version, and this asks fast.
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("text is not in Unicode normal form C")


@cache
def _refused_characters() -> re.Pattern[str]:
    """Finds a character that text must not hold: a manifest has half a million, too many to look each of them up."""
    runs: list[list[int]] = []  # of the characters that may stand in text; Unicode 3.2 has none beyond plane 2
    for code in range(0x30000):
        if _UNICODE.category(chr(code)) in _REFUSED and code not in _PICTOGRAPHS:
            continue
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return re.compile("[^" + "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in runs) + "]")


def as_text(text: str, chars_max: int) -> str:
    """The nearest text that passes `check_text` on one line: for what programs and people of this machine wrote."""
    spaced = "".join(
        char if _UNICODE.category(char) not in _REFUSED or ord(char) in _PICTOGRAPHS else " " for char in text
    )
    # Composed first: any beginning of composed text is composed.
    return _UNICODE.normalize("NFC", " ".join(spaced.split()))[:chars_max]
