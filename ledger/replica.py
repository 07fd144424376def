"""Everything one node holds of the ledger in memory, and how new events change it.

Knows heads, orphans, forks, certificates and the fold, and keeps them in step. Must never know storage, peers or
time: `plan` says what should be written, the caller writes it, `apply` takes it in. So disk is never behind memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ledger.certificate import Certificate
from ledger.chain import Head, contradicts, extend, link
from ledger.fold import Fold
from ledger.sync import Frontier, wants
from ledger.verdict import SealedCommit
from nexapod.errors import PeerError
from nexapod.events import Event
from nexapod.limits import FEEDS_MAX, ORPHANS_MAX
from nexapod.messages import Ack, AskEvents, Commit, FrontierReply, Offer, Settle, Vouch

_ID_BYTES = 32
# Envelope bytes kept in memory because they have not taken effect: not certified, or waiting for what they name. A feed
# may hold as much as is left free, so those that fill the room always leave some to the others.
# Source: Choudhury, Hahne: Dynamic queue length thresholds for shared-memory packet switches, 1998.
UNFOLDED_BYTES_MAX = 64 * 1024 * 1024


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
    """One node's copy of the ledger.

    `witnesses`: ids of the witnesses' feeds, as they follow from the network's manifest; so does `threshold`.
    """

    def __init__(self, netid: bytes, witnesses: frozenset[bytes] = frozenset(), threshold: int = 0) -> None:
        self.netid, self.events = netid, 0  # events in all chains
        self.heads: dict[bytes, Head] = {}
        self.forks: dict[bytes, Fork] = {}
        self.certificate = Certificate(witnesses, threshold)
        self.fold = Fold(netid)
        self.where: dict[bytes, tuple[bytes, int]] = {}  # offers, commits and settles: id -> feed, seq
        self.tails: dict[bytes, list[Event]] = {}  # events beyond the certified seq
        self.written_ms: dict[bytes, int] = {}  # when each feed last wrote, by its author's clock: for people only
        self.frontier = Frontier()
        self._ids: dict[bytes, bytearray] = {}  # all ids of a feed, one after the other
        self._unfolded: dict[bytes, int] = {}  # feed -> envelope bytes that have not taken effect
        self._unfolded_bytes = 0  # the same of all feeds
        self._orphans: dict[bytes, Event] = {}  # oldest first
        self._next: dict[tuple[bytes, int], list[bytes]] = {}  # (feed, seq) -> orphan ids

    @property
    def provisional(self) -> bool:
        """Whether balances are only this node's view, because the network has no witnesses."""
        return self.certificate.provisional

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
        return self.frontier.root()

    def wants(self, reply: FrontierReply) -> list[AskEvents]:
        """What to ask the side that gave this reply for."""
        return wants(self.heads, reply, self.unwanted(), self.forks)

    def unwanted(self) -> set[bytes]:
        """Feeds of which nothing more would be taken now."""
        over = {feed for feed in self.forks if self.certificate.awaited(feed) <= self.heads[feed].seq}
        free = UNFOLDED_BYTES_MAX - self._unfolded_bytes
        return over | {feed for feed, held in self._unfolded.items() if held > free}

    def crowds(self, feed: bytes, size: int, total: int) -> bool:
        """Whether `size` more bytes of `feed`, among `total` more of all feeds, would take more room than is left."""
        return self._unfolded.get(feed, 0) + size > UNFOLDED_BYTES_MAX - self._unfolded_bytes - total

    def firm(self, event_id: bytes) -> bool:
        """Whether a commit, offer or settle has taken effect, so that whoever names it waits for nothing.

        An author must name nothing else: a feed whose certified event names one that is never certified stands still
        for good, and any feed can be made to stand still before the event it lures others to name.
        """
        return event_id in self.fold.commits or event_id in self.fold.offers or event_id in self.fold.settles

    def unfolded(self) -> Iterator[Event]:
        """Events that have not taken effect yet, each feed in order."""
        for feed in tuple(self._unfolded):
            yield from self.fold.parked(feed)
            yield from self.tails.get(feed, ())

    def operators(self, commit: SealedCommit) -> frozenset[bytes]:
        """The feeds that a worker answers for, by all that is known here, certified or not; itself included."""
        wards = [event.data.feed for event in self.tails.get(commit.worker, ()) if isinstance(event.data, Vouch)]
        return self.fold.operators(commit) | frozenset(wards)

    # --- plan ------------------------------------------------------------------------------------------------------
    def plan(self, events: Iterable[Event], *, bounded: bool = True) -> Plan:
        """What to write for a batch of events of any feeds in any order; verifies signatures, changes nothing.

        `bounded`: refuse what would take more room than strangers have; never own events, nor those stored once.
        """
        draft = _Draft(self, bounded)
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
        self.heads.update(plan.heads)
        for fork in plan.forks:
            self.restore_fork(fork)
        return self._certify(plan.stored, plan.forks)

    def restore(self, events: Sequence[Event]) -> Applied:
        """Take in events read back from this node's own disk, each feed in order; signatures were checked once."""
        for event in events:
            self.heads[event.feed] = link(self.heads.get(event.feed), event)
            self._index(event)
        return self._certify(tuple(events), ())

    def restore_fork(self, fork: Fork) -> None:
        """Remember a fork proof."""
        self.forks[fork.feed] = fork
        self._show(fork.feed)

    def _index(self, event: Event) -> None:
        self._ids.setdefault(event.feed, bytearray()).extend(event.id)
        self.tails.setdefault(event.feed, []).append(event)
        self.written_ms[event.feed] = event.ts
        self.events += 1
        self._unfolded[event.feed] = self._unfolded.get(event.feed, 0) + len(event.raw)
        self._unfolded_bytes += len(event.raw)
        match event.data:
            case Offer() | Commit() | Settle():
                self.where[event.id] = (event.feed, event.seq)
            case _:
                pass

    def _certify(self, stored: tuple[Event, ...], forks: tuple[Fork, ...]) -> Applied:
        touched: dict[bytes, None] = {}
        for event in stored:
            touched[event.feed] = None
            if event.feed in self.certificate.witnesses and isinstance(event.data, Ack):
                for entry in event.data.entries:
                    self.certificate.ack(event.feed, entry, self.id_at)
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
            self._show(feed)
        folded = tuple(self.fold.add(certified))
        for event in folded:
            self._unfolded_bytes -= len(event.raw)
            self._unfolded[event.feed] -= len(event.raw)
            if not self._unfolded[event.feed]:
                del self._unfolded[event.feed]
        return Applied(stored, tuple(certified), folded, forks)

    def _show(self, feed: bytes) -> None:
        """Tell the frontier where this feed is."""
        if feed in self.forks:
            # Without witnesses each side keeps what it heard first, and nobody can say which is right.
            agreed = -1 if self.provisional else self.certificate.certified(feed)
            self.frontier.fork(feed, self.forks[feed].seq, agreed)
        else:
            self.frontier.move(feed, self.heads[feed].seq, self.heads[feed].id)

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
        assert self.events == sum(head.seq + 1 for head in self.heads.values())
        assert len(self.heads) <= FEEDS_MAX + 1  # the own feed always has a place
        unfolded = dict.fromkeys(self._unfolded, 0)
        for event in self.unfolded():
            unfolded[event.feed] += len(event.raw)
        assert unfolded == self._unfolded
        assert sum(unfolded.values()) == self._unfolded_bytes
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

    def __init__(self, replica: Replica, bounded: bool) -> None:
        self._replica, self._bounded = replica, bounded
        self._heads: dict[bytes, Head] = {}
        self._ids: dict[tuple[bytes, int], bytes] = {}
        self._stored: list[Event] = []
        self._forks: dict[bytes, Fork] = {}
        self._refusals: list[PeerError] = []
        self._waiting: dict[bytes, Event] = {}
        self._judged: list[bytes] = []
        self._new_feeds = 0
        self._bytes: dict[bytes, int] = {}  # feed -> envelope bytes to be stored
        self._bytes_all = 0

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
        """Sort one event in, and then the orphans that waited for it.

        What is wrong with an orphan costs nothing: it is not the doing of whoever brought its predecessor.
        """
        self._judge(event, 1)
        todo = self._followers(event)
        while todo:
            orphan = todo.pop()
            self._judge(orphan, 0)
            todo += self._followers(orphan)

    def _followers(self, event: Event) -> list[Event]:
        if self._ids.get((event.feed, event.seq)) != event.id:
            return []
        return self._replica.orphans_at(event.feed, event.seq + 1)

    def _judge(self, event: Event, blame: int) -> None:
        head = self._heads.get(event.feed) or self._replica.heads.get(event.feed)
        seq = -1 if head is None else head.seq
        if event.seq <= seq:
            assert head is not None
            self._compare(head, event)
        elif self._closed(event):
            self._judged.append(event.id)
            self._refuse(event, "its feed has forked")
        elif event.seq > seq + 1:
            self._waiting[event.id] = event
        else:
            self._judged.append(event.id)
            self._extend(head, event, blame)

    def _closed(self, event: Event) -> bool:
        """Whether its feed is proven to have forked, and the event is not of the part that is certified elsewhere."""
        if event.feed not in self._replica.forks and event.feed not in self._forks:
            return False
        return event.seq > self._replica.certificate.awaited(event.feed)

    def _extend(self, head: Head | None, event: Event, blame: int) -> None:
        size = self._bytes.get(event.feed, 0) + len(event.raw)
        if self._bounded and head is None and len(self._replica.heads) + self._new_feeds >= FEEDS_MAX:
            self._refuse(event, "this node keeps no more feeds")
        elif self._bounded and self._replica.crowds(event.feed, size, self._bytes_all + len(event.raw)):
            self._refuse(event, "too much of its feed waits to take effect")
        else:
            try:
                after = extend(head, event)
            except PeerError as error:
                # What its author signed may be passed on in good faith, whatever it contradicts here.
                in_good_faith = head is not None and event.signed_by(head.key)
                error.cost = 0 if in_good_faith else error.cost * blame
                self._refusals.append(error)
                return
            self._new_feeds += head is None
            self._heads[event.feed] = after
            self._ids[event.feed, event.seq] = event.id
            self._stored.append(event)
            self._bytes[event.feed] = size
            self._bytes_all += len(event.raw)

    def _compare(self, head: Head, event: Event) -> None:
        self._judged.append(event.id)
        kept = self._ids.get((event.feed, event.seq)) or self._replica.id_at(event.feed, event.seq)
        assert kept is not None
        if kept == event.id or event.feed in self._replica.forks or event.feed in self._forks:
            return
        if contradicts(head, event):
            self._forks[event.feed] = Fork(event.feed, event.seq, kept, event)
        else:
            # No fault of who brings it: a node that heard an old key's forgery first takes it for the truth.
            self._refuse(event, "it contradicts a known event and no key of its feed stands for it")

    def _refuse(self, event: Event, why: str) -> None:
        """Refuse what its bringer may hold in good faith."""
        what = f"event {event.seq} of {event.feed.hex()[:12]} is refused: {why}"
        self._refusals.append(PeerError(what, section="feeds", cost=0))
