"""Whatever is written and however it arrives, honest nodes count alike: invariants 1, 3, 4 and 5."""

from collections.abc import Callable, Iterable
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ledger.fold import Fold
from ledger.replica import Replica
from ledger.witness import due
from nexapod.events import Event
from nexapod.hashing import blob_id
from nexapod.limits import EVENTS_PER_PAGE
from nexapod.messages import (
    Ack,
    AskFrontier,
    Burn,
    Close,
    Independence,
    Lock,
    Offer,
    Pay,
    Release,
    Report,
    Rotate,
    Steward,
    Verdict,
    Void,
    Voided,
    Vouch,
)
from tests.ledger.scribe import (
    JOB_SEED,
    NETID,
    PRICE,
    Result,
    Scribe,
    commit,
    everything,
    offer_of,
    seal,
    settle,
    settlement,
)


# What is drawn is a seed: the search is wide and a failure is one number, but there is nothing to shrink.
def seeds(count: int) -> Callable[[Callable[[int], None]], Callable[[], None]]:
    """Run a test with so many seeds, the same ones in every run."""

    def decorate(test: Callable[[int], None]) -> Callable[[], None]:
        bounded = settings(max_examples=count, phases=(Phase.explicit, Phase.generate))
        return bounded(given(st.integers(0, 2**32))(test))

    return decorate


ROOTS = [blob_id(b"right"), blob_id(b"wrong")]
NAMES = ("ann", "bob", "cal", "dan")


