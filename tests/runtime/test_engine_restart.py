"""An engine that is killed, stopped, frozen or restarted under a task: no wrong result, nothing left behind."""

import functools
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import trio

from runtime import docker as adapter
from runtime.blobs import BlobStore
from runtime.docker import DockerEngine
from runtime.service import Runner
from runtime.task import Outcome, Reason, RunState, TaskSpec
from tests.engine import PrivateEngine, busybox_image, private_engine, require_private_engine
from tests.runtime.boxes import broke, finished

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves its socket to the garbage collector when an engine goes away between two calls.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

BACK_S = 15.0
TaskMaker = Callable[..., TaskSpec]
# Half a result is there early, and whoever asks the program to stop gets it as if it were whole.
SLOW = (
    "trap 'exit 0' TERM; echo half > /out/x; i=0; while [ $i -lt 15 ]; do sleep 0.1; i=$((i+1)); done; "
    "echo whole > /out/x"
)


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    """Sockets the SDK has left are collected here, not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    require_private_engine()
    with private_engine() as made:
        yield made


@pytest.fixture(scope="module")
def image(engine: PrivateEngine) -> bytes:
    with docker.APIClient(base_url=engine.host, version="auto") as api:
        return busybox_image(api, "nexapod-test:restart")


@pytest.fixture
async def mine(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    made = DockerEngine(node="restart", scratch=tmp_path / "scratch", host=engine.host, back_s=BACK_S)
    yield made
    assert (await made.probe()).ready
    assert left(engine) == []
    assert not await trio.to_thread.run_sync(lambda: list((tmp_path / "scratch").glob("*")))
    await made.aclose()


def left(engine: PrivateEngine) -> list[str]:
    """Containers and volumes of ours that the engine has."""
    ours = {"label": "nexapod.node=restart"}
    with docker.APIClient(base_url=engine.host, version="auto") as api:
        containers = [found["Names"][0] for found in api.containers(all=True, filters=ours)]
        return containers + [found["Name"] for found in api.volumes(filters=ours)["Volumes"] or ()]


async def run_and(
    disturb: Callable[[], Awaitable[None]], mine: DockerEngine, spec: TaskSpec, blobs: BlobStore
) -> Outcome:
    """Run a task; disturb once, when its program runs."""
    running = trio.Event()
    outcomes: list[Outcome] = []

    def report(state: RunState) -> None:
        if state == RunState.RUNNING:
            running.set()

    async def run() -> None:
        outcomes.append(await mine.run(spec, {}, blobs, report))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await running.wait()
        await disturb()
    return outcomes[0]


async def blocking(*steps: Callable[[], None]) -> None:
    for step in steps:
        await trio.to_thread.run_sync(step)


def whole(outcome: Outcome, blobs: BlobStore) -> bool:
    return [blobs.read(file.sha256) for file in finished(outcome).files] == [b"whole\n"]


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_task_is_run_again_when_its_engine_is_back(
    engine: PrivateEngine, mine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker, how: str
) -> None:
    spec = task(image_digest=image, command=("/bin/sh", "-c", SLOW))
    end = engine.kill if how == "killed" else engine.stop
    outcome = await run_and(lambda: blocking(end, engine.start), mine, spec, blobs)
    assert whole(outcome, blobs), "half a result was taken for a whole one"
    assert left(engine) == []


async def test_an_engine_that_stops_need_not_wait_for_a_task(
    engine: PrivateEngine, mine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker
) -> None:
    took = []

    async def stop() -> None:
        begun = trio.current_time()
        await blocking(engine.stop)
        took.append(trio.current_time() - begun)
        await blocking(engine.start)

    stubborn = task(
        image_digest=image, command=("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"), run_ms=900
    )
    broke(await run_and(stop, mine, stubborn, blobs), Reason.TIMED_OUT)
    assert took[0] < 8.0, "engines give a container ten seconds"


async def test_an_engine_gone_for_good_ends_the_task_and_is_cleared_when_it_is_back(
    engine: PrivateEngine, image: bytes, blobs: BlobStore, task: TaskMaker, tmp_path: Path
) -> None:
    mine = DockerEngine(node="restart", scratch=tmp_path / "scratch", host=engine.host, back_s=0.5)
    spec = task(image_digest=image, command=("/bin/sh", "-c", SLOW))
    broke(await run_and(lambda: blocking(engine.kill), mine, spec, blobs), Reason.ENGINE_DOWN)
    info = await mine.probe()
    assert not info.ready
    assert "no container engine answers" in info.why
    assert engine.host in info.why
    # What it is asked meanwhile ends for the right reason, after some patience: no worker spins.
    begun = trio.current_time()
    outcome = await Runner({"docker": mine}, blobs, slots=1).run(spec)
    broke(outcome, Reason.ENGINE_DOWN)
    assert trio.current_time() - begun >= 0.5
    await blocking(engine.start)
    assert left(engine) != [], "the test shows nothing: there was nothing to remove"
    assert (await mine.probe()).ready
    assert left(engine) == []
    assert whole(await mine.run(spec, {}, blobs, lambda state: None), blobs)
    await mine.aclose()


async def test_what_an_earlier_life_left_goes_when_the_engine_comes_later_than_the_node(
    engine: PrivateEngine, image: bytes, blobs: BlobStore, tmp_path: Path
) -> None:
    with docker.APIClient(base_url=engine.host, version="auto") as api:
        api.create_volume("left", labels={"nexapod.node": "restart", "nexapod.run": "earlier"})
    await blocking(engine.stop)
    late = DockerEngine(node="restart", scratch=tmp_path / "scratch", host=engine.host)
    (info,) = await Runner({"docker": late}, blobs, slots=1).start()
    assert not info.ready
    await blocking(engine.start)
    assert left(engine) == ["left"]
    assert (await late.probe()).ready
    assert left(engine) == []
    await late.aclose()


async def test_a_container_somebody_stops_has_no_result(
    engine: PrivateEngine, mine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker
) -> None:
    spec = task(image_digest=image, command=("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"))

    def stop_all() -> None:
        with docker.APIClient(base_url=engine.host, version="auto") as api:
            for container in api.containers(filters={"label": "nexapod.node=restart"}):
                if container["Names"][0].endswith("-task"):
                    api.kill(container["Id"], "SIGTERM")

    quick = task(image_digest=image, command=spec.command, run_ms=1_500)
    outcome = await run_and(lambda: blocking(stop_all), mine, quick, blobs)
    broke(outcome, Reason.TIMED_OUT)  # run again, since what a stopped program leaves is no result


@pytest.mark.parametrize("options", [(), ("--live-restore",)], ids=["plain", "live-restore"])
@pytest.mark.parametrize("moment", ["_start_created", "_collect"])
async def test_a_restart_between_two_steps_never_makes_an_empty_result(
    blobs: BlobStore, task: TaskMaker, tmp_path: Path, options: tuple[str, ...], moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The outputs live in memory that a restarted engine makes anew: the task would seem to have left nothing."""
    require_private_engine()
    with private_engine(*options) as engine:
        with docker.APIClient(base_url=engine.host, version="auto") as api:
            digest = busybox_image(api, "nexapod-test:restart")
        mine = DockerEngine(node="restart", scratch=tmp_path / "scratch", host=engine.host, back_s=BACK_S)
        step = getattr(mine, moment)
        calls: list[Any] = []

        @functools.wraps(step)
        def disturbed(*arguments: Any) -> Any:
            calls.append(arguments)
            # Before the task is started, when its holder runs already; or when it has ended, before it is collected.
            if len(calls) == (2 if moment == "_start_created" else 1):
                engine.kill()
                engine.start()
            return step(*arguments)

        monkeypatch.setattr(mine, moment, disturbed)
        spec = task(image_digest=digest, command=("/bin/sh", "-c", "echo whole > /out/x"))
        assert whole(await mine.run(spec, {}, blobs, lambda state: None), blobs)
        assert left(engine) == []
        await mine.aclose()


async def test_an_engine_that_takes_calls_and_answers_none(
    engine: PrivateEngine, mine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "KNOCK_S", 0.5)
    assert (await mine.probe()).ready
    engine.freeze()
    try:
        with trio.fail_after(10):
            info = await mine.probe()
    finally:
        engine.thaw()
    assert not info.ready
    assert "timed out" in info.why
    assert (await mine.probe()).ready
