"""Appends to a stored feed as fast as it can and says what is on disk, until it is killed; run by test_store.py."""

import sys
from pathlib import Path

from ledger.store import Store
from nexapod.messages import Report
from tests.ledger.scribe import Scribe

COUNT_FACT = b"events"


def main(path: Path) -> None:
    store = Store(path)
    ann = resumed(store)
    print(len(ann.events), flush=True)
    while True:
        size = 1 + len(ann.events) % 40  # small and large batches
        batch = [ann.write(Report(ann.feed, 0, "x" * 200)) for _ in range(size)]
        store.write(batch, {COUNT_FACT: str(len(ann.events)).encode()})
        print(len(ann.events), flush=True)


def resumed(store: Store) -> Scribe:
    """The scribe as its stored feed left it."""
    ann = Scribe("ann")
    stored = len(store.events_of(ann.feed, 0, 2**40, 2**40))
    if stored == 0:
        store.write(ann.events, {COUNT_FACT: b"1"})
    while len(ann.events) < stored:
        ann.write(Report(ann.feed, 0, "x" * 200))
    return ann


if __name__ == "__main__":
    main(Path(sys.argv[1]))