class Economy:
    """Feeds that do anything a feed can do, sensible or not; `chance` decides."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.scribes = [Scribe(name) for name in NAMES]
        self.offers: list[Event] = []
        self.locks: list[Event] = []
        self.settles: list[Event] = []
        self.results: dict[bytes, list[Result]] = {}  # offer -> commits
        self.sealed: dict[tuple[bytes, int], list[Result]] = {}  # offer and task -> what was sealed first

    def live(self, steps: int) -> list[Scribe]:
        deeds: list[Callable[[Scribe], object]] = [
            self.offer, *[self.work] * 3, *[self.judge] * 3, self.pay, self.lock, self.release,
            self.speak, self.end,
        ]  # fmt: skip
        for _ in range(steps):
            self.chance.choice(deeds)(self.chance.choice(self.scribes))
        return self.scribes

    def colour(self) -> bytes:
        return self.chance.choice(self.scribes).feed

    def offer(self, scribe: Scribe) -> None:
        chance = self.chance
        price = chance.choice((0, 7, PRICE, PRICE))
        event = scribe.write(
            offer_of(
                job_id=f"job-{len(self.offers)}",
                colour=chance.choice((None, None, None, self.colour())),
                price=price,
                lock=chance.choice((price, 4 * price, 4 * price)),
                quorum=chance.choice((1, 2, 2, 2, 2, 3)),
                executions_max=chance.choice((2, 4, 4)),
                tasks=chance.choice((1, 2)),
                independence=chance.choice(tuple(Independence)),
                steward=chance.choice((None, None, None, self.colour())),
            )
        )
        self.offers.append(event)

    def work(self, scribe: Scribe) -> None:
        """Some commit to one execution each of a task, most of them to the right result."""
        if not self.offers:
            return
        chance = self.chance
        offer, task, round_ = chance.choice(self.offers[-3:]), chance.choice((0, 0, 0, 1)), chance.choice((0, 0, 1))
        for worker in dict.fromkeys((scribe, *chance.choices(self.scribes, k=2))):
            result = commit(worker, offer, chance.choice((*ROOTS, *ROOTS[:1] * 6)), task=task, round_=round_)
            self.results.setdefault(offer.id, []).append(result)

    def judge(self, scribe: Scribe) -> None:
        """Seal and settle, mostly as one should."""
        if not self.results:
            return
        chance = self.chance
        offer_id = chance.choice(list(self.results))
        offer = next(event for event in self.offers if event.id == offer_id)
        terms = offer.data
        assert isinstance(terms, Offer)
        judges = [s for s in self.scribes if s.feed == (terms.steward or offer.feed)]
        scribe = chance.choice((*judges * 6, scribe))
        task, first = chance.choice((0, 0, 0, 1)), dict[tuple[bytes, int], Result]()
        for result in self.results[offer.id]:
            if result.task == task:
                first.setdefault((result.worker.feed, result.round), result)
        results = list(first.values())[: chance.choice((*[terms.executions_max] * 4, 16))]
        if not results:
            return
        if terms.steward is not None and chance.random() < 0.8:
            scribe.write(Steward(offer.id))
        if (offer.id, task) not in self.sealed and (len(results) > 2 or chance.random() < 0.1):
            seal(scribe, offer, results)
            self.sealed[offer.id, task] = results
        elif chance.random() < 0.8:
            results = self.sealed.get((offer.id, task), results)
        roots = [result.root for result in results]
        root = chance.choice((max(ROOTS, key=roots.count), max(ROOTS, key=roots.count), ROOTS[0]))
        own = [result for result in results if result.worker is not scribe]
        amount = chance.choice((0, PRICE + 1, *[terms.price] * 8))
        named = own if own and chance.random() < 0.8 else results
        self.settles.append(settle(scribe, offer, settlement(named, root, amount)))

    def pay(self, scribe: Scribe) -> None:
        amount = self.chance.choice((0, 1, 300, PRICE, 2**62))
        scribe.write(self.chance.choice((Pay(self.colour(), self.colour(), amount), Burn(self.colour(), amount))))

    def lock(self, scribe: Scribe) -> None:
        offer = self.chance.choice(self.offers).id if self.offers else bytes(32)
        self.locks.append(scribe.write(Lock(offer, self.colour(), self.chance.choice((0, 11, PRICE)))))

    def release(self, scribe: Scribe) -> None:
        if self.locks:
            lock = self.chance.choice(self.locks)
            against = self.chance.choice((None, *(event.id for event in self.settles)))
            scribe = self.chance.choice((scribe, *(s for s in self.scribes if s.feed == lock.feed)))
            scribe.write(Release(lock.id, against))

    def speak(self, scribe: Scribe) -> None:
        scribe.write(self.chance.choice((Vouch(self.colour(), ""), Report(self.colour(), 0, ""))))
        if self.chance.random() < 0.2:
            scribe.rotate()

    def end(self, scribe: Scribe) -> None:
        if self.offers and self.chance.random() < 0.3:
            offer = self.chance.choice(self.offers)
            scribe = self.chance.choice((scribe, *(s for s in self.scribes if s.feed == offer.feed)))
            void = Void(offer.id, (Voided(0, self.chance.choice(tuple(Verdict)), "", ()),))
            scribe.write(self.chance.choice((void, Close(offer.id, JOB_SEED))))


def shuffled(scribes: Iterable[Scribe], chance: Random) -> list[list[Event]]:
    """All events in batches of any size, feeds interleaved in any way, some twice."""
    queues = [list(scribe.events) for scribe in scribes]
    order: list[Event] = []
    while any(queues):
        queue = chance.choice([queue for queue in queues if queue])
        order += [queue.pop(0) for _ in range(min(len(queue), chance.randint(1, 8)))]
        order += chance.sample(order, min(len(order), chance.randint(0, 2)))
    size = chance.randint(1, len(order))
    return [order[start : start + size] for start in range(0, len(order), size)]


@seeds(60)
def test_any_economy_conserves_every_colour_and_any_order_gives_one_state(seed: int) -> None:
    chance = Random(seed)
    scribes = Economy(chance).live(90)
    roots = set()
    for _ in range(3):
        fold = Fold(NETID)
        for batch in shuffled(scribes, chance):
            fold.add(batch)
            fold.check_invariants()
        roots.add((fold.state_root(), fold.frontier_root(), frozenset(fold.faults.items())))
    assert len(roots) == 1


def test_such_economies_do_everything_a_ledger_knows() -> None:
    kinds: set[int] = set()
    faults: set[str] = set()
    minted = settled = 0
    for seed in range(40):
        scribes = Economy(Random(seed)).live(90)
        kinds |= {event.kind for event in everything(*scribes)}
        fold = Fold(NETID)
        fold.add(everything(*scribes))
        faults |= {why.split(": ")[-1] for reasons in fold.faults.values() for why in reasons}
        minted += sum(fold.minted.values())
        settled += sum(len(state.ended) for state in fold.offers.values())
    unused = {0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 30, 31, 32, 33, 50} - kinds
    assert not unused
    assert minted > 10 * PRICE
    assert settled > 40
    assert len(faults) > 15, faults


# --- nodes -----------------------------------------------------------------------------------------------------------
class Node:
    """One replica, what it has on disk, and whether it is a witness."""

    def __init__(self, witnesses: list[Scribe], threshold: int, own: Scribe | None) -> None:
        self.replica = Replica(NETID, frozenset(scribe.feed for scribe in witnesses), threshold)
        self.own, self.disk = own, dict[tuple[bytes, int], Event]()
        self._certified: dict[bytes, int] = {}
        if own is not None:
            self.take(own.events)

    def take(self, events: Iterable[Event]) -> None:
        applied = self.replica.apply(self.replica.plan(events))
        self.disk |= {(event.feed, event.seq): event for event in applied.stored}
        self.replica.check_invariants()
        for feed in self.replica.heads:
            certified = self.replica.certificate.certified(feed)
            assert certified >= self._certified.get(feed, -1), "a certificate sank"
            self._certified[feed] = certified

    def acknowledge(self) -> None:
        if self.own is not None and (entries := due(self.replica, self.own.feed)):
            self.take([self.own.write(Ack(entries))])

    def page(self, feed: bytes, seq: int) -> list[Event]:
        head, fork = self.replica.heads[feed].seq, self.replica.forks.get(feed)
        found = [self.disk[feed, at] for at in range(seq, min(head, seq + EVENTS_PER_PAGE) + 1)]
        return found if fork is None or seq > fork.seq else [*found, fork.other]

    def pull(self, other: "Node") -> None:
        """One round of the exchange that daemons make."""
        reply = other.replica.frontier.answer(AskFrontier(self.replica.frontier_root(), b""))
        for ask in self.replica.wants(reply):
            self.take(other.page(ask.feed, ask.seq))


def scatter(nodes: list[Node], events: list[Event], chance: Random) -> None:
    """Gossip at its worst: every event reaches one node only, in any order, so that much of it comes as an orphan."""
    chance.shuffle(events)
    while events:
        size = chance.randint(1, 9)
        chance.choice(nodes).take(events[:size])
        del events[:size]


def mesh(chance: Random) -> list[Node]:
    witnesses = [Scribe(f"wit {i}") for i in range(chance.choice((0, 1, 3)))]
    nodes = [Node(witnesses, len(witnesses) // 2 + bool(witnesses), own) for own in (*witnesses, None, None)]
    return nodes if witnesses else [*nodes, Node([], 0, None)]


def settle_down(nodes: list[Node], chance: Random) -> None:
    """Exchange until nobody has anything to tell or to acknowledge."""
    for _ in range(40):
        for node in nodes:
            node.acknowledge()
            node.pull(chance.choice([other for other in nodes if other is not node]))
        quiet = not any(node.own and due(node.replica, node.own.feed) for node in nodes)
        if quiet and len({node.replica.frontier_root() for node in nodes}) == 1:
            return
    raise AssertionError("they never come to rest")


@seeds(40)
def test_nodes_that_exchange_end_with_the_same_ledger(seed: int) -> None:
    chance = Random(seed)
    nodes = mesh(chance)
    events = everything(*Economy(chance).live(40))
    everywhere = [event for event in events if event.seq == 0 or chance.random() < 0.7]
    scatter(nodes, list(events), chance)
    scatter(nodes, everywhere, chance)
    nodes[-1].take(events)  # their authors have them
    settle_down(nodes, chance)
    assert len({node.replica.fold.state_root() for node in nodes}) == 1
    assert len({node.replica.fold.frontier_root() for node in nodes}) == 1
    assert {event.id for event in nodes[0].disk.values()} >= {event.id for event in events}


@seeds(30)
def test_a_contradiction_told_to_one_reaches_all_and_changes_no_balance(seed: int) -> None:
    chance = Random(seed)
    nodes = mesh(chance)
    scribes = Economy(chance).live(30)
    nodes[0].take(everything(*scribes))
    settle_down(nodes, chance)
    liars = chance.sample(scribes, 2)
    for liar in liars:
        since = max((event.seq for event in liar.events if isinstance(event.data, Rotate)), default=0)
        liar.write(Report(bytes(32), 1, "before"))
        chance.choice(nodes).take([liar.events[-1]])
        settle_down(nodes, chance)
        seq = chance.randint(since + 1, liar.events[-1].seq)
        chance.choice(nodes).take([liar.rewrite(seq, Report(bytes(32), 2, "after"))])
    settle_down(nodes, chance)
    for node in nodes:
        assert node.replica.forks.keys() == {liar.feed for liar in liars}
        for liar in liars:
            node.take([liar.write(Report(bytes(32), 3, "nobody listens"))])
    assert len({node.replica.frontier_root() for node in nodes}) == 1
    balances = {tuple(sorted(node.replica.fold.net.items())) for node in nodes}
    assert len(balances) == 1
    assert len({node.replica.fold.state_root() for node in nodes}) == 1


@seeds(30)
def test_two_tales_told_at_once_are_proven_to_all(seed: int) -> None:
    chance = Random(seed)
    nodes = mesh(chance)
    liar, twin = Scribe("liar"), Scribe("liar")
    for _ in range(chance.randint(1, 6)):
        liar.write(Report(bytes(32), 0, "to some"))
    for _ in range(chance.randint(1, 6)):
        twin.write(Report(bytes(32), 0, "to others"))
    scatter(nodes, everything(*Economy(chance).live(10)), chance)
    told = chance.sample(nodes, 2)
    for node, scribe in zip(told, (liar, twin), strict=True):
        node.take(scribe.events)
    for _ in range(12):
        for node in nodes:
            node.acknowledge()
            for other in nodes:
                node.pull(other)
    assert all(node.replica.forks.keys() == {liar.feed} for node in nodes)
    for node in nodes:
        node.take([*liar.events, *twin.events, liar.write(Report(bytes(32), 0, "more"))])
        assert node.replica.forks.keys() == {liar.feed}
    others = set(nodes[0].replica.heads) - {liar.feed}
    for feed in others:
        assert len({node.replica.heads[feed] for node in nodes}) == 1
