"""Everything one node holds of the ledger in memory, and how new events change it.

Knows heads, orphans, forks, certificates and the fold, and keeps them in step. Must never know storage, peers or
time: `plan` says what should be written, the caller writes it, `apply` takes it in. So disk is never behind memory.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ledger.certificate import Certificate
from ledger.chain import Head, contradicts, extend, link
from ledger.fold import Fold
from ledger.sync import frontier_root
from ledger.verdict import SealedCommit
from nexapod.errors import PeerError
from nexapod.events import Event
from nexapod.limits import FEEDS_MAX, ORPHANS_MAX
from nexapod.messages import Ack, Commit, Genesis, Offer, Settle, Vouch

_ID_BYTES = 32


class Fork(NamedTuple):
    """Two valid events of one feed at one seq: `kept` is the id of the one in this node's chain, `other` the other."""

    feed: bytes
    seq: int
    kept: bytes
    other: Event


class Plan(NamedTuple):
    """What a batch of events amounts to. `stored`: to be written, each feed in order; `refusals`: whose fault it was.

    `waiting` cannot be judged before its predecessors come; `judged` are ids that wait no longer.
    """

    stored: tuple[Event, ...]
    forks: tuple[Fork, ...]
    refusals: tuple[PeerError, ...]
    waiting: tuple[Event, ...]
    judged: tuple[bytes, ...]
    heads: dict[bytes, Head]


class Applied(NamedTuple):
    """What changed: events now in this node's chains, events certified now, events that took effect, new forks.

    `certified` keeps each feed's order; `folded` is in causal order and may hold events certified long before, which
    waited for what they name.
    """

    stored: tuple[Event, ...]
    certified: tuple[Event, ...]
    folded: tuple[Event, ...]
    forks: tuple[Fork, ...]


class Replica:
    """One node's copy of the ledger. `witness_keys` and `threshold` come from the network's manifest."""

    def __init__(self, netid: bytes, witness_keys: frozenset[bytes] = frozenset(), threshold: int = 0) -> None:
        self.netid = netid
        self.heads: dict[bytes, Head] = {}
        self.forks: dict[bytes, Fork] = {}
        self.certificate = Certificate(witness_keys, threshold)
        self.fold = Fold(netid)
        self.where: dict[bytes, tuple[bytes, int]] = {}  # offers, commits and settles: id -> feed, seq
        self.tails: dict[bytes, list[Event]] = {}  # events beyond the certified seq
        self._ids: dict[bytes, bytearray] = {}  # all ids of a feed, one after the other
        self._witness: dict[bytes, bytes] = {}  # feed -> witness key
        self._orphans: dict[bytes, Event] = {}  # oldest first
        self._next: dict[tuple[bytes, int], list[bytes]] = {}  # (feed, seq) -> orphan ids
        self._frontier_root: bytes | None = None

    @property
    def provisional(self) -> bool:
        """Whether balances are only this node's view, because the network has no witnesses."""
        return self.certificate.provisional

    @property
    def events(self) -> int:
        """Events in all chains."""
        return sum(head.seq + 1 for head in self.heads.values())

    @property
    def orphans(self) -> int:
        """Events that wait for a predecessor."""
        return len(self._orphans)

    def id_at(self, feed: bytes, seq: int) -> bytes | None:
        """The id of the event at `seq` in this node's chain of `feed`."""
        ids = self._ids.get(feed, b"")[seq * _ID_BYTES : (seq + 1) * _ID_BYTES]
        return bytes(ids) if ids else None

    def frontier_root(self) -> bytes:
        """One hash of all heads known here, certified or not: equal roots have nothing to tell each other."""
        if self._frontier_root is None:
            self._frontier_root = frontier_root(self.heads)
        return self._frontier_root

    def witness_feeds(self) -> dict[bytes, bytes]:
        """Feeds known here that speak for a witness, with its key."""
        return dict(self._witness)

    def operators(self, commit: SealedCommit) -> frozenset[bytes]:
        """The feeds that a worker answers for, by all that is known here, certified or not; itself included."""
        wards = [event.data.feed for event in self.tails.get(commit.worker, ()) if isinstance(event.data, Vouch)]
        return self.fold.operators(commit) | frozenset(wards)

    # --- plan ------------------------------------------------------------------------------------------------------
    def plan(self, events: Iterable[Event]) -> Plan:
        """What to write for a batch of events of any feeds in any order; verifies signatures, changes nothing."""
        draft = _Draft(self)
        for event in sorted(events, key=lambda event: event.seq):  # stable: keeps arrival order within a seq
            draft.judge(event)
        return draft.plan()

    # --- apply -----------------------------------------------------------------------------------------------------
    def apply(self, plan: Plan) -> Applied:
        """Take in a plan made on this very state and written since."""
        for event_id in plan.judged:
            self._drop_orphan(event_id)
        for event in plan.waiting:
            self._keep_orphan(event)
        for event in plan.stored:
            self._index(event)
        for fork in plan.forks:
            self.forks[fork.feed] = fork
        self.heads.update(plan.heads)
        return self._certify(plan.stored, plan.forks)

    def restore(self, events: Sequence[Event]) -> Applied:
        """Take in events read back from this node's own disk, each feed in order; signatures were checked once."""
        for event in events:
            self.heads[event.feed] = link(self.heads.get(event.feed), event)
            self._index(event)
        return self._certify(tuple(events), ())

    def restore_fork(self, fork: Fork) -> None:
        """Remember a fork proof read back from disk."""
        self.forks[fork.feed] = fork

    def _index(self, event: Event) -> None:
        self._ids.setdefault(event.feed, bytearray()).extend(event.id)
        self.tails.setdefault(event.feed, []).append(event)
        match event.data:
            case Genesis(key) if key in self.certificate.witness_keys:
                self._witness[event.feed] = key
            case Offer() | Commit() | Settle():
                self.where[event.id] = (event.feed, event.seq)
            case _:
                pass

    def _certify(self, stored: tuple[Event, ...], forks: tuple[Fork, ...]) -> Applied:
        if stored:
            self._frontier_root = None
        touched: dict[bytes, None] = {}
        for event in stored:
            touched[event.feed] = None
            witness = self._witness.get(event.feed)
            if witness is not None and isinstance(event.data, Ack):
                for entry in event.data.entries:
                    self.certificate.ack(witness, entry, self.id_at)
                    touched[entry.feed] = None
        certified: list[Event] = []
        for feed in touched:
            head = self.heads.get(feed)
            if head is None:
                continue
            self.certificate.grown(feed, head.seq, self.id_at)
            tail = self.tails.get(feed, [])
            reached = self.certificate.certified(feed)
            count = max(0, len(tail) - (head.seq - reached))
            certified += tail[:count]
            if count == len(tail):
                self.tails.pop(feed, None)
            else:
                del tail[:count]
        return Applied(stored, tuple(certified), tuple(self.fold.add(certified)), forks)

    # --- orphans ---------------------------------------------------------------------------------------------------
    def orphans_at(self, feed: bytes, seq: int) -> list[Event]:
        """Events that wait to be the one at `seq` of `feed`."""
        return [self._orphans[event_id] for event_id in self._next.get((feed, seq), ())]

    def _keep_orphan(self, event: Event) -> None:
        if event.id in self._orphans:
            return
        if len(self._orphans) >= ORPHANS_MAX:
            self._drop_orphan(next(iter(self._orphans)))
        self._orphans[event.id] = event
        self._next.setdefault((event.feed, event.seq), []).append(event.id)

    def _drop_orphan(self, event_id: bytes) -> None:
        event = self._orphans.pop(event_id, None)
        if event is None:
            return
        place = (event.feed, event.seq)
        self._next[place].remove(event_id)
        if not self._next[place]:
            del self._next[place]

    def check_invariants(self) -> None:
        """Assert that chains, certificates and fold agree: I1, I3, I5, I8 as far as one node can see them."""
        self.fold.check_invariants()
        assert len(self._orphans) <= ORPHANS_MAX
        assert sum(map(len, self._next.values())) == len(self._orphans)
        assert len(self.heads) <= FEEDS_MAX
        for feed, head in self.heads.items():
            assert len(self._ids[feed]) == (head.seq + 1) * _ID_BYTES
            assert self.id_at(feed, head.seq) == head.id
            certified = self.certificate.certified(feed)
            assert certified <= head.seq
            assert len(self.tails.get(feed, ())) == head.seq - certified
            seq, event_id = self.fold.certified.get(feed, (-1, None))
            assert seq == certified
            assert event_id == (self.id_at(feed, seq) if seq >= 0 else None)


