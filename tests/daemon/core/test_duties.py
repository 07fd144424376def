"""Duties as data: what is recorded, and when they are due."""

from daemon.core.duties import DUTY_PREFIX, Duties, Duty
from daemon.core.states import DutyState
from daemon.core.step import Now, Step
from nexapod.hashing import blob_id

OFFER, OWNER = blob_id(b"offer"), blob_id(b"owner")


def duty(task: int, lease_ms: int = 60_000) -> Duty:
    return Duty(OFFER, task, 0, OWNER, blob_id(b"assignment"), lease_ms)


def recorded(duties: Duties) -> dict[bytes, bytes | None]:
    step = Step()
    duties.record(step)
    return step.facts


def test_the_life_of_a_duty() -> None:
    duties, mine = Duties(), duty(3)
    duties.take(mine, Now(0, 0))
    assert (duties.unfinished(), duties.count_of(OWNER), len(duties)) == (1, 1, 1)
    assert duties.due.next_at == 20_000
    duties.move(mine, DutyState.RUNNING)
    mine.commit = blob_id(b"commit")
    duties.move(mine, DutyState.COMMITTED)
    assert duties.due.next_at is None
    duties.move(mine, DutyState.SEALED)
    assert duties.due.due(0) == [mine.key]
    duties.move(mine, DutyState.OPENED)
    assert duties.of_task(OFFER, 3) is mine
    duties.drop(mine)
    assert (duties.of_offer(OFFER), duties.count_of(OWNER), len(duties)) == ([], 0, 0)
    assert duties.days.next_at is None


def test_a_duty_that_came_and_went_within_one_step_leaves_nothing() -> None:
    duties = Duties()
    duties.take(duty(1), Now(0, 0))
    assert list(recorded(duties)) == [DUTY_PREFIX + OFFER + bytes((0, 0, 0, 1, 0, 0, 0, 0))]
    assert recorded(duties) == {}
    duties.drop(duties.of_offer(OFFER)[0])
    assert list(recorded(duties).values()) == [None]


def test_what_is_restored_is_what_was_recorded() -> None:
    duties = Duties()
    for task in range(4):
        duties.take(duty(task), Now(0, 0))
    duties.move(duties.of_offer(OFFER)[2], DutyState.RUNNING)
    facts = {key: raw for key, raw in recorded(duties).items() if raw is not None}
    restored = Duties()
    restored.restore(facts)
    restored.check_invariants()
    assert list(restored.all()) == list(duties.all())
    assert restored.due.due(0) == [d.key for d in duties.all()]
    assert recorded(restored) == {}
