"""Every event in one line of words."""

import pytest

from ledger.story import describe
from nexapod.events import make_event
from nexapod.hashing import blob_id
from nexapod.messages import (
    DATA_OF_KIND,
    Ack,
    AckEntry,
    Attest,
    Burn,
    Checkpoint,
    Close,
    EventData,
    Kind,
    Lock,
    Pay,
    Release,
    Report,
    Reveal,
    Seal,
    SealEntry,
    Steward,
    Verdict,
    Void,
    Voided,
    Vouch,
)
from tests.ledger.scribe import JOB_SEED, Scribe, everything, walk

ID = blob_id(b"something")
SHORT = ID.hex()[:12]
OWNER, ANN, BOB = Scribe("owner"), Scribe("ann"), Scribe("bob")
SETTLE = walk(OWNER, (ANN, BOB), tasks=3)

CASES: list[tuple[EventData, str]] = [
    (Steward(ID), f"accepts to judge offer {SHORT}"),
    (Close(ID, JOB_SEED), f"closes offer {SHORT}"),
    (Seal(ID, tuple(SealEntry(t, 0, (ID,)) for t in (0, 1, 2))), f"seals 3 commits to tasks 0-2 of {SHORT}"),
    (Seal(ID, tuple(SealEntry(t, 0, (ID,)) for t in (0, 5))), f"seals 2 commits to 2 tasks of {SHORT}"),
    (Void(ID, (Voided(4, Verdict.UNSERVED, "", ()),)), f"ends task 4 of {SHORT} unpaid: unserved"),
    (Reveal(ID, 1, SETTLE.data.entries[0].openings[0]), f"reveals its result of task 1 of {SHORT}"),  # type: ignore[union-attr]
    (Attest(ID, 1, (ID, ID)), f"attests that 2 results of task 1 of {SHORT} are alike"),
    (Vouch(ID, "my laptop"), f"vouches for {SHORT}: my laptop"),
    (Pay(ID, ID, 1_500_000), f"pays 1.5 credits of {SHORT} to {SHORT}"),
    (Lock(ID, ID, 1), f"locks 0.000001 credits of {SHORT} for offer {SHORT}"),
    (Release(ID, None), f"takes back lock {SHORT}"),
    (Release(ID, ID), f"pays out lock {SHORT}"),
    (Burn(ID, 10**6), f"burns 1 credits of {SHORT}"),
    (Ack((AckEntry(ID, 0, ID),)), "acknowledges 1 feed"),
    (Checkpoint(ID, ID, 7), f"states root {SHORT} after 7 events"),
    (Report(ID, 2, "slow"), f"reports on {SHORT}, topic 2: slow"),
]


@pytest.mark.parametrize(("data", "words"), CASES, ids=lambda value: type(value).__name__)
def test_words(data: EventData, words: str) -> None:
    assert describe(Scribe("ann").write(data)) == words


def test_a_jobs_walk_reads_as_a_story() -> None:
    lines = [describe(event).split()[0] for event in OWNER.events]
    assert lines == ["joins", "offers", "seals", "settles", "closes"]
    assert describe(ANN.events[-1]).startswith("commits to task 0 of ")
    assert describe(SETTLE).endswith("for 2 credits")


def test_every_kind_has_its_words_in_one_line() -> None:
    rotating = Scribe("cal")
    rotating.rotate()
    told = {event.kind for event in everything(OWNER, ANN, rotating)}
    told |= {Scribe("x").write(data).kind for data, _ in CASES}
    assert told == set(DATA_OF_KIND)


def test_an_unknown_kind_is_told_as_such() -> None:
    ann = Scribe("ann")
    event = make_event(ann.key, ann.netid, feed=ann.feed, seq=1, prev=ann.feed, ts=0, data=Burn(ID, 1))
    strange = event._replace(kind=99, data=None)
    assert "kind 99" in describe(strange)
    assert Kind.BURN == 33
