"""The state of a ledger: what certified events add up to, the same whatever order they come in.

Knows what every kind of event does to balances, offers and reputation. Must never know signatures, certificates,
storage or time. Each feed is folded in its own order; an event that names others waits until those are folded, and
its feed waits with it. Effects on what several feeds share are additions, so arrival order leaves no trace.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.verdict import Case, SealedCommit, check_settlement, check_void, seed_commitment
from nexapod.encoding import encode
from nexapod.events import Event
from nexapod.hashing import Tag, merkle_root, tagged
from nexapod.messages import (
    Burn,
    Close,
    Commit,
    EventData,
    Lock,
    Offer,
    Pay,
    Release,
    Seal,
    SealEntry,
    Settle,
    Settlement,
    Steward,
    Verdict,
    Void,
    Voided,
    Vouch,
)

_VOUCHES_MAX = 64  # feeds one feed can answer for; later vouches bind nobody
_AMOUNT_BYTES = 16  # any sum of 2^63 amounts of 63 bits


class Ended(NamedTuple):
    """How a task ended: by which event, with which root (settled) or verdict (void)."""

    event: bytes
    root: bytes | None
    verdict: Verdict | None


@dataclass(slots=True)
class OfferState:
    """One offer. `judge`: the one feed that may seal, settle, void, close; `left` of the lock and `paid` from it."""

    id: bytes
    owner: bytes
    judge: bytes
    offer: Offer
    seq: int
    open: bool
    accepted_seq: int | None
    left: int
    sealed: dict[int, dict[bytes, int]] = field(default_factory=dict)  # task -> commit id -> round
    rounds: set[tuple[int, int]] = field(default_factory=set)
    ended: dict[int, Ended] = field(default_factory=dict)
    paid: int = 0

    @property
    def issuer(self) -> bytes:
        """The colour it pays in."""
        return self.offer.colour or self.owner

    @property
    def mints(self) -> bool:
        """Whether it pays in the publisher's own colour: then credits come into being at settlement."""
        return self.issuer == self.owner


@dataclass(slots=True)
class LockState:
    """A sponsor's lock; `amount` is zero once released."""

    owner: bytes
    offer: bytes
    colour: bytes
    amount: int


class Standing(NamedTuple):
    """What an issuer's settlements say of an account in one numerical class."""

    valid: int = 0
    unique_wrong: int = 0
    shared_wrong: int = 0


def references(data: EventData | None) -> tuple[bytes, ...]:
    """Ids of the events that must be folded before this one can be."""
    match data:
        case Steward(offer):
            return (offer,)
        case Settle(_, entries) | Void(_, entries):
            return tuple(opening.commit for entry in entries for opening in entry.openings)
        case Release(_, settle) if settle is not None:
            return (settle,)
        case _:
            return ()


def spend(event: Event) -> tuple[bytes, int] | None:
    """Colour and micro-credits this event takes from its feed's balance, None when nothing."""
    match event.data:
        case Pay(_, colour, amount) | Lock(_, colour, amount) | Burn(colour, amount):
            return colour, amount
        case Offer(colour=colour, lock=amount) if colour is not None and colour != event.feed:
            return colour, amount
        case _:
            return None


