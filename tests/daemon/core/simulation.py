"""A mesh in memory: real cores, real ledgers, and a network, clock and disk that do what a seed says.

Knows what the shell does around a core (daemon/loop.py, errands.py, requests.py), without its input and output. Every
step is followed by `check_invariants`. A run is a pure function of its seed and settings.
"""

import heapq
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daemon.core.author import Author
from daemon.core.node import FACT_PREFIXES, NodeCore
from daemon.core.ownerbook import Job
from daemon.core.step import (
    AcksDue,
    Answered,
    AssignmentHeard,
    Cancelled,
    Capacity,
    ClaimHeard,
    DescriptorHeld,
    Effect,
    ExecutionKey,
    FetchDescriptor,
    FetchOutputs,
    GaveUp,
    Heard,
    News,
    Now,
    OpeningsHeard,
    OutputsHeld,
    OutputsMissing,
    PeerCame,
    Published,
    RenewalHeard,
    Resumed,
    Run,
    RunBroke,
    RunEnded,
    SendAssign,
    SendClaim,
    SendGiveUp,
    SendOpen,
    SendRenew,
    Spread,
    Step,
    StopRun,
    StoryLine,
    Woke,
)
from ledger.order import causal
from ledger.replica import Replica
from ledger.witness import due
from nexapod.encoding import decode, encode
from nexapod.events import Event, check_note, make_genesis, open_note
from nexapod.hashing import Tag, blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.job import Resolved, descriptor_hash, parse, resolve
from nexapod.limits import EVENT_BYTES_MAX, LEASE_MS, REQUEST_BYTES_MAX
from nexapod.messages import AskOpen, AskRenew, Assignment, Close, Commit, Kind, Offer, Refused, Reply

NETID = blob_id(b"a simulated network")
CAPACITY = Capacity(2, frozenset({"docker"}), 2, 8, 2**34, 2**36, "x86-64-v3", ())
CONCERN_THE_CORE = frozenset({Kind.OFFER, Kind.COMMIT, Kind.SEAL, Kind.SETTLE, Kind.VOID, Kind.CLOSE})
HOLD_MS, REQUEST_MS, SYNC_MS, ACK_MS = 40, 5_000, 1_000, 50
SPINS_MAX = 500  # wake-ups in one millisecond
T = TypeVar("T")


def job_of(label: str = "fold-1", **changes: Any) -> Resolved:
    """A resolved job of small tasks; `changes` are keys of the job file."""
    document = {"job_id": label, "docker_image": "example/image:1", "timeouts": {"run_s": 60, "queue_s": 600}}
    return resolve(parse(document | changes), blob_id(b"image"), ())


def true_root(offer: bytes, task: int) -> bytes:
    """What an honest execution finds."""
    return blob_id(b"result" + offer + task.to_bytes(4, "big"))


@dataclass
class Habits:
    """How a node behaves; an honest one has none of these."""

    forges: bytes = b""  # finds a result of its own; nodes with the same word find the same wrong one
    exit_code: int = 0
    run_ms: int = 2_000
    refuses: bool = False  # answers every assignment with busy
    breaks: bool = False  # hands every task back
    stalls: bool = False  # renews its leases and never ends
    withholds: bool = False  # commits, and never opens
    hides: bool = False  # opens, and never hands over its outputs
    vanishes: bool = False  # is gone for good when its first task starts


@dataclass
class Node:
    """One node: what is on its disk, and what is lost in a crash."""

    name: str
    key: Key
    feed: bytes
    capacity: Capacity
    habits: Habits
    disk: dict[bytes, list[Event]] = field(default_factory=dict)
    facts: dict[bytes, bytes] = field(default_factory=dict)
    outputs: dict[bytes, int] = field(default_factory=dict)  # root -> exit code; on disk
    replica: Replica = field(default_factory=lambda: Replica(NETID))
    core: NodeCore | None = None  # None: not running
    life: int = 0  # which start of the process this is
    steps: int = 0
    woken: tuple[int, int] = (0, 0)
    running: set[ExecutionKey] = field(default_factory=set)
    ack_planned: bool = False


