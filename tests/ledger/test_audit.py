"""An audit finds whatever was done to the bytes on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import msgpack

from ledger.audit import Audit, audit
from ledger.layout import FORK, event_key, place
from ledger.replica import Fork, Replica
from ledger.store import Store
from nexapod.errors import LocalError
from nexapod.events import Event
from nexapod.hashing import blob_id
from nexapod.messages import Report
from tests.ledger.scribe import NETID, PRICE, Scribe, commit, everything, offer_of, seal, settle, settlement, walk


class Kept(NamedTuple):
    """A stored ledger and who wrote it."""

    store: Store
    owner: Scribe
    ann: Scribe
    bob: Scribe

    def put(self, feed: bytes, seq: int, raw: bytes) -> None:
        self.store._db.put(event_key(feed, seq), raw)

    def faults(self) -> tuple[str, ...]:
        found = audit(self.store, NETID)
        assert found.ok is (not found.faults)
        return found.faults


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    store = Store(tmp_path / "ledger")
    store.write(everything(owner, ann, bob), {})
    yield Kept(store, owner, ann, bob)
    store.close()


def test_a_sound_ledger_passes_with_the_roots_of_a_running_node(kept: Kept) -> None:
    replica = Replica(NETID)
    replica.apply(replica.plan(everything(kept.owner, kept.ann, kept.bob)))
    state, frontier = replica.fold.state_root(), replica.fold.frontier_root()
    assert audit(kept.store, NETID) == Audit(True, 9, 3, 1, state, frontier, True, (), ())


def test_a_closed_ledger_is_audited_by_its_path(tmp_path: Path) -> None:
    store = Store(tmp_path / "ledger")
    store.write(Scribe("ann").events, {})
    store.close()
    assert audit(tmp_path / "ledger", NETID).events == 1
    Store(tmp_path / "ledger").close()  # the audit has let go of it
    with pytest.raises(LocalError):
        audit(tmp_path / "nowhere", NETID)


def test_what_is_not_certified_counts_for_nothing(kept: Kept) -> None:
    wit = Scribe("wit")
    kept.store.write(wit.events, {})
    found = audit(kept.store, NETID, frozenset((wit.feed,)), 1)
    assert (found.ok, found.provisional, found.verdicts) == (True, False, 0)
    kept.store.write([wit.ack(*(s.events[-1] for s in (kept.owner, kept.ann, kept.bob)))], {})
    assert audit(kept.store, NETID, frozenset((wit.feed,)), 1).verdicts == 1


def test_every_flipped_byte_is_found(kept: Kept) -> None:
    event = kept.owner.events[1]
    for at in range(len(event.raw)):
        kept.put(event.feed, event.seq, event.raw[:at] + bytes((event.raw[at] ^ 1,)) + event.raw[at + 1 :])
        assert kept.faults(), f"byte {at}"
    kept.put(event.feed, event.seq, event.raw)
    assert not kept.faults()


def resigned(event: Event, signature: bytes) -> bytes:
    body, _ = msgpack.decode(event.raw)
    return msgpack.encode((body, signature))


def test_a_forged_signature_is_found(kept: Kept) -> None:
    event = kept.ann.events[-1]
    forged = Scribe("eve").key.sign(event.id)
    kept.put(event.feed, event.seq, resigned(event, forged))
    assert any("false signature" in fault for fault in kept.faults())


def test_an_event_in_the_place_of_another_is_found(kept: Kept) -> None:
    kept.put(kept.ann.feed, 1, kept.bob.events[1].raw)
    faults = kept.faults()
    assert any("wrong place" in fault for fault in faults)
    assert f"event {kept.ann.events[1].id.hex()[:12]} is missing" in faults


REMOVED: dict[str, Callable[[Kept], Event]] = {
    "the first": lambda kept: kept.owner.events[0],
    "one between": lambda kept: kept.owner.events[2],
    "the last": lambda kept: kept.owner.events[-1],
}


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_event_is_missed(kept: Kept, name: str) -> None:
    event = REMOVED[name](kept)
    kept.store._db.delete(event_key(event.feed, event.seq))
    assert f"event {event.id.hex()[:12]} is missing" in kept.faults()


def test_an_event_rewritten_by_its_own_author_is_found(kept: Kept) -> None:
    other = kept.ann.rewrite(1, Report(bytes(32), 0, "I never committed to that"))
    kept.put(kept.ann.feed, 1, other.raw)
    assert kept.faults()


def test_events_of_another_network_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "ledger")
    store.write(everything(Scribe("ann", blob_id(b"elsewhere"))), {})
    assert not audit(store, NETID).ok
    store.close()


def test_a_proof_must_prove_something(kept: Kept) -> None:
    other = kept.bob.rewrite(1, Report(bytes(32), 0, ""))
    kept.store.write((), {}, [Fork(kept.bob.feed, 1, kept.bob.events[1].id, other)])
    assert not kept.faults()
    for nothing in (kept.bob.events[1].raw, b"rubbish", kept.ann.events[1].raw):
        kept.store._db.put(FORK + kept.bob.feed, place(b"", 1) + nothing)
        assert any("proof" in fault for fault in kept.faults())


def test_a_verdict_without_effect_is_reported_and_no_fault(kept: Kept) -> None:
    offer = kept.owner.write(offer_of(job_id="second"))
    results = [commit(worker, offer, blob_id(worker.feed)) for worker in (kept.ann, kept.bob)]
    seal(kept.owner, offer, results)
    false = settle(kept.owner, offer, settlement(results, results[0].root))
    kept.store.write(everything(kept.owner, kept.ann, kept.bob), {})
    found = audit(kept.store, NETID)
    assert found.ok
    assert found.refuted == (f"{false.id.hex()[:12]}: task 0: no quorum of independent executions agrees",)
    assert found.verdicts == 1


def test_many_faults_are_counted_not_listed(kept: Kept) -> None:
    for seq in range(10, 300):
        kept.put(kept.ann.feed, seq, b"rubbish")
    faults = kept.faults()
    assert len(faults) == 101
    assert faults[-1] == "and 190 more"


def test_it_can_be_given_up(kept: Kept) -> None:
    ann = kept.ann
    while len(ann.events) < 1100:
        ann.write(Report(bytes(32), 0, ""))
    kept.store.write(ann.events, {})

    def enough() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        audit(kept.store, NETID, on_batch=enough)


def test_the_amounts_are_those_of_the_walk(kept: Kept) -> None:
    replica: Any = Replica(NETID)
    replica.restore(everything(kept.owner, kept.ann, kept.bob))
    assert replica.fold.net[kept.ann.feed, kept.owner.feed] == PRICE
