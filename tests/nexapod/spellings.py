"""Other ways to write the same msgpack value: every one of them must be refused."""

from collections.abc import Iterator

# First byte of a form, then the forms that could hold the same: (first byte, bytes of the number or length).
_UINTS = ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))
_BINS = ((0xC4, 1), (0xC5, 2), (0xC6, 4))
_STRS = ((0xD9, 1), (0xDA, 2), (0xDB, 4))
_ARRAYS = ((0xDC, 2), (0xDD, 4))


def spellings(raw: bytes, most: int = 60) -> Iterator[bytes]:
    """Longer forms of the same value, and the same bytes with something before, after or missing."""
    yield from (raw + b"\0", raw[:-1], b"\x91" + raw, b"\0" + raw, b"")
    at = 0
    while at < len(raw) and most > 0:
        end, number, forms, body = _token(raw, at)
        for first, width in forms:
            if raw[at] < 0xC0 or first > raw[at]:  # longer than the form that is there
                yield raw[:at] + bytes([first]) + number.to_bytes(width, "big") + raw[end:]
        if forms is _BINS:  # the same bytes as text
            yield raw[:at] + bytes([_STRS[0][0] if number < 256 else _STRS[1][0]]) + raw[at + 1 :]
        at = end + body
        most -= 1


def _token(raw: bytes, at: int) -> tuple[int, int, tuple[tuple[int, int], ...], int]:
    """End of the head at `at`, its number or length, forms that could hold it, and how many bytes follow the head."""
    first = raw[at]
    if first < 0x80:
        return at + 1, first, _UINTS, 0
    if 0x90 <= first < 0xA0:
        return at + 1, first & 0x0F, _ARRAYS, 0
    if 0xA0 <= first < 0xC0:
        return at + 1, first & 0x1F, _STRS, first & 0x1F
    for forms in (_UINTS, _BINS, _STRS, _ARRAYS):
        for head, width in forms:
            if first == head:
                end = at + 1 + width
                number = int.from_bytes(raw[at + 1 : end], "big")
                return end, number, forms, number if forms in (_BINS, _STRS) else 0
    assert first in (0xC0, 0xC2, 0xC3), f"not canonical: {first:#x}"
    return at + 1, 0, (), 0
