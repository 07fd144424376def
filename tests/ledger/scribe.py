"""Writes feeds for tests: real keys, real signatures, short calls."""

from collections.abc import Iterable
from typing import NamedTuple

from ledger.verdict import commit_digest, seed_commitment
from nexapod.events import Event, make_event, make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.messages import (
    Ack,
    AckEntry,
    Close,
    Commit,
    CommitEntry,
    EventData,
    Hidden,
    Independence,
    Mode,
    Offer,
    Opening,
    OpeningNote,
    Policy,
    Rotate,
    Seal,
    SealEntry,
    Settle,
    Settlement,
)

NETID = blob_id(b"a network for tests")
PRICE = 1_000_000
CLASS = "x86-64-v3"
JOB_SEED = blob_id(b"the seed that draws executors")


class Scribe:
    """One feed and its pen. `name` makes the keys, so the same name always writes the same feed."""

    def __init__(self, name: str, netid: bytes = NETID) -> None:
        self.name, self.netid = name, netid
        self.key, self._generation = _key(name, 0), 0
        genesis = make_genesis(self.key, netid, next_key_digest(_key(name, 1).public))
        self.feed = genesis.id
        self.events = [genesis]

    def write(self, data: EventData, *, ts: int = 0) -> Event:
        """Append one event."""
        last = self.events[-1]
        event = make_event(self.key, self.netid, feed=self.feed, seq=last.seq + 1, prev=last.id, ts=ts, data=data)
        self.events.append(event)
        return event

    def rotate(self) -> Event:
        """Append a rotation to the next key."""
        self._generation += 1
        self.key = _key(self.name, self._generation)
        return self.write(Rotate(self.key.public, next_key_digest(_key(self.name, self._generation + 1).public)))

    def rewrite(self, seq: int, data: EventData) -> Event:
        """Another event for a seq already written: the author's own contradiction. The chain stays as it is."""
        before = self.events[seq - 1]
        return make_event(self.key, self.netid, feed=self.feed, seq=seq, prev=before.id, ts=0, data=data)

    def ack(self, *heads: Event) -> Event:
        """Append an ack of these heads."""
        entries = sorted((AckEntry(event.feed, event.seq, event.id) for event in heads), key=lambda entry: entry.feed)
        return self.write(Ack(tuple(entries)))


def _key(name: str, generation: int) -> Key:
    return Key.from_seed(blob_id(f"{name}/{generation}".encode()))


class Result(NamedTuple):
    """What a worker found, and the commit that binds it."""

    worker: Scribe
    commit: Event
    task: int
    round: int
    root: bytes
    numeric_class: str
    work: int
    nonce: bytes

    def opening(self, amount: int, agreed: bytes) -> Opening:
        root = None if self.root == agreed else self.root
        return Opening(self.commit.id, self.nonce, self.numeric_class, self.work, root, amount)

    def note(self) -> OpeningNote:
        return OpeningNote(self.task, self.round, self.commit.id, self.nonce, self.numeric_class, self.work, self.root)


def offer_of(**changes: object) -> Offer:
    """An ordinary offer: two replicas, quorum two, at most four executions."""
    fields: dict[str, object] = {
        "job_id": "fold-1",
        "descriptor": blob_id(b"descriptor"),
        "tasks": 1,
        "price": PRICE,
        "replicas": 2,
        "quorum": 2,
        "executions_max": 4,
        "mode": Mode.EXACT,
        "independence": Independence.NODE,
        "policy": Policy.STRICT,
        "colour": None,
        "seed_commitment": seed_commitment(JOB_SEED),
        "steward": None,
    }
    fields |= changes
    tasks, price, executions = fields["tasks"], fields["price"], fields["executions_max"]
    assert isinstance(tasks, int)
    assert isinstance(price, int)
    assert isinstance(executions, int)
    fields.setdefault("lock", tasks * price * executions)
    return Offer(**fields)  # type: ignore[arg-type]


def commit(worker: Scribe, offer: Event, root: bytes, *, task: int = 0, round_: int = 0, cls: str = CLASS) -> Result:
    """The worker runs a task, finds `root` and commits to it."""
    nonce = blob_id(worker.feed + bytes((task, round_)))[:16]
    work = 10**12
    hidden = Hidden(offer.id, task, round_, worker.feed, cls, work, root, nonce)
    entry = CommitEntry(task, round_, commit_digest(worker.netid, hidden))
    event = worker.write(Commit(offer.id, blob_id(b"assignment"), (entry,)))
    return Result(worker, event, task, round_, root, cls, work, nonce)


def seal(judge: Scribe, offer: Event, results: Iterable[Result]) -> Event:
    """The judge seals commits, by task and round."""
    sets: dict[tuple[int, int], list[bytes]] = {}
    for result in results:
        sets.setdefault((result.task, result.round), []).append(result.commit.id)
    entries = (SealEntry(task, round_, tuple(sorted(ids))) for (task, round_), ids in sorted(sets.items()))
    return judge.write(Seal(offer.id, tuple(entries)))


def settlement(results: Iterable[Result], root: bytes, amount: int = PRICE) -> Settlement:
    """The verdict on one task: `amount` to each who found `root`."""
    found = sorted(results, key=lambda result: result.commit.id)
    openings = (result.opening(amount if result.root == root else 0, root) for result in found)
    return Settlement(found[0].task, root, tuple(openings))


def settle(judge: Scribe, offer: Event, *settlements: Settlement) -> Event:
    """The judge settles tasks."""
    return judge.write(Settle(offer.id, settlements))


def walk(owner: Scribe, workers: Iterable[Scribe], root: bytes = blob_id(b"result"), **changes: object) -> Event:
    """One whole job of one task in which all workers agree; returns the settle."""
    offer = owner.write(offer_of(**changes))
    results = [commit(worker, offer, root) for worker in workers]
    seal(owner, offer, results)
    event = settle(owner, offer, settlement(results, root))
    owner.write(Close(offer.id, JOB_SEED))
    return event


def everything(*scribes: Scribe) -> list[Event]:
    """All events of these feeds, feed by feed."""
    return [event for scribe in scribes for event in scribe.events]
