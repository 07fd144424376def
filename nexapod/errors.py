"""Whose fault it is: ours or the operator's, a peer's, or nobody's.

Knows the three families every room raises and the exit codes a person sees. Must never know how an error is shown.
A job that fails is not an error but data; a broken invariant is an assertion.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; other programs depend on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_FOUND = 4
    JOB_FAILED = 5
    DISPUTED = 6
    REFUSED = 7
    TIMED_OUT = 124
    INTERRUPTED = 130


class LocalError(Exception):
    """Ours or the operator's: what happened, why, and what to do next, each one short sentence."""

    def __init__(self, what: str, why: str = "", next_step: str = "", exit_code: Exit = Exit.FAILURE) -> None:
        super().__init__(what)
        self.what, self.why, self.next_step, self.exit_code = what, why, next_step, exit_code

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.why) if part)


class PeerError(Exception):
    """A peer broke the protocol. Never stops us.

    `section` names the rule of docs/protocol it broke; `cost` is what the breach costs it in peer scoring
    (1 = sloppy, 10 = cannot happen by accident, 100 = leave at once).
    """

    def __init__(self, what: str, *, section: str = "", cost: int = 10, peer: bytes = b"") -> None:
        super().__init__(what)
        self.what, self.section, self.cost, self.peer = what, section, cost, peer


class Unavailable(Exception):
    """Nobody's fault: a peer is gone, an engine restarts, a deadline passed. Try again later."""
