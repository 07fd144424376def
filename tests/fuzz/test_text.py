"""The fast check of text says what the slow one said: every character, and every pair that might become one."""

import sys
import unicodedata
from random import Random

from nexapod.encoding import check_text

UNICODE = unicodedata.ucd_3_2_0
REFUSED = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
PICTOGRAPHS = range(0x1F300, 0x1FB00)


def fast(text: str) -> bool:
    try:
        check_text(text)
    except ValueError:
        return False
    return True


def slow(text: str) -> bool:
    """By definition: one character after the other, and the normal form of Unicode 3.2."""
    known = all(UNICODE.category(char) not in REFUSED or ord(char) in PICTOGRAPHS for char in text)
    return known and UNICODE.normalize("NFC", text) == text


def test_every_character() -> None:
    assert [code for code in range(sys.maxunicode + 1) if fast(chr(code)) != slow(chr(code))] == []


def test_every_pair_that_has_a_composed_form_in_any_version() -> None:
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode + 1))
    texts = ["".join(chr(int(part, 16)) for part in pair) for pair in pairs if len(pair) == 2 and "<" not in pair[0]]
    assert len(texts) > 900
    assert [text for text in texts if fast(text) != slow(text)] == []


def test_marks_in_any_order_and_syllables_in_parts() -> None:
    chance = Random(5)
    marks = [chr(code) for code in range(0x30000) if UNICODE.combining(chr(code)) or 0x1100 <= code < 0x1200]
    letters = [*"aeqsAEΑωכकક", *(chr(code) for code in range(0xAC00, 0xAC60))]
    texts = [chance.choice(letters) + "".join(chance.choices(marks, k=chance.randrange(4))) for _ in range(60_000)]
    assert [text for text in texts if fast(text) != slow(text)] == []
    assert any(map(fast, texts[:1000]))
