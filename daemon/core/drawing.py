"""Who gets a task: a weighted draw nobody but the owner can foresee and everybody can repeat once the seed is revealed.

Knows the draw; must never know why candidates are candidates. Self-selected executors make redundancy worthless, since
colluders would take both slots of a task. What an offer shows of the seed beforehand is a rule of ledger/verdict.py.
"""

import math
from collections.abc import Mapping

from nexapod.hashing import Tag, tagged


def draw(seed: bytes, task: int, weights: Mapping[bytes, int]) -> list[bytes]:
    """Candidates in the order they would be given `task`, by weighted rendezvous hashing.

    `weights` maps feeds to positive weights. A candidate that leaves does not change the order of the others.
    Source: Wang and Ravishankar, A Name-Based Mapping Scheme for Rendezvous (1998); weighted form by the logarithm.
    """
    return sorted(weights, key=lambda feed: _score(seed, task, feed, weights[feed]))


def _score(seed: bytes, task: int, feed: bytes, weight: int) -> float:
    digest = tagged(Tag.DRAW, seed, task.to_bytes(4, "big"), feed)
    uniform = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
    return -math.log(uniform) / weight
