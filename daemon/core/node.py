"""Everything a node decides: news in, one step out.

`NodeCore.handle` is a pure function of what the core knows, the news and the moment. It neither reads a clock nor
sends anything: daemon/loop.py records the step, then performs it. Read owner.py and worker.py for the two halves.
"""

from collections.abc import Iterable

from daemon.core.author import Author
from daemon.core.duties import DUTY_PREFIX, Duties
from daemon.core.owner import Owner
from daemon.core.ownerbook import JOB_PREFIX, TASK_PREFIX, Book
from daemon.core.states import TERMINAL_TASKS, DutyState, ExecutionState
from daemon.core.step import (
    AcksDue,
    Answered,
    AssignmentHeard,
    Cancelled,
    Capacity,
    CapacityChanged,
    ClaimHeard,
    DescriptorHeld,
    GaveUp,
    Heard,
    News,
    Now,
    OpeningsHeard,
    OutputsHeld,
    OutputsMissing,
    PeerCame,
    Progressed,
    Published,
    RenewalHeard,
    Resumed,
    RunBroke,
    RunEnded,
    SendAssign,
    Step,
    Woke,
)
from daemon.core.worker import Worker
from ledger.verdict import Operators
from nexapod.events import Event
from nexapod.messages import Ack, Close, Commit, Offer, Seal, Settle, Void

FACT_PREFIXES = (JOB_PREFIX, TASK_PREFIX, DUTY_PREFIX)


class NodeCore:
    """The decisions of one node. `wake_at`: monotonic ms when it wants to be woken, None when nothing is timed."""

    def __init__(self, author: Author, capacity: Capacity, *, lease_ms: int, operators: Operators) -> None:
        self._author = author
        self.owner = Owner(author, Book(), lease_ms, operators)
        self.worker = Worker(author, Duties(), capacity)

    def restore(self, facts: dict[bytes, bytes]) -> None:
        """Rebuild from the record; call once, before the first news."""
        self.owner.book.restore(facts)
        self.worker.duties.restore(facts)

    @property
    def wake_at(self) -> int | None:
        times = [at for at in (self.owner.book.wake_at, self.worker.wake_at) if at is not None]
        return min(times, default=None)

    def handle(self, news: News, now: Now) -> Step:
        """Take one piece of news and make every progress that is possible after it."""
        step = Step()
        self._take(news, step, now)
        self.owner.advance(step, now)
        self.worker.advance(step, now)
        return step

    def _take(self, news: News, step: Step, now: Now) -> None:
        match news:
            case Resumed():
                self.worker.resume()
            case Woke():
                pass
            case Published():
                self.owner.published(news, step, now)
            case Cancelled():
                self.owner.cancelled(news, step, now)
            case Heard(event):
                self._heard(event, step, now)
            case AcksDue(entries):
                self._author.append(step, Ack(entries), now)
            case DescriptorHeld():
                self.worker.descriptor_held(news)
            case ClaimHeard():
                self.owner.claim_heard(news, now)
            case AssignmentHeard():
                self.worker.assigned(news, step, now)
            case RenewalHeard():
                self.owner.renewed(news, step, now)
            case OpeningsHeard():
                self.owner.opened(news, step, now)
            case GaveUp():
                self.owner.gave_up(news, step, now)
            case Progressed():
                self.worker.progressed(news)
            case RunEnded():
                self.worker.run_ended(news, step, now)
            case RunBroke():
                self.worker.run_broke(news, step)
            case OutputsHeld():
                self.owner.outputs_held(news, step, now)
            case OutputsMissing():
                self.owner.outputs_missing(news, step, now)
            case Answered(SendAssign(), _):
                self.owner.assign_answered(news, step, now)
            case Answered():
                self.worker.answered(news, step, now)
            case PeerCame(feed):
                self.worker.peer_came(feed)
            case CapacityChanged(capacity):
                self.worker.capacity_changed(capacity)

    def _heard(self, event: Event, step: Step, now: Now) -> None:
        match event.data:
            case Offer():
                self.worker.offered(event, step)
            case Commit():
                self.owner.committed(event, step, now)
            case Seal():
                self.worker.sealed(event, step, now)
            case Settle() | Void() | Close():
                self.worker.ended(event, step)
            case _:
                pass  # everything else concerns the ledger alone

    def check_invariants(self) -> None:
        """What must hold after every step; a breach is a bug, never a peer's doing.

        Raises:
            AssertionError: it does not hold.
        """
        for job in self.owner.book.jobs.values():
            assert len(job.tasks) == job.offer.tasks
            for task in job.tasks:
                workers = [execution.worker for execution in task.executions]
                assert len(workers) == len(set(workers)), "a node got a task twice"
                assert not job.over or task.state in TERMINAL_TASKS, "a job ended before its tasks"
                for execution in task.executions:
                    committed = execution.state in _AFTER_COMMIT
                    assert not committed or execution.commit, "a commit is missing"
        running = _count(duty.state == DutyState.RUNNING for duty in self.worker.duties.all())
        assert running <= max(self.worker.capacity.slots, 0) or not self.worker.capacity.willing


_AFTER_COMMIT = frozenset({ExecutionState.COMMITTED, ExecutionState.SEALED, ExecutionState.OPENED})


def _count(flags: Iterable[bool]) -> int:
    return sum(flags)
