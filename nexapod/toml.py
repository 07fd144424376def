"""TOML the way settings and job files need it: no keys without end.

Knows tomllib. Must never know what the keys mean.
"""

import re
import tomllib
from typing import Any

KEY_WORDS_MAX = 32  # tomllib remembers every beginning of a dotted key: a long one fills memory with its square
_WORD = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_.-])(?:{_WORD}[ \t]*+\.[ \t]*+){{{KEY_WORDS_MAX}}}")


def load_toml(text: str) -> dict[str, Any]:
    """The document in `text`.

    Raises:
        ValueError: not TOML, or more than KEY_WORDS_MAX words joined by dots.
        RecursionError: nested too deep.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"more than {KEY_WORDS_MAX} words are joined by dots")
    return tomllib.loads(text)
