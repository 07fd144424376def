"""TOML the way settings and job files need it: no keys and numbers without end.

Knows tomllib. Must never know what the keys mean.
"""

import re
import tomllib
from typing import Any

KEY_WORDS_MAX = 32  # tomllib remembers every beginning of a dotted key: a long one fills memory with its square
_WORD = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_.-])(?:{_WORD}[ \t]*+\.[ \t]*+){{{KEY_WORDS_MAX}}}")

DIGITS_MAX = 256  # tomllib needs 146 bytes for each digit before it refuses a number
_LONG_NUMBER = re.compile(rf"(?<![^\s=\[,])[+-]?[0-9][xob]?[0-9A-Fa-f_.+-]{{{DIGITS_MAX}}}")


def load_toml(text: str) -> dict[str, Any]:
    """The document in `text`.

    Raises:
        ValueError: not TOML, more than KEY_WORDS_MAX words joined by dots, or a number of more than DIGITS_MAX digits.
        RecursionError: nested too deep.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"more than {KEY_WORDS_MAX} words are joined by dots")
    if _LONG_NUMBER.search(text):
        raise ValueError(f"a number has more than {DIGITS_MAX} digits")
    return tomllib.loads(text)
