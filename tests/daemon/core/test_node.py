"""A core as a whole: what it records is what it knows, whenever the process ends."""

import pytest

from daemon.core.author import Author
from daemon.core.node import FACT_PREFIXES, NodeCore
from daemon.core.ownerbook import Book, Job
from daemon.core.step import AcksDue, Now, Resumed, Step, Woke
from nexapod.events import make_genesis
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.messages import Ack, AckEntry
from tests.daemon.core.simulation import CAPACITY, NETID, Node, World, job_of


def recorded_part(job: Job) -> tuple[object, ...]:
    tasks = [
        (task.index, task.state, task.round, task.sealed, task.executions, task.root, task.exit_code)
        for task in job.tasks
    ]
    return (job.offer, job.resolved, job.seed, job.created_ms, job.state, job.cancelled, job.story_lines, tasks)


class Suspicious(World):
    """After every record, what would be restored is compared with what the core knows."""

    compared = 0

    def _record(self, node: Node, step: Step) -> None:
        super()._record(node, step)
        assert node.core is not None
        pen = Author(node.key, NETID, node.feed, seq=0, head=node.feed)
        core = NodeCore(pen, CAPACITY, lease_ms=1, operators=node.replica.operators)
        core.restore({key: raw for key, raw in node.facts.items() if key.startswith(FACT_PREFIXES)})
        self.compare(node.core.owner.book, core.owner.book)
        assert list(core.worker.duties.all()) == sorted(node.core.worker.duties.all(), key=lambda duty: duty.key)
        self.compared += 1

    def compare(self, book: Book, restored: Book) -> None:
        assert {offer: recorded_part(job) for offer, job in book.jobs.items()} == {
            offer: recorded_part(job) for offer, job in restored.jobs.items()
        }
        assert list(book.jobs) == list(restored.jobs)
        assert (book.open.keys(), book.in_hand) == (restored.open.keys(), restored.in_hand)
        assert [job.unfinished for job in book.jobs.values()] == [job.unfinished for job in restored.jobs.values()]


@pytest.mark.parametrize("seed", range(8))
def test_what_is_recorded_is_what_is_known(seed: int) -> None:
    world = Suspicious(seed, drop=0.1, repeat=0.1, crash=0.01, calm_ms=20_000)
    world.node("owner")
    for name, habits in (("ann", {}), ("bob", {}), ("cem", {}), ("liar", {"forges": b"x"})):
        world.node(name, **habits)
    world.crash, crash = 0, world.crash
    world.publish("owner", job_of(tasks=4))
    world.pass_ms(1_000)
    world.publish("owner", job_of("fold-2"))
    world.crash = crash
    world.finish()
    assert world.compared > 100


def core_of(name: bytes = b"witness") -> NodeCore:
    key = Key.from_seed(blob_id(name))
    genesis = make_genesis(key, NETID, blob_id(b"next"))
    author = Author(key, NETID, genesis.id, seq=0, head=genesis.id)
    return NodeCore(author, CAPACITY, lease_ms=60_000, operators=lambda commit: frozenset((commit.worker,)))


def test_a_core_with_nothing_to_do_wants_nothing() -> None:
    core = core_of()
    for news in (Resumed(), Woke(), Woke()):
        assert core.handle(news, Now(1, 1)) == Step()
    assert core.wake_at is None


def test_a_witness_writes_what_is_due() -> None:
    entries = (AckEntry(blob_id(b"feed"), 3, blob_id(b"event")),)
    (event,) = core_of().handle(AcksDue(entries), Now(1, 1)).events
    assert event.data == Ack(entries)
