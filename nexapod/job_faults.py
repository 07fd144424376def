"""What is wrong with a file a person wrote: one line per fault, all of them at once.

Knows how a fault reads and how the nearest valid word is found. Must never know what a job or a setting is.
"""

import difflib
from collections.abc import Iterable

import msgspec

from nexapod.errors import Exit, LocalError

SHOWN_VALUE_CHARS_MAX = 80  # a hostile value must not flood the terminal


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong: where (dotted path), what stood there, why it cannot stay, and what was probably meant."""

    path: str
    value: str
    reason: str
    suggestion: str = ""

    def __str__(self) -> str:
        meant = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        shown = f" = {self.value}" if self.value else ""
        return f"{self.path or '(document)'}{shown}: {self.reason}{meant}"


class DescriptorFaults(LocalError):
    """Every fault of one file, carried together so that a person mends the file once."""

    def __init__(
        self,
        faults: Iterable[Fault],
        *,
        subject: str = "job descriptor",
        result: str = "nothing was published",
        remedy: str = "mend the file and try again (every key: docs/job.schema.json)",
        exit_code: Exit = Exit.USAGE,
    ) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        super().__init__(
            f"{subject}: {count} fault{'s' if count != 1 else ''}, {result}",
            why="\n".join(str(fault) for fault in self.faults),
            next_step=remedy,
            exit_code=exit_code,
        )


def shown(value: object) -> str:
    """The value as a person can read it: bounded, on one line, without control characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists within lists
        text = f"({type(value).__name__})"
    text = "".join(char if char.isprintable() else "?" for char in text[: SHOWN_VALUE_CHARS_MAX + 1])
    return text if len(text) <= SHOWN_VALUE_CHARS_MAX else text[: SHOWN_VALUE_CHARS_MAX - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like the given one, or an empty string when none is near."""
    found = difflib.get_close_matches(word[:64].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else ""
