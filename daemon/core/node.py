"""Everything a node decides: news in, one step out.

`NodeCore.handle` is a pure function of what the core knows, the news and the moment. It neither reads a clock nor
sends anything: daemon/loop.py records the step, then performs it. Read owner.py and worker.py for the two halves.
"""

from typing import assert_never

from daemon.core.author import Author
from daemon.core.duties import DUTY_PREFIX, Duties
from daemon.core.owner import Firm, Owner
from daemon.core.ownerbook import IN_HAND, JOB_PREFIX, STATE_PREFIX, TASK_PREFIX, Book, Job
from daemon.core.states import TERMINAL_TASKS, ExecutionState
from daemon.core.step import (
    AcksDue,
    Answered,
    AssignmentHeard,
    Cancelled,
    Capacity,
    CapacityChanged,
    ClaimHeard,
    DescriptorHeld,
    Forked,
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

FACT_PREFIXES = (JOB_PREFIX, STATE_PREFIX, TASK_PREFIX, DUTY_PREFIX)


class NodeCore:
    """The decisions of one node. `wake_at`: monotonic ms when it wants to be woken, None when nothing is timed.

    `firm` asks the ledger whether a commit has taken effect there: `Replica.firm`. The default, for a ledger without
    witnesses, is that what the core has heard of is firm.
    """

    def __init__(
        self,
        author: Author,
        capacity: Capacity,
        *,
        lease_ms: int,
        operators: Operators,
        firm: Firm = lambda commit: True,
    ) -> None:
        self._author = author
        self.owner = Owner(author, Book(), lease_ms, operators, firm)
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
                self.worker.resume(step, now)
                self.owner.resume(step)
            case Woke():
                pass
            case Published():
                self.owner.published(news, step, now)
            case Cancelled():
                self.owner.cancelled(news, step, now)
            case Heard(event):
                self._heard(event, step, now)
            case Forked(feed):
                self.owner.forked(feed, step, now)
            case AcksDue(entries):
                self._author.append(step, Ack(entries), now)
            case DescriptorHeld():
                self.worker.descriptor_held(news, now)
            case ClaimHeard():
                self.owner.claim_heard(news, step, now)
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
                self.worker.run_ended(news)
            case RunBroke():
                self.worker.run_broke(news, step)
            case OutputsHeld():
                self.owner.outputs_held(news)
            case OutputsMissing():
                self.owner.outputs_missing(news, step, now)
            case Answered(SendAssign(), _):
                self.owner.assign_answered(news, step, now)
            case Answered():
                self.worker.answered(news, step, now)
            case PeerCame(feed):
                self.worker.peer_came(feed, step, now)
            case CapacityChanged(capacity):
                self.worker.capacity_changed(capacity, step, now)
            case _:
                assert_never(news)

    def _heard(self, event: Event, step: Step, now: Now) -> None:
        match event.data:
            case Offer():
                self.worker.offered(event, step, now)
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
        book, duties = self.owner.book, self.worker.duties
        assert book.open == {offer: job for offer, job in book.jobs.items() if not job.over}
        for job in book.jobs.values():
            _check_job(job)
        held = [key[1] for job in book.open.values() for key in job.patience]
        assert sorted(book.in_hand.elements()) == sorted(held), "the count of executions in hand is wrong"
        duties.check_invariants()
        assert book.wake_at is None or not book.wake_at < 0


def _check_job(job: Job) -> None:
    assert len(job.tasks) == job.offer.tasks
    assert job.unfinished == sum(task.state not in TERMINAL_TASKS for task in job.tasks)
    assert job.over == (job.unfinished == 0), "a job ended before its tasks, or did not end with them"
    for task in job.tasks:
        if not task.executions:
            continue
        workers = [execution.worker for execution in task.executions]
        assert len(workers) == len(set(workers)), "a node got a task twice"
        assert task.sealed_count() <= job.offer.executions_max, "more commits sealed than the offer allows"
        for execution in task.executions:
            assert execution.state not in _AFTER_COMMIT or execution.commit, "a commit is missing"
            assert (execution.state in IN_HAND) == ((task.index, execution.worker) in job.patience)
            assert (
                job.over or job.look or (execution.state in _LEASED) == ((task.index, execution.worker) in job.leases)
            ), "a lease nobody watches"
        assert task.state not in TERMINAL_TASKS or all(e.state in _ENDED for e in task.executions)


_AFTER_COMMIT = frozenset({ExecutionState.COMMITTED, ExecutionState.SEALED, ExecutionState.OPENED})
_LEASED = frozenset({*IN_HAND, ExecutionState.SEALED})
_ENDED = frozenset({ExecutionState.SETTLED, ExecutionState.DIFFERED, ExecutionState.LOST})