class _Draft:
    """A plan in the making: the heads as they will be, over those that are."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._heads: dict[bytes, Head] = {}
        self._ids: dict[tuple[bytes, int], bytes] = {}
        self._stored: list[Event] = []
        self._forks: dict[bytes, Fork] = {}
        self._refusals: list[PeerError] = []
        self._waiting: dict[bytes, Event] = {}
        self._judged: list[bytes] = []
        self._new_feeds = 0

    def plan(self) -> Plan:
        return Plan(
            tuple(self._stored),
            tuple(self._forks.values()),
            tuple(self._refusals),
            tuple(self._waiting.values()),
            tuple(self._judged),
            self._heads,
        )

    def judge(self, event: Event) -> None:
        """Sort one event in, and then the orphans that waited for it."""
        todo = [event]
        while todo:
            event = todo.pop()
            head = self._heads.get(event.feed) or self._replica.heads.get(event.feed)
            seq = -1 if head is None else head.seq
            if event.seq > seq + 1:
                self._wait(event)
            elif event.seq == seq + 1:
                if self._store(head, event):
                    todo += self._replica.orphans_at(event.feed, event.seq + 1)
            elif head is not None:
                self._compare(head, event)

    def _wait(self, event: Event) -> None:
        if event.feed in self._replica.forks or event.feed in self._forks:
            self._refuse(event, "its feed has forked", 1)
        else:
            self._waiting[event.id] = event

    def _store(self, head: Head | None, event: Event) -> bool:
        self._judged.append(event.id)
        if event.feed in self._replica.forks or event.feed in self._forks:
            self._refuse(event, "its feed has forked", 1)
            return False
        if head is None and len(self._replica.heads) + self._new_feeds >= FEEDS_MAX:
            self._refuse(event, "this node keeps no more feeds", 0)
            return False
        try:
            after = extend(head, event)
        except PeerError as error:
            self._refusals.append(error)
            return False
        self._new_feeds += head is None
        self._heads[event.feed] = after
        self._ids[event.feed, event.seq] = event.id
        self._stored.append(event)
        return True

    def _compare(self, head: Head, event: Event) -> None:
        self._judged.append(event.id)
        kept = self._ids.get((event.feed, event.seq)) or self._replica.id_at(event.feed, event.seq)
        assert kept is not None
        if kept == event.id or event.feed in self._replica.forks or event.feed in self._forks:
            return
        if contradicts(head, event):
            self._forks[event.feed] = Fork(event.feed, event.seq, kept, event)
        else:
            self._refuse(event, "it contradicts a known event and no key of its feed stands for it", 10)

    def _refuse(self, event: Event, why: str, cost: int) -> None:
        what = f"event {event.seq} of {event.feed.hex()[:12]} is refused: {why}"
        self._refusals.append(PeerError(what, section="feeds", cost=cost))
