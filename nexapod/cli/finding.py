"""What a check of the doctor says, and how several become one.

Knows the three results. Must never know what is checked.
"""

from collections.abc import Iterable
from typing import NamedTuple

GRAVITY = ("ok", "warn", "fail")


class Finding(NamedTuple):
    """What a check found: ok, warn or fail; in words; and what to do about it, as a command where there is one."""

    result: str
    detail: str
    fix: str = ""


def ok(detail: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", detail)


def warn(detail: str, fix: str = "") -> Finding:
    """The node works, and less well than it could."""
    return Finding("warn", detail, fix)


def fail(detail: str, fix: str = "") -> Finding:
    """The node cannot work like this, or a job could harm its host."""
    return Finding("fail", detail, fix)


def together(found: Iterable[Finding], well: str = "") -> Finding:
    """The gravest result, and all that is wrong, gravest first; `well`: what to say when nothing is."""
    wrong = sorted(
        (one for one in found if one.result != "ok"), key=lambda one: GRAVITY.index(one.result), reverse=True
    )
    if not wrong:
        return ok(well)
    details, fixes = (dict.fromkeys(one[index] for one in wrong if one[index]) for index in (1, 2))
    return Finding(wrong[0].result, "; ".join(details), "; then ".join(fixes))
