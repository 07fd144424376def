"""Many meshes, each with its own mishaps: whatever a seed brings, every job ends, and the ledgers agree.

A seed that fails is printed by its test's name. `NEXAPOD_SEEDS=5000 pytest tests/daemon/core/test_simulation.py` is a
long campaign; `NEXAPOD_SEEDS=700-710` repeats some.
"""

import os
import random
from typing import Any

import pytest

from daemon.core.states import JobState
from nexapod.job import Resolved
from tests.daemon.core.simulation import World, job_of

# One node of a mesh may be like this; fewer than a quorum can do no more than delay a job.
LIARS: tuple[dict[str, Any], ...] = (
    {},
    {"forges": b"x"},
    {"stalls": True},
    {"withholds": True},
    {"hides": True},
    {"vanishes": True},
    {"refuses": True},
    {"breaks": True},
)


def seeds() -> range:
    wanted = os.environ.get("NEXAPOD_SEEDS", "150")
    first, _, last = wanted.rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(last))


def world_of(seed: int) -> World:
    """A mesh of four to six nodes in which messages are lost and repeated and processes die, for a while."""
    chance = random.Random(seed)
    world = World(
        seed,
        drop=chance.choice((0, 0.05, 0.3)),
        repeat=chance.choice((0, 0.2)),
        crash=chance.choice((0, 0.01, 0.04)),
        calm_ms=chance.choice((20_000, 120_000)),
    )
    world.gossip = chance.random() < 0.8
    world.node("owner")
    for number in range(chance.randrange(3, 5)):
        world.node(f"honest{number}", run_ms=chance.choice((500, 2_000, 30_000)))
    liar = chance.choice(LIARS)
    if liar:
        world.node("liar", **liar)
    jobs = [
        job_of(tasks=chance.choice((1, 3, 8))),
        job_of("fold-2", tasks=2, redundancy={"replicas": chance.choice((2, 3)), "quorum": 2, "max": 5}),
    ]
    for job in jobs[: chance.randrange(1, 3)]:
        world.later(chance.randrange(5_000), lambda job=job: publish(world, job))  # type: ignore[misc]
        world.jobs_wanted += 1
    return world


def publish(world: World, job: Resolved) -> None:
    """As a person does: when the node is down, once more a little later."""
    if world.nodes["owner"].core is None:
        world.later(500, lambda: publish(world, job))
        return
    crash, world.crash = world.crash, 0
    world.publish("owner", job)
    world.crash = crash


@pytest.mark.parametrize("seed", seeds())
def test_every_job_ends_and_all_agree(seed: int) -> None:
    world = world_of(seed)
    world.finish()
    assert len(world.offers) == world.jobs_wanted
    if not world.crash and not world.drop:  # nothing but one liar: then nothing can fail either
        assert {world.job(offer).state for offer in world.offers} == {JobState.SETTLED}


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = world_of(7), world_of(7)
    first.finish()
    second.finish()
    assert first.told() == second.told()
    assert first.nodes["owner"].replica.frontier_root() == second.nodes["owner"].replica.frontier_root()
