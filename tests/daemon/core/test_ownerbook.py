"""What an owner remembers: claims, leases, and which tasks lack executors."""

from daemon.core.matching import terms_of
from daemon.core.ownerbook import BUSY_MS, BUSY_MS_MAX, STATE_PREFIX, STORY_LINES_MAX, Book, Job, story_fact
from daemon.core.states import ExecutionState
from daemon.core.step import Now, Step
from nexapod.hashing import blob_id
from nexapod.limits import CLAIM_VALID_MS, CLAIMS_PER_OFFER_MAX
from nexapod.messages import Claim
from tests.daemon.core.simulation import job_of

OFFER = blob_id(b"offer")
LEASE_MS = 60_000


def feed(number: int) -> bytes:
    return blob_id(b"feed %d" % number)


def claim(number: int, seq: int = 1, valid_ms: int = CLAIM_VALID_MS) -> Claim:
    return Claim(feed(number), "x", 2, seq, valid_ms, OFFER)


def book_of(tasks: int = 3) -> tuple[Book, Job]:
    book, resolved = Book(), job_of(tasks=tasks)
    job = book.add(OFFER, terms_of(resolved, blob_id(b"d"), blob_id(b"s")), resolved, blob_id(b"seed"), Now(0, 0))
    book.wind(job, LEASE_MS, Now(0, 0))
    for task in job.tasks:
        job.sort(task)
    return book, job


def test_a_claim_lasts_no_longer_than_usual_and_the_newest_counts() -> None:
    book, job = book_of()
    book.claimed(job, claim(1, seq=5, valid_ms=2**62), Now(0, 0))
    book.claimed(job, claim(1, seq=4), Now(50_000, 0))
    assert [c.seq for c in book.standing(job, Now(CLAIM_VALID_MS - 1, 0))] == [5]
    assert book.standing(job, Now(CLAIM_VALID_MS, 0)) == []


def test_a_full_table_of_claims_takes_new_ones_once_old_ones_ended() -> None:
    book, job = book_of()
    for number in range(CLAIMS_PER_OFFER_MAX + 5):
        book.claimed(job, claim(number), Now(0, 0))
    assert len(job.claims) == CLAIMS_PER_OFFER_MAX
    book.claimed(job, claim(9_999), Now(CLAIM_VALID_MS, 0))
    assert list(job.claims) == [feed(9_999)]


def test_who_says_no_is_left_alone_for_longer_each_time() -> None:
    book, job = book_of()
    book.claimed(job, claim(1), Now(0, 0))
    pauses = []
    for _ in range(6):
        book.put_off(job, feed(1), Now(0, 0))
        pauses.append(job.put_off.next_at)
        assert book.standing(job, Now(0, 0)) == []
        job.put_off.clear()
    assert pauses == [BUSY_MS, 2 * BUSY_MS, 4 * BUSY_MS, 8 * BUSY_MS, BUSY_MS_MAX, BUSY_MS_MAX]
    assert len(list(book.standing(job, Now(0, 0)))) == 1
    book.forked.add(feed(1))
    assert book.standing(job, Now(0, 0)) == []


def test_a_lease_is_renewed_but_not_for_ever() -> None:
    book, job = book_of()
    task = job.tasks[0]
    book.hand_out(job, task, feed(1), LEASE_MS, Now(0, 0))
    (execution,) = task.executions
    until = job.patience[0, feed(1)]
    book.renew(job, task, execution, LEASE_MS, Now(30_000, 0))
    assert job.leases.at((0, feed(1))) == 90_000
    book.renew(job, task, execution, LEASE_MS, Now(until - 10, 0))
    assert job.leases.at((0, feed(1))) == until
    assert book.in_hand == {feed(1): 1}
    book.move(job, task, execution, ExecutionState.COMMITTED, LEASE_MS, Now(30_000, 0))
    assert (0, feed(1)) not in job.leases
    assert not book.in_hand


def test_tasks_that_lack_the_same_are_kept_together() -> None:
    book, job = book_of()
    assert [list(tasks) for tasks in job.vacant.values()] == [[0, 1, 2]]
    book.hand_out(job, job.tasks[1], feed(1), LEASE_MS, Now(0, 0))
    job.sort(job.tasks[1])
    one = frozenset((feed(1),))
    assert {served: list(tasks) for served, tasks in job.vacant.items()} == {
        (frozenset(), frozenset()): [0, 2],
        (one, one): [1],
    }
    book.hand_out(job, job.tasks[1], feed(2), LEASE_MS, Now(0, 0))
    job.sort(job.tasks[1])
    assert len(job.vacant) == 1
    book.unassign(job, job.tasks[1], job.tasks[1].executions[0])
    job.sort(job.tasks[1])
    assert job.served[1] == (frozenset((feed(2),)), frozenset((feed(2),)))


def test_only_what_changed_is_written() -> None:
    book, job = book_of(tasks=100)
    step = Step(offer=OFFER)
    book.record(step, Now(0, 0))
    assert len(step.facts) == 1  # the job itself: nothing has happened to its tasks
    step = Step()
    book.tell(step, job, "assign", job.tasks[7], feed(1), "round 0")
    book.hand_out(job, job.tasks[7], feed(1), LEASE_MS, Now(0, 0))
    book.record(step, Now(0, 0))
    assert len(step.facts) == 3
    assert story_fact(OFFER, 0) in step.facts
    assert STATE_PREFIX + OFFER in step.facts
    again = Step()
    book.record(again, Now(0, 0))
    assert again.facts == {}


def test_a_long_story_keeps_its_end() -> None:
    book, job = book_of()
    job.story_lines = STORY_LINES_MAX
    step = Step()
    book.tell(step, job, "run", job.tasks[0], feed(1), "told, not kept")
    book.tell(step, job, "close", None, feed(1), "settled")
    book.record(step, Now(0, 0))
    assert len([key for key in step.facts if key.startswith(b"story/")]) == 1
