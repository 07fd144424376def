"""TOML as tomllib reads it, and keys that end."""

import pytest

from nexapod.toml import DIGITS_MAX, KEY_WORDS_MAX, load_toml


def test_an_ordinary_document() -> None:
    text = '# a\na.b."c.d" = 1\n[x.y]\nwords = ["1.2.3", "..."]\n'
    assert load_toml(text) == {"a": {"b": {"c.d": 1}}, "x": {"y": {"words": ["1.2.3", "..."]}}}


@pytest.mark.parametrize("word", ["a", '"a"', "'a'", '"\\""', "a-_1", '""'])
@pytest.mark.parametrize("dot", [".", " . ", "\t."])
def test_a_key_has_an_end(word: str, dot: str) -> None:
    assert load_toml(dot.join([word] * KEY_WORDS_MAX) + " = 1")
    for long in (dot.join([word] * 40_000) + " = 1", f"[{dot.join([word] * 40_000)}]"):
        with pytest.raises(ValueError, match="joined by dots"):
            load_toml(long)


@pytest.mark.parametrize(
    "start", ["a = ", "a=", "a = [1, ", "a = [1,", "a = [\n# why\n", "a = -", "a = 0x", "a = 1.", "a = 1e+"]
)
def test_a_number_has_an_end(start: str) -> None:
    with pytest.raises(ValueError, match="more than 256 digits"):
        load_toml(start + "1" * (DIGITS_MAX + 1))


def test_long_words_are_no_numbers() -> None:
    words = {"a": "0" * 1000, "b": "abc" * 200, "c": "1x" * 500}
    assert load_toml("".join(f'{key} = "{word}"\n' for key, word in words.items())) == words
