"""TOML as tomllib reads it, and keys that end."""

import pytest

from nexapod.toml import KEY_WORDS_MAX, load_toml


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
