"""What happens to a job, told as the lines its owner reads: one story each, on a mesh in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from daemon.core.states import WALK, ExecutionState, JobState, TaskState
from daemon.core.step import (
    CapacityChanged,
    FetchDescriptor,
    FetchOutputs,
    Forked,
    Heard,
    News,
    Now,
    PeerCame,
    Published,
    Resumed,
    Run,
    SendAssign,
    SendClaim,
    Step,
    Woke,
)
from ledger.fold import Standing
from nexapod.messages import Commit, Offer, Pay, Refused, Seal, Settle, Verdict, Void
from tests.daemon.core.simulation import CAPACITY, Node, World, job_of, true_root

PRICE = 1_000_000
MINUTE_MS = 60_000


def mesh(*names: str, **habits: Any) -> World:
    """An owner, who is the witness too, and workers; `habits` of single ones by name."""
    world = World()
    world.node("owner")
    for name in names:
        world.node(name, **habits.get(name, {}))
    return world


def executions(world: World, offer: bytes, task: int = 0) -> dict[str, ExecutionState]:
    return {world.name(e.worker): e.state for e in world.job(offer).tasks[task].executions}


def until_told(world: World, step: str) -> None:
    world.run(lambda: bool(world.told(step)), MINUTE_MS)


# --- the walk ---------------------------------------------------------------------------------------------------------
WALK_TOLD = """
offer - owner: 1 task, 2 replicas each
claim - ann: stands ready with 4 slots
claim - bob: stands ready with 4 slots
assign 0 bob: round 0
run 0 bob: round 0
assign 0 ann: round 0
run 0 ann: round 0
commit 0 bob: bound itself to a result
commit 0 ann: bound itself to a result
seal 0 owner: 2 commits of round 0
open 0 ann: result #
open 0 bob: result #
settle 0 owner: 2 executions agree on #
close - owner: settled
"""


def test_the_walk_of_one_job() -> None:
    world = mesh("ann", "bob")
    offer = world.publish("owner", job_of())
    world.finish()
    assert sorted(world.told()) == sorted(WALK_TOLD.split("\n")[1:-1])
    steps = [line.step for line in world.story]
    assert tuple(dict.fromkeys(steps)) == WALK
    assert steps[-5:] == ["seal", "open", "open", "settle", "close"]
    assert world.job(offer).state == JobState.SETTLED
    assert world.credits() == {"owner": 0, "ann": PRICE, "bob": PRICE}
    assert world.nodes["ann"].replica.fold.offers[offer].ended[0].root == true_root(offer, 0)


def test_the_walk_without_any_gossip() -> None:
    world = mesh("ann", "bob")
    world.gossip = False
    world.publish("owner", job_of(tasks=3))
    world.finish()
    assert world.credits() == {"owner": 0, "ann": 3 * PRICE, "bob": 3 * PRICE}


def test_an_array_of_eight_tasks() -> None:
    world = mesh("ann", "bob", "cem", "dora")
    offer = world.publish("owner", job_of(tasks=8))
    world.finish()
    assert [task.state for task in world.job(offer).tasks] == [TaskState.SETTLED] * 8
    assert len(world.told("settle")) == 8
    assert sum(world.credits().values()) == 16 * PRICE
    assert len({frozenset(executions(world, offer, task)) for task in range(8)}) > 1  # not always the same two


def test_two_jobs_share_the_slots_of_a_worker() -> None:
    world = mesh("ann", "bob")
    most: list[int] = []

    def count(node: Node, news: News, step: Step) -> None:
        if node.name == "owner":
            assert node.core is not None
            most.append(max(node.core.owner.book.in_hand.values(), default=0))

    world.on_step = count
    world.publish("owner", job_of(tasks=6))
    world.publish("owner", job_of("fold-2", tasks=6))
    world.finish()
    assert max(most) == CAPACITY.slots * 2
    assert world.told("refuse") == []


@pytest.mark.parametrize("what", ["settled", "cancelled"])
def test_an_array_larger_than_one_event(what: str) -> None:
    world = World()
    world.node("owner")
    for name in ("ann", "bob"):
        world.node(name, replace(CAPACITY, slots=200), run_ms=10)
    offer = world.publish("owner", job_of(tasks=260))
    if what == "cancelled":
        until_told(world, "run")
        world.cancel("owner", offer)
    world.finish()
    kinds = [type(event.data) for event in world.nodes["owner"].disk[world.nodes["owner"].feed]]
    assert world.job(offer).state.name.lower() == what
    if what == "cancelled":
        assert kinds.count(Void) == 2
        assert world.credits() == {"owner": 0, "ann": 0, "bob": 0}
    else:
        assert kinds.count(Settle) >= 2
        assert world.credits() == {"owner": 0, "ann": 260 * PRICE, "bob": 260 * PRICE}


# --- who disagrees ----------------------------------------------------------------------------------------------------
def test_two_disagree_and_a_third_decides() -> None:
    world = mesh("ann", "liar", liar={"forges": b"x"})
    offer = world.publish("owner", job_of())
    until_told(world, "dispute")
    assert world.told("dispute") == ["dispute 0 owner: no agreement yet: one more execution"]
    world.node("cem")
    world.finish()
    assert world.told("dispute", "settle", "close")[1:] == [
        "settle 0 owner: 2 executions agree on #",
        "dispute 0 liar: its result differs from the others",
        "close - owner: settled",
    ]
    assert executions(world, offer) == {
        "ann": ExecutionState.SETTLED,
        "liar": ExecutionState.DIFFERED,
        "cem": ExecutionState.SETTLED,
    }
    assert world.credits() == {"owner": 0, "ann": PRICE, "liar": 0, "cem": PRICE}
    owner, liar = world.nodes["owner"].feed, world.nodes["liar"].feed
    assert world.nodes["ann"].replica.fold.reputation[liar, owner, "x86-64-v3"] == Standing(0, 1, 0)


def test_everybody_disagrees() -> None:
    liars = {name: {"forges": name.encode()} for name in ("a", "b", "c", "d", "e")}
    world = mesh(*liars, **liars)
    offer = world.publish("owner", job_of())
    world.finish()
    assert world.job(offer).state == JobState.DISPUTED
    assert world.told("void") == ["void 0 owner: disputed: 4 different results from 4 executions"]
    assert set(world.credits().values()) == {0}


def test_the_same_failure_on_both_fails_the_task_at_once() -> None:
    world = mesh("ann", "bob", "cem", ann={"exit_code": 3}, bob={"exit_code": 3}, cem={"exit_code": 3})
    offer = world.publish("owner", job_of())
    world.finish()
    assert world.job(offer).state == JobState.FAILED
    assert world.told("void") == ["void 0 owner: failed: the program ended with exit code 3"]
    assert world.job(offer).tasks[0].exit_code == 3
    assert world.nodes["ann"].replica.fold.offers[offer].ended[0].verdict == Verdict.FAILED
    assert set(world.credits().values()) == {0}


def test_one_replica_is_unverified_and_pays_nothing() -> None:
    world = mesh("ann")
    offer = world.publish("owner", job_of(redundancy={"replicas": 1, "max": 1}))
    world.finish()
    assert world.job(offer).state == JobState.SETTLED
    assert world.job(offer).offer.price == 0
    assert world.credits() == {"owner": 0, "ann": 0}


# --- who is there -----------------------------------------------------------------------------------------------------
def test_one_node_alone_fails_after_the_queue_time() -> None:
    world = World()
    world.node("owner")
    offer = world.publish("owner", job_of())
    published = world.ms
    world.finish()
    assert world.job(offer).state == JobState.FAILED
    assert world.told("void") == ["void 0 owner: unserved: no node took it in time"]
    assert 600_000 <= world.ms - published < 610_000


def test_a_second_node_is_missing() -> None:
    world = mesh("ann")
    offer = world.publish("owner", job_of())
    world.finish()
    assert world.job(offer).state == JobState.FAILED
    assert executions(world, offer) == {"ann": ExecutionState.LOST}  # the owner's own execution proves nothing
    assert world.credits() == {"owner": 0, "ann": 0}


def test_a_worker_that_vanishes_is_replaced() -> None:
    world = mesh("ann", "ghost", ghost={"vanishes": True})
    offer = world.publish("owner", job_of())
    until_told(world, "run")
    world.node("cem")
    world.finish()
    assert world.told("lost") == ["lost 0 ghost: its lease ran out"]
    assert executions(world, offer)["ghost"] == ExecutionState.LOST
    assert world.credits() == {"owner": 0, "ann": PRICE, "ghost": 0, "cem": PRICE}


def test_a_worker_that_never_ends_is_replaced_although_it_renews() -> None:
    world = mesh("ann", "idler", idler={"stalls": True})
    world.publish("owner", job_of())
    until_told(world, "run")
    world.node("cem")
    world.finish()
    assert world.told("lost") == ["lost 0 idler: its lease ran out"]
    assert world.credits() == {"owner": 0, "ann": PRICE, "idler": 0, "cem": PRICE}


def test_a_withheld_opening_leads_to_another_round() -> None:
    world = mesh("ann", "mute", mute={"withholds": True})
    offer = world.publish("owner", job_of())
    until_told(world, "seal")
    world.node("cem")
    world.finish()
    assert world.told("lost") == ["lost 0 mute: withheld its opening"]
    assert executions(world, offer) == {
        "ann": ExecutionState.SETTLED,
        "mute": ExecutionState.LOST,
        "cem": ExecutionState.SETTLED,
    }


def test_an_opening_that_comes_late_still_counts() -> None:
    world = mesh("ann", "bob")
    offer = world.publish("owner", job_of())
    until_told(world, "seal")
    bob = world.nodes["bob"]
    world.stop(bob)
    world.run(lambda: bool(world.told("lost")), 3 * MINUTE_MS)
    assert world.job(offer).tasks[0].state == TaskState.WAITING  # for a third node that does not exist
    world._start(bob)
    world.finish()
    assert world.told("lost") == ["lost 0 bob: withheld its opening"]
    assert world.job(offer).state == JobState.SETTLED
    assert world.credits() == {"owner": 0, "ann": PRICE, "bob": PRICE}


def test_withheld_commits_count_against_what_the_offer_allows() -> None:
    mutes = {name: {"withholds": True} for name in ("a", "b", "c", "d", "e")}
    world = mesh(*mutes, **mutes)
    offer = world.publish("owner", job_of())
    world.finish()
    assert world.job(offer).state == JobState.DISPUTED
    assert world.told("void") == ["void 0 owner: disputed: 0 different results from 4 executions"]


def test_refused_assignments_go_elsewhere() -> None:
    world = mesh("ann", "busy", "cem", busy={"refuses": True})
    offer = world.publish("owner", job_of(tasks=4))
    world.finish()
    assert world.told("refuse")
    assert all("busy" not in executions(world, offer, task) for task in range(4))
    assert world.credits() == {"owner": 0, "ann": 4 * PRICE, "busy": 0, "cem": 4 * PRICE}


def test_a_task_everybody_refuses_ends_unserved() -> None:
    world = mesh("a", "b", "c", **{name: {"refuses": True} for name in "abc"})
    offer = world.publish("owner", job_of())
    world.finish(limit_ms=20 * MINUTE_MS)
    assert world.job(offer).state == JobState.FAILED
    assert world.told("void") == ["void 0 owner: unserved: no node took it in time"]
    assert len(world.told("refuse")) < 200  # asked less and less often


def test_a_worker_with_little_room_gets_what_fits() -> None:
    world = mesh("ann", "bob")
    offer = world.publish("owner", job_of(tasks=4))
    world.run(lambda: len(world.job(offer).claims) == 2, MINUTE_MS)
    for name in ("ann", "bob"):  # they claimed more than they can take by now
        _core(world, name).worker.capacity = replace(CAPACITY, slots=1)
    world.finish()
    assert "refuse 0 ann: room for 2 more tasks now" in world.told()
    assert world.credits() == {"owner": 0, "ann": 4 * PRICE, "bob": 4 * PRICE}


def test_nodes_that_break_every_task_use_up_the_attempts() -> None:
    breakers = {f"n{number}": {"breaks": True, "run_ms": 20} for number in range(17)}
    world = mesh(*breakers, **breakers)
    offer = world.publish("owner", job_of())
    world.finish(limit_ms=5 * MINUTE_MS)
    assert world.job(offer).state == JobState.FAILED
    assert "lost 0 n0: engine: the engine broke [1m it" in world.told("lost")
    assert "attempts came to nothing" in world.told("void")[0]
    assert world.job(offer).tasks[0].why in world.told("void")[0]


def test_outputs_are_fetched_from_another_holder() -> None:
    world = mesh("ann", "hider", hider={"hides": True})
    offer = world.publish("owner", job_of(tasks=4))
    world.finish()
    assert world.job(offer).state == JobState.SETTLED
    assert world.told("lost") == []
    assert world.credits() == {"owner": 0, "ann": 4 * PRICE, "hider": 4 * PRICE}


def test_outputs_nobody_hands_over_are_not_settled() -> None:
    world = mesh("h1", "h2", h1={"hides": True}, h2={"hides": True})
    offer = world.publish("owner", job_of())
    until_told(world, "open")
    for name in ("ann", "bob"):
        world.node(name)
    world.finish()
    assert world.told("lost") == [
        f"lost 0 {name}: its outputs could not be fetched: nobody has them"
        for name in sorted(("h1", "h2"), key=lambda name: world.told("lost").index(
            f"lost 0 {name}: its outputs could not be fetched: nobody has them"))
    ]  # fmt: skip
    assert world.job(offer).state == JobState.SETTLED
    assert world.credits() == {"owner": 0, "h1": 0, "h2": 0, "ann": PRICE, "bob": PRICE}


# --- what people do ---------------------------------------------------------------------------------------------------
def test_a_job_is_taken_back() -> None:
    world = mesh("ann", "bob", ann={"run_ms": 30_000}, bob={"run_ms": 30_000})
    offer = world.publish("owner", job_of(tasks=3))
    until_told(world, "run")
    assert world.cancel("owner", b"?" * 32) == Refused("not-open", "no open job of this node has that id")
    world.cancel("owner", offer)
    assert isinstance(world.cancel("owner", offer), Refused)
    world.finish()
    assert world.job(offer).state == JobState.CANCELLED
    assert all(not node.running for node in world.living())
    assert len(world.told("void")) == 3
    assert world.credits() == {"owner": 0, "ann": 0, "bob": 0}


def test_a_paused_worker_hands_back_what_it_has_not_begun() -> None:
    world = mesh("ann", "bob", "cem")
    world.publish("owner", job_of(tasks=12))
    world.run(lambda: bool(_core(world, "ann").worker.duties.ready), MINUTE_MS)
    ann = world.nodes["ann"]
    ann.capacity = replace(CAPACITY, willing=False, why_not="paused by its owner")
    world.tell(ann, CapacityChanged(ann.capacity))
    assert not _core(world, "ann").worker.duties.ready
    world.finish()
    assert "not-working: paused by its owner" in world.told("lost")[0]


def _core(world: World, name: str) -> Any:
    core = world.nodes[name].core
    assert core is not None
    return core


def test_a_feed_that_forked_is_not_assigned_to_again() -> None:
    world = mesh("ann", "twin", "cem", twin={"run_ms": 30_000}, ann={"run_ms": 30_000}, cem={"run_ms": 30_000})
    offer = world.publish("owner", job_of(tasks=4))
    twin = world.nodes["twin"].feed
    world.run(lambda: any(line.step == "run" and line.feed == twin for line in world.story), MINUTE_MS)
    owner = world.nodes["owner"]
    world.tell(owner, Forked(twin))
    world.tell(owner, Forked(twin))
    world.pass_ms(1_000)
    assert {line.text for line in world.story if line.step == "lost"} == {"its feed forked"}
    world.finish()
    assert world.job(offer).state == JobState.SETTLED
    assert world.credits()["twin"] == 0


def test_a_settlement_waits_until_its_commits_are_firm() -> None:
    world = mesh("ann", "bob")
    world._plan_ack = lambda node: None  # the witness is off line
    offer = world.publish("owner", job_of())
    until_told(world, "open")
    world.pass_ms(15 * MINUTE_MS)
    assert world.job(offer).tasks[0].state == TaskState.AGREED
    assert world.told("lost", "settle") == []
    del world._plan_ack
    world._plan_ack(world.nodes["owner"])
    world.finish()
    assert world.credits() == {"owner": 0, "ann": PRICE, "bob": PRICE}


def test_a_worker_that_is_never_certified_does_not_hold_up_the_owner() -> None:
    world = mesh("ann", "stuck")
    stuck, step = world.nodes["stuck"], Step()
    _core(world, "stuck")._author.append(step, Pay(stuck.feed, stuck.feed, 1), Now(0, 0))  # no witness acks beyond it
    world._record(stuck, step)
    offer = world.publish("owner", job_of())
    world.run(lambda: len(world.told("open")) == 2, MINUTE_MS)
    world.node("cem")
    world.finish()
    assert world.told("lost") == ["lost 0 stuck: its commit was never certified"]
    assert world.job(offer).state == JobState.SETTLED
    assert world.credits() == {"owner": 0, "ann": PRICE, "stuck": 0, "cem": PRICE}


# --- crashes ----------------------------------------------------------------------------------------------------------
def _walk_with_crash(name: str, number: int, fate: str) -> World:
    world = mesh("ann", "bob")
    world.crash_at = {(name, number): fate} if number >= 0 else {}
    world.later(1, lambda: _publish_until_it_is_done(world))
    world.run(lambda: bool(world.offers), MINUTE_MS)
    world.finish(limit_ms=3 * MINUTE_MS)
    return world


def _publish_until_it_is_done(world: World) -> None:
    owner = world.nodes["owner"]
    if owner.core is None:
        world.later(100, lambda: _publish_until_it_is_done(world))
    elif owner.core.owner.book.jobs:  # it was on disk, and only its publisher did not hear of it
        world.offers += owner.core.owner.book.jobs
    else:
        try:
            world.publish("owner", job_of(tasks=2))
        except AssertionError:
            assert owner.core is None
            _publish_until_it_is_done(world)


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("name", ["owner", "ann"])
def test_a_crash_at_any_step_loses_nothing_and_pays_nothing_twice(name: str, fate: str) -> None:
    steps = _walk_with_crash(name, -1, fate).nodes[name].steps
    assert steps > 15
    for number in range(1, steps):  # the first one was the start
        world = _walk_with_crash(name, number, fate)
        assert world.nodes[name].life == 1, number
        assert world.credits() == {"owner": 0, "ann": 2 * PRICE, "bob": 2 * PRICE}, (number, world.told())
        kinds = [type(event.data) for event in world.nodes["owner"].disk[world.nodes["owner"].feed]]
        assert kinds.count(Offer) == 1
        assert 1 <= kinds.count(Seal) <= 2


def test_everybody_crashes_at_once_again_and_again() -> None:
    world = mesh("ann", "bob", "cem")
    offer = world.publish("owner", job_of(tasks=5))
    for _ in range(6):
        world.pass_ms(1_700)
        for node in world.living():
            world._die(node)
    world.finish()
    assert world.job(offer).state == JobState.SETTLED
    assert sum(world.credits().values()) == 10 * PRICE


# --- late and repeated news -------------------------------------------------------------------------------------------
def _replayed(world: World, pick: Callable[[Node, News], bool]) -> list[tuple[Node, News]]:
    heard: list[tuple[Node, News]] = []
    world.on_step = lambda node, news, step: heard.append((node, news)) if pick(node, news) else None
    return heard


def _may_come_again(node: Node, news: News) -> bool:
    """All that a peer or an errand can repeat; offers are told by the ledger, once."""
    if isinstance(news, Heard):
        return not isinstance(news.event.data, Offer)
    return not isinstance(news, Published | Resumed | PeerCame | Woke)


def test_late_and_repeated_news_changes_nothing() -> None:
    world = mesh("ann", "bob", "liar", liar={"forges": b"x"})
    heard = _replayed(world, lambda node, news: _may_come_again(node, news) and "Acks" not in type(news).__name__)
    world.publish("owner", job_of(tasks=3))
    world.finish()
    assert len(heard) > 50
    for node, news in list(heard):
        assert node.core is not None
        step = node.core.handle(news, Now(world.ms, world.ms))
        assert (step.events, step.facts, step.story, step.effects) == ([], {}, [], []), news


def test_every_news_twice_changes_nothing() -> None:
    world = mesh("ann", "bob")
    repeats: list[Step] = []

    def again(node: Node, news: News, step: Step) -> None:
        if _may_come_again(node, news) and "Acks" not in type(news).__name__:
            assert node.core is not None
            repeats.append(node.core.handle(news, Now(world.ms, world.ms)))

    world.on_step = again
    world.publish("owner", job_of(tasks=3))
    world.finish()
    for step in repeats:
        assert not step.events
        assert not [e for e in step.effects if isinstance(e, SendAssign | Run | FetchOutputs | FetchDescriptor)]
        assert not [e for e in step.effects if isinstance(e, SendClaim)] or not step.facts
    assert world.credits() == {"owner": 0, "ann": 3 * PRICE, "bob": 3 * PRICE}
    commits = [event for event in world.nodes["ann"].disk[world.nodes["ann"].feed] if isinstance(event.data, Commit)]
    assert len(commits) == 3
