"""One line of words for every event, for people who read a ledger.

Knows how to say what an author signed. Must never judge whether it is valid.
"""

from collections.abc import Iterable

from nexapod.events import Event
from nexapod.messages import (
    Ack,
    Attest,
    Burn,
    Checkpoint,
    Close,
    Commit,
    Genesis,
    Lock,
    Offer,
    Pay,
    Release,
    Report,
    Reveal,
    Rotate,
    Seal,
    Settle,
    Steward,
    Void,
    Vouch,
)
from nexapod.units import credits_of

_SHORT = 12  # hexadecimal digits of an id that people compare by eye


def describe(event: Event) -> str:
    """What the event's author says, in one line without the author."""
    return _job(event) or _other(event)


def _job(event: Event) -> str:
    match event.data:
        case Offer() as offer:
            price = credits_of(offer.price)
            return f"offers {offer.job_id}: {_count(offer.tasks, 'task')} at {price} credits, quorum {offer.quorum}"
        case Steward(offer_id):
            return f"accepts to judge offer {_short(offer_id)}"
        case Commit(offer_id, _, entries):
            return f"commits to {_tasks(entry.task for entry in entries)} of {_short(offer_id)}"
        case Seal(offer_id, entries):
            commits = sum(len(entry.commits) for entry in entries)
            tasks = _tasks(entry.task for entry in entries)
            return f"seals {_count(commits, 'commit')} to {tasks} of {_short(offer_id)}"
        case Settle(offer_id, entries):
            paid = credits_of(sum(opening.amount for entry in entries for opening in entry.openings))
            return f"settles {_tasks(entry.task for entry in entries)} of {_short(offer_id)} for {paid} credits"
        case Void(offer_id, entries):
            why = ", ".join(sorted({entry.verdict.name.lower() for entry in entries}))
            return f"ends {_tasks(entry.task for entry in entries)} of {_short(offer_id)} unpaid: {why}"
        case Close(offer_id):
            return f"closes offer {_short(offer_id)}"
        case Reveal(offer_id, task):
            return f"reveals its result of task {task} of {_short(offer_id)}"
        case Attest(offer_id, task, roots):
            return f"attests that {_count(len(roots), 'result')} of task {task} of {_short(offer_id)} are alike"
        case _:
            return ""


def _other(event: Event) -> str:
    match event.data:
        case Genesis(key):
            return f"joins with key {_short(key)}"
        case Rotate(key):
            return f"changes to key {_short(key)}"
        case Vouch(ward, note):
            return f"vouches for {_short(ward)}" + (f": {note}" if note else "")
        case Pay(to, colour, amount):
            return f"pays {credits_of(amount)} credits of {_short(colour)} to {_short(to)}"
        case Lock(offer_id, colour, amount):
            return f"locks {credits_of(amount)} credits of {_short(colour)} for offer {_short(offer_id)}"
        case Release(lock, settle):
            return f"takes back lock {_short(lock)}" if settle is None else f"pays out lock {_short(lock)}"
        case Burn(colour, amount):
            return f"burns {credits_of(amount)} credits of {_short(colour)}"
        case Ack(entries):
            return f"acknowledges {_count(len(entries), 'feed')}"
        case Checkpoint(_, state_root, events):
            return f"states root {_short(state_root)} after {_count(events, 'event')}"
        case Report(feed, topic, note):
            return f"reports on {_short(feed)}, topic {topic}: {note}"
        case _:
            return f"says something of kind {event.kind}, which this version does not know"


def _tasks(tasks: Iterable[int]) -> str:
    numbers = sorted(set(tasks))
    if len(numbers) == 1:
        return f"task {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"tasks {numbers[0]}-{numbers[-1]}"
    return _count(len(numbers), "task")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(raw: bytes) -> str:
    return raw.hex()[:_SHORT]