class Fold:
    """Certified events in, state out. Feed it each feed's events in order; feeds may interleave in any way."""

    def __init__(self, netid: bytes) -> None:
        self.netid = netid
        self.certified: dict[bytes, tuple[int, bytes]] = {}  # feed -> last event received here
        self.folded: dict[bytes, int] = {}  # feed -> last seq that took effect
        self.net: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)  # (account, colour)
        self.minted: defaultdict[bytes, int] = defaultdict(int)
        self.burned: defaultdict[bytes, int] = defaultdict(int)
        self.earned: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)  # (account, publisher)
        self.reputation: dict[tuple[bytes, bytes, str], Standing] = {}  # (account, publisher, numerical class)
        self.offers: dict[bytes, OfferState] = {}
        self.locks: dict[bytes, LockState] = {}
        self.commits: dict[bytes, tuple[bytes, int, Commit]] = {}  # id -> feed, seq, what it binds
        self.settles: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {}  # id -> offer, workers that agreed, not its own
        self.vouches: dict[bytes, dict[bytes, int]] = {}  # feed -> whom it vouches for, since which seq
        self.faults: dict[bytes, tuple[str, ...]] = {}  # event id -> what was invalid in it
        self.events = 0
        self._queues: dict[bytes, deque[Event]] = {}  # feeds that wait, with what they wait to do
        self._waiting: dict[bytes, set[bytes]] = {}  # event id -> feeds that wait for it
        self._state_root: bytes | None = None
        self._frontier_root: bytes | None = None

    # --- taking events in ------------------------------------------------------------------------------------------
    def add(self, events: Iterable[Event]) -> list[Event]:
        """Take certified events in; returns those that took effect now, causes before effects. Repeats are ignored."""
        done: list[Event] = []
        for event in events:
            seq, _ = self.certified.get(event.feed, (-1, b""))
            if event.seq <= seq:
                continue
            assert event.seq == seq + 1, f"seq {event.seq} certified after {seq}"
            self.certified[event.feed] = (event.seq, event.id)
            self._frontier_root = None
            self.events += 1
            queue = self._queues.get(event.feed)
            if queue is not None:
                queue.append(event)
                continue
            self._queues[event.feed] = deque((event,))
            self._drain(event.feed, done)
        return done

    def _drain(self, feed: bytes, done: list[Event]) -> None:
        ready = [feed]
        while ready:
            feed = ready.pop()
            queue = self._queues.get(feed)
            while queue:
                event = queue[0]
                missing = self._missing(event.data)
                if missing is not None:
                    self._waiting.setdefault(missing, set()).add(feed)
                    break
                queue.popleft()
                self._state_root = None
                self._take(event)
                self.folded[feed] = event.seq
                done.append(event)
                ready += sorted(self._waiting.pop(event.id, ()))
            if not queue:
                self._queues.pop(feed, None)

    def _missing(self, data: EventData | None) -> bytes | None:
        for event_id in references(data):
            if event_id not in self.commits and event_id not in self.settles and event_id not in self.offers:
                return event_id
        return None

    def parked(self, feed: bytes) -> tuple[Event, ...]:
        """Certified events of a feed that wait for events not certified yet."""
        return tuple(self._queues.get(feed, ()))

    def parked_feeds(self) -> list[bytes]:
        """Feeds whose certified events wait for others."""
        return sorted(self._queues)

    # --- what each kind does ---------------------------------------------------------------------------------------
    def _take(self, event: Event) -> None:
        feed = event.feed
        match event.data:
            case Offer() as offer:
                self._publish(event, offer)
            case Steward(offer_id):
                self._accept(event, offer_id)
            case Commit() as commit:
                self.commits[event.id] = (feed, event.seq, commit)
            case Seal(offer_id, entries):
                if (state := self._judged(event, offer_id)) is not None:
                    for entry in entries:
                        self._seal(event, state, entry)
            case Settle(offer_id, entries):
                agreed: list[bytes] = []
                if (state := self._judged(event, offer_id)) is not None:
                    for settlement in entries:
                        agreed += self._settle(event, state, settlement)
                self.settles[event.id] = (offer_id, tuple(agreed))
            case Void(offer_id, entries):
                if (state := self._judged(event, offer_id)) is not None:
                    for voided in entries:
                        self._void(event, state, voided)
            case Close(offer_id, seed):
                if (state := self._judged(event, offer_id)) is not None:
                    self._close(event, state, seed)
            case Pay(to, colour, amount):
                self.net[feed, colour] -= amount
                self.net[to, colour] += amount
            case Lock(offer_id, colour, amount):
                self.net[feed, colour] -= amount
                self.locks[event.id] = LockState(feed, offer_id, colour, amount)
            case Release(lock_id, settle_id):
                self._release(event, lock_id, settle_id)
            case Burn(colour, amount):
                self.net[feed, colour] -= amount
                self.burned[colour] += amount
            case Vouch(ward, _):
                wards = self.vouches.setdefault(feed, {})
                if len(wards) < _VOUCHES_MAX:
                    wards.setdefault(ward, event.seq)
            case _:
                pass  # keys, acks, checkpoints, reports, evidence and unknown kinds: no effect on the state

    def _publish(self, event: Event, offer: Offer) -> None:
        valid = offer.quorum <= offer.executions_max and offer.replicas <= offer.executions_max
        judge = event.feed if offer.steward is None else offer.steward
        accepted = event.seq if judge == event.feed else None
        state = OfferState(event.id, event.feed, judge, offer, event.seq, valid, accepted, offer.lock)
        self.offers[event.id] = state
        if not valid:
            self._fault(event, "the offer asks for more executions than it allows")
        elif not state.mints:
            self.net[event.feed, state.issuer] -= offer.lock

    def _accept(self, event: Event, offer_id: bytes) -> None:
        state = self.offers.get(offer_id)
        if state is None or state.judge != event.feed:
            self._fault(event, "the offer names another steward")
        elif state.accepted_seq is None:
            state.accepted_seq = event.seq

    def _judged(self, event: Event, offer_id: bytes) -> OfferState | None:
        """The offer, when this event's feed is the one that judges it."""
        state = self.offers.get(offer_id)
        if state is None or state.judge != event.feed or state.accepted_seq is None:
            # One fault for all three: before a steward accepts, the offer may be known here or not.
            self._fault(event, "this feed does not judge the offer")
        elif not state.open:
            self._fault(event, "the offer is closed")
        else:
            return state
        return None

    def _seal(self, event: Event, state: OfferState, entry: SealEntry) -> None:
        sealed = state.sealed.get(entry.task, {})
        if entry.task >= state.offer.tasks:
            self._fault(event, f"task {entry.task}: the offer has no such task")
        elif entry.task in state.ended:
            self._fault(event, f"task {entry.task}: sealed after its end")
        elif (entry.task, entry.round) in state.rounds:
            self._fault(event, f"task {entry.task}: round {entry.round} is sealed already")
        elif len(set(entry.commits) - sealed.keys()) < len(entry.commits):
            self._fault(event, f"task {entry.task}: a commit is sealed twice")
        elif len(sealed) + len(entry.commits) > state.offer.executions_max:
            self._fault(event, f"task {entry.task}: more executions than the offer allows")
        else:
            state.rounds.add((entry.task, entry.round))
            state.sealed.setdefault(entry.task, {}).update(dict.fromkeys(entry.commits, entry.round))

    def sealed_commits(self, state: OfferState, task: int) -> dict[bytes, SealedCommit]:
        """The commits sealed for a task, of which the commit events are folded and bind this very task and round."""
        found: dict[bytes, SealedCommit] = {}
        for commit_id, round_ in state.sealed.get(task, {}).items():
            feed, _, commit = self.commits.get(commit_id, (b"", 0, None))
            if commit is None or commit.offer != state.id:
                continue
            digests = [entry.digest for entry in commit.entries if (entry.task, entry.round) == (task, round_)]
            if len(digests) == 1:  # two digests for one execution would let its author choose later
                found[commit_id] = SealedCommit(commit_id, feed, task, round_, digests[0])
        return found

    def _settle(self, event: Event, state: OfferState, settlement: Settlement) -> list[bytes]:
        task = settlement.task
        case = self._case(state, event, settlement)
        sealed = self.sealed_commits(state, task)
        fault = check_settlement(case, sealed, settlement, state.left)
        if task in state.ended:
            fault = "it has ended already"
        if fault is not None:
            self._fault(event, f"task {task}: {fault}")
            return []
        state.ended[task] = Ended(event.id, settlement.root, None)
        agreed = []
        for opening in settlement.openings:
            commit = sealed[opening.commit]
            self._credit(state, commit.worker, opening.amount)
            if opening.root in (None, settlement.root) and not case.is_own(commit):
                agreed.append(commit.worker)
        self._judge(state, sealed, settlement)
        return agreed

    def _credit(self, state: OfferState, worker: bytes, amount: int) -> None:
        if amount == 0:
            return
        state.left -= amount
        state.paid += amount
        self.net[worker, state.issuer] += amount
        self.earned[worker, state.owner] += amount
        if state.mints:
            self.minted[state.issuer] += amount

    def _judge(self, state: OfferState, sealed: dict[bytes, SealedCommit], settlement: Settlement) -> None:
        """Reputation. A wrong result counts only where one of the same numerical class was right."""
        if state.offer.quorum < 2:
            return
        roots = [opening.root or settlement.root for opening in settlement.openings]
        right = {o.numeric_class for o, root in zip(settlement.openings, roots, strict=True) if root == settlement.root}
        for opening, root in zip(settlement.openings, roots, strict=True):
            key = (sealed[opening.commit].worker, state.owner, opening.numeric_class)
            valid, unique, shared = self.reputation.get(key, Standing())
            if root == settlement.root:
                self.reputation[key] = Standing(valid + 1, unique, shared)
            elif opening.numeric_class in right and roots.count(root) == 1:
                self.reputation[key] = Standing(valid, unique + 1, shared)
            elif opening.numeric_class in right:
                self.reputation[key] = Standing(valid, unique, shared + 1)

    def _void(self, event: Event, state: OfferState, voided: Voided) -> None:
        sealed = self.sealed_commits(state, voided.task)
        fault = check_void(self._case(state, event, voided), sealed, voided)
        if voided.task in state.ended:
            fault = "it has ended already"
        if fault is not None:
            self._fault(event, f"task {voided.task}: {fault}")
        else:
            state.ended[voided.task] = Ended(event.id, None, voided.verdict)

    def _close(self, event: Event, state: OfferState, seed: bytes) -> None:
        if seed_commitment(seed) != state.offer.seed_commitment:
            self._fault(event, "the seed is not the one committed to")  # it closes all the same: no lock is kept for it
        state.open = False
        if not state.mints:
            self.net[state.owner, state.issuer] += state.left
        state.left = 0

    def _release(self, event: Event, lock_id: bytes, settle_id: bytes | None) -> None:
        lock = self.locks.get(lock_id)
        if lock is None or lock.owner != event.feed or lock.amount == 0:
            self._fault(event, "this feed has no such lock")
            return
        workers: tuple[bytes, ...] = ()
        if settle_id is not None:
            offer_id, workers = self.settles.get(settle_id, (b"", ()))
            if offer_id != lock.offer or not workers:
                self._fault(event, "the settle does not concern the locked offer")
                return
        share = lock.amount // len(workers) if workers else 0
        for worker in workers:
            self.net[worker, lock.colour] += share
        self.net[lock.owner, lock.colour] += lock.amount - share * len(workers)
        lock.amount = 0

    def _fault(self, event: Event, why: str) -> None:
        self.faults[event.id] = (*self.faults.get(event.id, ()), why)

    # --- operators -------------------------------------------------------------------------------------------------
    def operators(self, commit: SealedCommit) -> frozenset[bytes]:
        """The feeds that a worker answers for by all it said up to now, itself included."""
        return frozenset((commit.worker, *self.vouches.get(commit.worker, ())))

    def _case(self, state: OfferState, event: Event, entry: Settlement | Voided) -> Case:
        """The case with operators as the feeds concerned declared them before they bound themselves.

        Later vouches must not change an old verdict, and those in unrelated feeds have no order with it: only what
        publisher, judge and workers said before offer, this event and commits is looked at.
        """
        bound = {state.owner: state.seq}
        bound[state.judge] = event.seq
        for opening in entry.openings:
            if opening.commit in self.commits:
                feed, seq, _ = self.commits[opening.commit]
                bound.setdefault(feed, seq)

        def operators(commit: SealedCommit) -> frozenset[bytes]:
            until = bound.get(commit.worker, 0)
            wards = self.vouches.get(commit.worker, {})
            return frozenset((commit.worker, *(ward for ward, seq in wards.items() if seq < until)))

        return Case(self.netid, state.id, state.offer, state.owner, operators)

    # --- reading ---------------------------------------------------------------------------------------------------
    def overissue(self) -> dict[tuple[bytes, bytes], int]:
        """Overdrafts: what each account spent of each colour beyond what it ever held."""
        return {key: -amount for key, amount in self.net.items() if amount < 0}

    def locked(self) -> dict[bytes, int]:
        """Micro-credits of each colour set aside in offers and sponsors' locks."""
        found: defaultdict[bytes, int] = defaultdict(int)
        for state in self.offers.values():
            if state.open and not state.mints:
                found[state.issuer] += state.left
        for lock in self.locks.values():
            found[lock.colour] += lock.amount
        return found

    def entries(self) -> Iterator[bytes]:
        """Canonical bytes of every entry of the state, in no particular order."""
        for name, pairs in (("net", self.net), ("earned", self.earned)):
            for (account, issuer), amount in pairs.items():
                if amount:  # reading a balance may leave a zero behind
                    yield encode((name, account, issuer, _amount(amount)))
        for name, sums in (("minted", self.minted), ("burned", self.burned)):
            for colour, amount in sums.items():
                if amount:
                    yield encode((name, colour, _amount(amount)))
        for (account, issuer, numeric_class), standing in self.reputation.items():
            yield encode(("standing", account, issuer, numeric_class, *standing))
        for lock_id, lock in self.locks.items():
            yield encode(("lock", lock_id, lock.amount))
        for state in self.offers.values():
            yield encode(("offer", state.id, state.open, state.accepted_seq, state.left))
            for task, ended in state.ended.items():
                yield encode(("ended", state.id, task, *ended))
            for task, sealed in state.sealed.items():
                yield encode(("sealed", state.id, task, sorted(sealed.items())))
        for feed, seq in self.folded.items():
            yield encode(("folded", feed, seq))
        for event_id, reasons in self.faults.items():
            yield encode(("fault", event_id, len(reasons)))  # the words may be put better one day

    def state_root(self) -> bytes:
        """One hash of the whole state; two honest nodes with the same certified events must have the same.

        Kept until the next event: it takes a quarter of a second for 100,000 entries.
        """
        if self._state_root is None:
            self._state_root = tagged(Tag.STATE, merkle_root(sorted(self.entries())))
        return self._state_root

    def frontier_root(self) -> bytes:
        """One hash of which events are certified: the head of every feed."""
        if self._frontier_root is None:
            leaves = [encode((feed, seq, event_id)) for feed, (seq, event_id) in sorted(self.certified.items())]
            self._frontier_root = tagged(Tag.FRONTIER, merkle_root(leaves))
        return self._frontier_root

    def check_invariants(self) -> None:
        """Assert I1: of each colour, what accounts hold and what is locked is what was minted and not burned."""
        held: defaultdict[bytes, int] = defaultdict(int)
        for (_, colour), amount in self.net.items():
            held[colour] += amount
        locked = self.locked()
        for colour in held.keys() | locked.keys() | self.minted.keys() | self.burned.keys():
            exists = self.minted.get(colour, 0) - self.burned.get(colour, 0)
            assert held[colour] + locked.get(colour, 0) == exists, colour.hex()
        for state in self.offers.values():
            assert 0 <= state.left <= state.offer.lock - state.paid
        for feed, seq in self.folded.items():
            assert seq <= self.certified[feed][0]


def _amount(amount: int) -> bytes:
    return amount.to_bytes(_AMOUNT_BYTES, "big", signed=True)
