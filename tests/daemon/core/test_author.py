"""The pen of a feed."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.core.author import Author, in_events
from daemon.core.step import Now, Step
from ledger.replica import Replica
from nexapod.events import make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.limits import ENTRIES_MAX, EXECUTIONS_MAX, NOTE_CHARS_MAX
from nexapod.messages import (
    Commit,
    CommitEntry,
    Opening,
    Seal,
    SealEntry,
    Settle,
    Settlement,
    Verdict,
    Void,
    Voided,
)
from tests.daemon.core.simulation import NETID

HASH = b"\xff" * 32
KEY = Key.from_seed(blob_id(b"pen"))
GENESIS = make_genesis(KEY, NETID, blob_id(b"next"))


def author() -> Author:
    return Author(KEY, NETID, GENESIS.id, seq=0, head=GENESIS.id)


def test_events_follow_each_other_and_are_accepted() -> None:
    pen, step, replica = author(), Step(), Replica(NETID)
    replica.apply(replica.plan([GENESIS]))
    for number in range(3):
        pen.append(step, Commit(HASH, HASH, (CommitEntry(number, 0, HASH),)), Now(0, 5))
    plan = replica.plan(step.events)
    assert [event.seq for event in plan.stored] == [1, 2, 3]
    assert (pen.seq, pen.head) == (3, step.events[-1].id)


def test_a_nonce_is_the_same_after_a_crash_and_different_everywhere_else() -> None:
    nonces = {
        author().nonce(offer, task, round_) for offer in (HASH, KEY.public) for task in (0, 1) for round_ in (0, 1)
    }
    assert len(nonces) == 8
    assert author().nonce(HASH, 1, 2) == author().nonce(HASH, 1, 2)
    assert len(author().nonce(HASH, 1, 2)) == 16


@given(st.integers(0, 700), st.integers(1, EXECUTIONS_MAX))
def test_groups_keep_order_and_lose_nothing(count: int, commits: int) -> None:
    entries = [SealEntry(index, 0, (HASH,) * commits) for index in range(count)]
    groups = in_events(entries)
    assert [entry for group in groups for entry in group] == entries
    assert all(1 <= len(group) <= ENTRIES_MAX for group in groups)


def test_the_largest_entries_fit() -> None:
    opening = Opening(HASH, b"\xff" * 16, "c" * 64, 2**63 - 1, HASH, 2**63 - 1)
    openings = (opening,) * EXECUTIONS_MAX
    pen, step, now = author(), Step(), Now(2**62, 2**62)
    for settled in in_events([Settlement(9_999, HASH, openings)] * 20):
        pen.append(step, Settle(HASH, settled), now)
    for voided in in_events([Voided(9_999, Verdict.CANCELLED, "ü" * NOTE_CHARS_MAX, openings)] * 20):
        pen.append(step, Void(HASH, voided), now)
    for sealed in in_events([SealEntry(9_999, 15, (HASH,) * EXECUTIONS_MAX)] * 600):
        pen.append(step, Seal(HASH, sealed), now)
    for committed in in_events([CommitEntry(9_999, 15, HASH)] * 600):
        pen.append(step, Commit(HASH, HASH, committed), now)
    assert len(step.events) > 30
