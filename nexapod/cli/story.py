"""A job's story as lines for people: steps of one kind by one node that arrive together become one line.

Knows the events of the local API. Must never ask for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from nexapod.cli.render import clipped, plain, short


class Told(NamedTuple):
    """One line: which step, which tasks (none: the whole job), who, in words, and when (milliseconds since 1970)."""

    step: str
    tasks: tuple[int, ...]
    who: str
    text: str
    ms: int

    def __str__(self) -> str:
        step, who, text = (clipped(plain(part)) for part in (self.step, self.who, self.text))
        return f"{step:<8} {tasks_text(self.tasks):<12} {who:<12} {text}".rstrip()  # one line, whatever was sent


def told(events: Iterable[Mapping[str, Any]]) -> list[Told]:
    """The lines of events that arrived together, each kind of step of each node once, in the order of their first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in events:
        who = str(event.get("name") or short(event.get("node")))
        groups.setdefault((str(event.get("step", "")), who), []).append(event)
    return [_line(step, who, group) for (step, who), group in groups.items()]


def tasks_text(tasks: Sequence[int]) -> str:
    """Numbers of tasks, neighbours joined: tasks 0-3,7."""
    if not tasks:
        return ""
    spans: list[list[int]] = []
    for task in sorted(set(tasks)):
        if spans and spans[-1][1] + 1 == task:
            spans[-1][1] = task
        else:
            spans.append([task, task])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in spans]
    return f"task{'s' if len(set(tasks)) > 1 else ''} {','.join(texts)}"


def clock(ms: object) -> str:
    """Milliseconds since 1970 as the time of day here."""
    return datetime.fromtimestamp(ms / 1000).strftime("%H:%M:%S") if isinstance(ms, int) and 0 < ms < 2**42 else ""


def day(ms: object) -> str:
    """Milliseconds since 1970 as date and time here."""
    if not isinstance(ms, int) or not 0 < ms < 2**42:
        return ""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def _line(step: str, who: str, group: list[Mapping[str, Any]]) -> Told:
    texts = {str(event.get("text", "")) for event in group}
    tasks = tuple(sorted({event["task"] for event in group if isinstance(event.get("task"), int)}))
    ms = group[0].get("ms")
    # What differs between tasks (a hash each) says nothing about all of them.
    return Told(step, tasks, who, texts.pop() if len(texts) == 1 else "", ms if isinstance(ms, int) else 0)