class World:
    """The mesh. `drop`, `repeat`, `crash`: chances, until `calm_ms`. The first node is the only witness."""

    def __init__(
        self, seed: int = 0, *, drop: float = 0, repeat: float = 0, crash: float = 0, calm_ms: int = 0
    ) -> None:
        self.rng = random.Random(seed)
        self.drop, self.repeat, self.crash, self.calm_ms = drop, repeat, crash, calm_ms
        self.ms = 1_000
        self.nodes: dict[str, Node] = {}
        self.by_feed: dict[bytes, Node] = {}
        self.descriptors: dict[bytes, Resolved] = {}
        self.offers: list[bytes] = []
        self.jobs_wanted = 0  # jobs that are published some time
        self.story: list[StoryLine] = []
        self.gossip = True
        self.crash_at: dict[tuple[str, int], str] = {}  # (name, number of the step) -> "before" or "after" its record
        self.on_step: Callable[[Node, News, Step], None] = lambda node, news, step: None
        self._todo: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0

    # --- building --------------------------------------------------------------------------------------------------
    def node(self, name: str, capacity: Capacity = CAPACITY, **habits: Any) -> Node:
        """Add a node and start it."""
        key = Key.from_seed(blob_id(name.encode()))
        genesis = make_genesis(key, NETID, next_key_digest(Key.from_seed(blob_id(b"next " + name.encode())).public))
        node = Node(name, key, genesis.id, capacity, Habits(**habits))
        node.disk[node.feed] = [genesis]
        self.nodes[name] = self.by_feed[node.feed] = node
        self._start(node)
        self.later(self.rng.randrange(SYNC_MS), lambda: self._sync(node))
        return node

    def publish(self, name: str, job: Resolved) -> bytes:
        """A person publishes a job on a node; the offer's id."""
        digest = descriptor_hash(job)
        self.descriptors[digest] = job
        step = self.tell(self.nodes[name], Published(job, digest, blob_id(b"seed of " + encode(job))))
        assert step is not None
        assert step.offer is not None
        self.offers.append(step.offer)
        return step.offer

    def cancel(self, name: str, offer: bytes) -> Reply | None:
        step = self.tell(self.nodes[name], Cancelled(offer))
        return step.reply if step else None

    # --- time ------------------------------------------------------------------------------------------------------
    def later(self, after_ms: int, action: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._todo, (self.ms + after_ms, self._count, action))

    def run(self, until: Callable[[], bool], limit_ms: int) -> None:
        """Let time pass until something holds.

        Raises:
            AssertionError: it does not within `limit_ms`: the mesh is stuck.
        """
        end = self.ms + limit_ms
        while not until():
            assert self._todo, "nothing will ever happen again"
            at, _, action = heapq.heappop(self._todo)
            assert at <= end, f"stuck: not done after {limit_ms} ms\n{self.told()}"
            self.ms = max(self.ms, at)
            action()

    def pass_ms(self, ms: int) -> None:
        """Let some time pass."""
        done: list[bool] = []
        self.later(ms, lambda: done.append(True))
        self.run(lambda: bool(done), ms)

    def finish(self, limit_ms: int = 3_600_000) -> None:
        """Run until every job is over and everybody knows and agrees; then check what must hold at the end."""
        self.run(lambda: self.settled() and self._agreed(), limit_ms)
        self.check()

    def settled(self) -> bool:
        if len(self.offers) < self.jobs_wanted:
            return False
        return all((job := self.find_job(offer)) is not None and job.over for offer in self.offers)

    def _agreed(self) -> bool:
        living = self.living()
        if any(node.core is None for node in self.nodes.values() if not node.habits.vanishes):
            return False
        roots = {node.replica.frontier_root() for node in living}
        return (
            len(roots) == 1 and not due(living[0].replica, living[0].feed) and not living[0].replica.fold.parked_feeds()
        )

    @property
    def faulty(self) -> bool:
        return self.ms < self.calm_ms

    def chance(self, likely: float) -> bool:
        return self.faulty and self.rng.random() < likely

    # --- what the loop does ----------------------------------------------------------------------------------------
    def tell(self, node: Node, news: News) -> Step | None:
        """Hand news to a core, record the step, then perform it; None when the process died before it could answer."""
        if node.core is None:
            return None
        fate = self.crash_at.get((node.name, node.steps))
        if fate is None and self.chance(self.crash):
            fate = self.rng.choice(("before", "after"))
        node.steps += 1
        life = node.life
        step = node.core.handle(news, Now(self.ms, self.ms + 1_700_000_000_000))
        node.core.check_invariants()
        self.on_step(node, news, step)
        if fate == "before":
            self._die(node)
            return None
        self._record(node, step)
        if fate == "after":
            self._die(node)
            return None
        self.story += step.story
        for event in step.events:
            self._broadcast(node, event)
        for effect in step.effects:
            self._perform(node, effect)
        assert node.life == life
        self._plan_wake(node)
        if any(isinstance(event.data, Commit) for event in step.events) and node.habits.withholds:
            assert not any(isinstance(effect, SendOpen) for effect in step.effects)
        return step

    def _record(self, node: Node, step: Step) -> None:
        plan = node.replica.plan(step.events, bounded=False)
        assert plan.stored == tuple(step.events), f"own events do not extend the own feed: {plan.refusals}"
        self._store(node, plan.stored)
        node.replica.apply(plan)
        for key, fact in step.facts.items():
            if fact is None:
                node.facts.pop(key, None)
            else:
                node.facts[key] = fact
        self._plan_ack(node)

    def _store(self, node: Node, events: Iterable[Event]) -> None:
        for event in events:
            node.disk.setdefault(event.feed, []).append(event)

    def _plan_wake(self, node: Node) -> None:
        core = node.core
        if core is None or core.wake_at is None:
            return
        at, life = max(core.wake_at, self.ms), node.life

        def wake() -> None:
            if node.core is None or node.life != life or node.core.wake_at is None or node.core.wake_at > self.ms:
                return
            ms, count = node.woken
            node.woken = (self.ms, count + 1 if ms == self.ms else 0)
            assert node.woken[1] < SPINS_MAX, f"{node.name} spins at {self.ms}"
            self.tell(node, Woke())

        self.later(at - self.ms, wake)

    def ingest(self, node: Node, events: Iterable[Event]) -> None:
        """Store events of others, then tell the core those that concern it."""
        if node.core is None:
            return
        plan = node.replica.plan(events)
        assert not plan.refusals, plan.refusals
        self._store(node, plan.stored)
        node.replica.apply(plan)
        life = node.life
        for event in plan.stored:
            if event.feed != node.feed and event.kind in CONCERN_THE_CORE and node.life == life:
                self.tell(node, Heard(event))
        if plan.stored and node.life == life:
            self._plan_ack(node)

    def _plan_ack(self, node: Node) -> None:
        if node is not next(iter(self.nodes.values())) or node.ack_planned:
            return
        node.ack_planned, life = True, node.life

        def ack() -> None:
            if node.life == life and node.core is not None:
                node.ack_planned = False
                entries = due(node.replica, node.feed)
                if entries:
                    self.tell(node, AcksDue(entries))

        self.later(ACK_MS, ack)

    # --- living and dying ------------------------------------------------------------------------------------------
    def living(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None]

    def _die(self, node: Node) -> None:
        self.stop(node)
        self.later(self.rng.choice((50, 500, 5_000, 20_000)) if self.crash else 500, lambda: self._start(node))

    def stop(self, node: Node) -> None:
        """End a process, as kill -9 does."""
        node.core, node.running, node.ack_planned = None, set(), False
        node.life += 1

    def _start(self, node: Node) -> None:
        """As daemon/app.py and Loop.serve: rebuild from disk, tell what is stored, resume."""
        first = next(iter(self.nodes.values()))
        node.replica = Replica(NETID, frozenset((first.feed,)), 1)
        for events in node.disk.values():
            node.replica.restore(events)
        head = node.replica.heads[node.feed]
        author = Author(node.key, NETID, node.feed, seq=head.seq, head=head.id)
        core = NodeCore(
            author, node.capacity, lease_ms=LEASE_MS, operators=node.replica.operators, firm=node.replica.firm
        )
        core.restore({key: raw for key, raw in node.facts.items() if key.startswith(FACT_PREFIXES)})
        node.core, life = core, node.life
        for event in self._stored(node):
            if node.life == life:
                self.tell(node, Heard(event))
        if node.life == life and self.tell(node, Resumed()) is not None:
            self._plan_ack(node)
            for other in self.living():
                if other is not node:
                    self._deliver(node, PeerCame(other.feed))
                    self._deliver(other, PeerCame(node.feed))

    def _stored(self, node: Node) -> list[Event]:
        stored = causal(event for feed, events in node.disk.items() if feed != node.feed for event in events)
        stored = [event for event in stored if event.kind in CONCERN_THE_CORE]
        over = {event.data.offer for event in stored if isinstance(event.data, Close)}
        return [
            event
            for event in stored
            if (event.id if isinstance(event.data, Offer) else getattr(event.data, "offer", b"")) not in over
        ]

    # --- the network -----------------------------------------------------------------------------------------------
    def _delay(self) -> int:
        return self.rng.randrange(5, 2_000) if self.chance(0.1) else self.rng.randrange(5, HOLD_MS)

    def _deliver(self, node: Node, news: News) -> None:
        life = node.life
        self.later(self._delay(), lambda: self.tell(node, news) if node.life == life else None)

    def _broadcast(self, node: Node, event: Event) -> None:
        for other in self.nodes.values() if self.gossip else ():
            if other is not node and not self.chance(self.drop):
                for _ in range(2 if self.chance(self.repeat) else 1):
                    self.later(self._delay(), lambda other=other: self.ingest(other, [event]))

    def _sync(self, node: Node) -> None:
        """One round of pulling from one living neighbour, for ever."""
        others = [other for other in self.living() if other is not node]
        if node.core is not None and others and not self.chance(self.drop):
            other = self.rng.choice(others)
            for feed, events in list(other.disk.items()):
                head = node.replica.heads.get(feed)
                new = events[head.seq + 1 if head else 0 :]
                if new:
                    self.ingest(node, new)
        self.later(SYNC_MS, lambda: self._sync(node))

    def _ask(self, node: Node, feed: bytes, news: News, answered: Callable[[Reply | None], News | None]) -> None:
        """A request to another node, and its reply or none; either may be lost, the request may arrive twice."""
        other, life = self.by_feed[feed], node.life

        def answer(reply: Reply | None) -> None:
            told = answered(reply)
            if node.life == life and told is not None:
                self.tell(node, told)

        def arrive() -> None:
            step = self.tell(other, news)
            if step is None or self.chance(self.drop):
                self.later(REQUEST_MS, lambda: answer(None))
                return
            if self.chance(self.repeat):
                self._deliver(other, news)
            reply = step.reply
            if reply is not None:
                reply = decode(encode(reply), type(reply), size_max=REQUEST_BYTES_MAX)
            self.later(self._delay(), lambda: answer(reply))

        if self.chance(self.drop):
            self.later(REQUEST_MS, lambda: answer(None))
        else:
            self.later(self._delay(), arrive)

    # --- what the errands do ---------------------------------------------------------------------------------------
    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case FetchDescriptor(offer, _, digest):
                self._deliver(node, DescriptorHeld(offer, self.descriptors[digest], True))
            case SendClaim(owner, claim):
                self._ask(node, owner, ClaimHeard(wired(claim)), lambda reply: None)
            case SendAssign(worker, _, raw):
                assignment, note = open_note(raw, Assignment, Tag.ASSIGNMENT, NETID, size_max=EVENT_BYTES_MAX)
                check_note(note, node.key.public)
                self._assign(node, effect, worker, AssignmentHeard(assignment, note.digest))
            case SendRenew(owner, offer, entries):
                news: News = RenewalHeard(node.feed, wired(AskRenew(offer, entries)))
                self._ask(node, owner, news, lambda reply: Answered(effect, reply))
            case SendOpen(owner, offer, notes):
                if not node.habits.withholds:
                    news = OpeningsHeard(node.feed, wired(AskOpen(offer, notes)))
                    self._ask(node, owner, news, lambda reply: Answered(effect, reply))
            case SendGiveUp(owner, ask):
                self._ask(node, owner, GaveUp(node.feed, wired(ask)), lambda reply: Answered(effect, reply))
            case FetchOutputs():
                self._fetch_outputs(node, effect)
            case Run():
                self._run(node, effect)
            case StopRun(execution):
                node.running.discard(execution)
            case Spread():
                pass

    def _assign(self, node: Node, effect: SendAssign, worker: bytes, news: News) -> None:
        if self.by_feed[worker].habits.refuses:
            answer = Answered(effect, Refused("busy", "room for 0 more tasks now"))
            self._deliver(node, answer)
        else:
            self._ask(node, worker, news, lambda reply: Answered(effect, reply))

    def _fetch_outputs(self, node: Node, effect: FetchOutputs) -> None:
        holder = self.by_feed[effect.worker]
        exit_code = None if holder.core is None or holder.habits.hides else holder.outputs.get(effect.root)
        if exit_code is None or self.chance(self.drop):
            why = "nobody has them"
            self._deliver(node, OutputsMissing(effect.offer, effect.task, effect.root, effect.worker, why))
        else:
            node.outputs[effect.root] = exit_code
            self._deliver(node, OutputsHeld(effect.offer, effect.task, effect.root, exit_code))

    def _run(self, node: Node, effect: Run) -> None:
        habits = node.habits
        if habits.vanishes:
            self.later(0, lambda: self.stop(node))
            return
        if effect.execution in node.running:
            return
        node.running.add(effect.execution)
        offer, task, _ = effect.execution
        root = blob_id(habits.forges + offer + bytes([task % 256])) if habits.forges else true_root(offer, task)
        life = node.life

        def end() -> None:
            if node.life != life or effect.execution not in node.running:
                return
            node.running.discard(effect.execution)
            if habits.breaks:
                self.tell(node, RunBroke(effect.execution, "engine", "the engine\nbroke \u001b[1m it"))
                return
            node.outputs[root] = habits.exit_code
            self.tell(node, RunEnded(effect.execution, root, habits.exit_code, 10**9))

        if not habits.stalls:
            self.later(self.rng.randrange(habits.run_ms // 2, habits.run_ms), end)

    # --- looking ---------------------------------------------------------------------------------------------------
    def find_job(self, offer: bytes) -> Job | None:
        """A job, in the book of whoever owns it and is running."""
        for node in self.living():
            if node.core is not None and (job := node.core.owner.book.jobs.get(offer)) is not None:
                return job
        return None

    def job(self, offer: bytes) -> Job:
        job = self.find_job(offer)
        assert job is not None
        return job

    def name(self, feed: bytes) -> str:
        return self.by_feed[feed].name

    def told(self, *steps: str) -> list[str]:
        """The story in short lines, of these steps or of all: `step task name: text`, results as `#`."""
        lines = []
        for line in self.story:
            if not steps or line.step in steps:
                task = "-" if line.task is None else str(line.task)
                text = re.sub(r"\b[0-9a-f]{12}\b", "#", line.text)
                lines.append(f"{line.step} {task} {self.name(line.feed)}: {text}")
        return lines

    def credits(self) -> dict[str, int]:
        """Micro-credits of each living node, by the first one's ledger, in all colours."""
        fold = self.living()[0].replica.fold
        return {
            node.name: sum(amount for (account, _), amount in fold.net.items() if account == node.feed)
            for node in self.nodes.values()
        }

    def check(self) -> None:
        """What must hold once everything has come to rest."""
        living = self.living()
        assert len({node.replica.fold.state_root() for node in living}) == 1, "replicas differ"
        for node in living:
            node.replica.check_invariants()
            faults = node.replica.fold.faults
            assert not faults, faults
            assert node.core is not None
            assert len(node.core.worker.duties) == 0, f"{node.name} keeps duties of jobs that are over"
            assert not node.core.owner.book.in_hand
        earned = dict.fromkeys(self.nodes, 0)
        for offer in self.offers:
            self._check_job(self.job(offer), living[0].replica, earned)
        assert self.credits() == earned

    def _check_job(self, job: Job, replica: Replica, earned: dict[str, int]) -> None:
        state = replica.fold.offers[job.offer_id]
        assert not state.open
        assert len(state.ended) == len(job.tasks)
        for task in job.tasks:
            ended = state.ended[task.index]
            assert (ended.root is not None) == (task.state.name == "SETTLED")
            assert ended.root in (None, task.root)
            for execution in task.executions:
                if execution.state.name == "SETTLED":
                    earned[self.name(execution.worker)] += job.offer.price


def wired(message: T) -> T:
    """A message as it arrives: encoded, and decoded under all its bounds."""
    return decode(encode(message), type(message), size_max=REQUEST_BYTES_MAX)
