"""What a task sees is the same everywhere, and the job cannot change what counts."""

from collections.abc import Callable

import msgspec

from runtime.environment import environment, reserved, task_seed
from runtime.task import TaskSpec


def test_the_own_variables(task: Callable[..., TaskSpec]) -> None:
    seen = environment(task(job_id="fold-1", index=3, count=9, seed=2**63 - 1))
    own = {name: value for name, value in seen.items() if name.startswith("NEXAPOD_")}
    assert own == {
        "NEXAPOD_JOB_ID": "fold-1", "NEXAPOD_TASK_INDEX": "3", "NEXAPOD_TASK_COUNT": "9",
        "NEXAPOD_SEED": "9223372036854775807",
    }  # fmt: skip
    assert seen["TZ"] == "UTC"
    assert seen["OMP_NUM_THREADS"] == "1"


def test_a_job_sets_its_own_and_its_threads_but_nothing_reserved(task: Callable[..., TaskSpec]) -> None:
    asked = (("A", "1"), ("OMP_NUM_THREADS", "4"), ("NEXAPOD_SEED", "0"), ("TZ", "CET"), ("NEXAPOD_PEER", "me"))
    seen = environment(task(env=asked))
    assert (seen["A"], seen["OMP_NUM_THREADS"], seen["NEXAPOD_SEED"], seen["TZ"]) == ("1", "4", "7", "UTC")
    assert "NEXAPOD_PEER" not in seen
    assert reserved("NEXAPOD_ANYTHING")
    assert not reserved("OMP_NUM_THREADS")


def test_neither_offer_nor_order_of_the_env_shows(task: Callable[..., TaskSpec]) -> None:
    spec = task(env=(("A", "1"), ("B", "2")))
    other = msgspec.structs.replace(spec, offer=bytes([9]) * 32, env=(("B", "2"), ("A", "1")))
    assert list(environment(spec).items()) == list(environment(other).items())


def test_seeds_are_frozen_and_differ() -> None:
    # Written once: a change here changes the bytes of every published job.
    assert task_seed(bytes(32), 0) == 2036075013273207205
    seeds = {task_seed(bytes([n]) * 32, index) for n in range(4) for index in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
