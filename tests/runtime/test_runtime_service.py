"""The runner: inputs first, images next, a bounded number at once."""

from collections.abc import Callable, Mapping

import msgspec
import pytest
import trio
import trio.testing

from runtime.blobs import BlobStore
from runtime.memory import MemoryEngine
from runtime.outputs import parse_manifest
from runtime.service import Runner
from runtime.task import Broke, Finished, InputFile, Outcome, Reason, RunState, TaskSpec

TaskMaker = Callable[..., TaskSpec]


def double(spec: TaskSpec, inputs: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return {"twice": inputs.get("x", b"") * 2, "seed": str(spec.seed).encode(), ".progress": b"1"}


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine({"double": double})


@pytest.fixture
def spec(task: TaskMaker) -> TaskSpec:
    return task(engine="memory", image="double", image_digest=MemoryEngine.digest_of("double"))


async def test_a_task_from_input_to_manifest(engine: MemoryEngine, spec: TaskSpec, blobs: BlobStore) -> None:
    runner = Runner({"memory": engine}, blobs, slots=1)
    assert [info.ready for info in await runner.start()] == [True]
    sha = blobs.put(b"ab")
    states: list[RunState] = []
    outcome = await runner.run(msgspec.structs.replace(spec, inputs=(InputFile("x", sha, 2),)), states.append)
    assert isinstance(outcome, Finished)
    assert {file.path: blobs.read(file.sha256) for file in outcome.files} == {"twice": b"abab", "seed": b"7"}
    assert parse_manifest(blobs.read(outcome.root)) == (0, outcome.files)
    assert states == [RunState.WAITING, RunState.FETCHING, RunState.RUNNING]
    assert runner.free == 1
    await runner.aclose()


async def test_what_is_missing_is_said(engine: MemoryEngine, spec: TaskSpec, blobs: BlobStore) -> None:
    runner = Runner({"memory": engine}, blobs, slots=1)
    inputs = tuple(InputFile(f"f{n}", bytes([n]) * 32, 1) for n in range(7))
    outcome = await runner.run(msgspec.structs.replace(spec, inputs=inputs))
    assert outcome == Broke(Reason.INPUT_MISSING, "f0, f1, f2, f3, f4 and 2 more")
    short = InputFile("short", blobs.put(b"ab"), 3)
    assert await runner.run(msgspec.structs.replace(spec, inputs=(short,))) == Broke(Reason.INPUT_MISSING, "short")
    unknown = await runner.run(msgspec.structs.replace(spec, image_digest=bytes(32)))
    assert isinstance(unknown, Broke)
    assert unknown.reason == Reason.IMAGE_MISSING
    other = await runner.run(msgspec.structs.replace(spec, engine="wasm"))
    assert isinstance(other, Broke)
    assert other.reason == Reason.ENGINE_DOWN


async def test_no_more_at_once_than_there_are_slots(engine: MemoryEngine, spec: TaskSpec, blobs: BlobStore) -> None:
    runner = Runner({"memory": engine}, blobs, slots=2)
    engine.gate = trio.Event()
    most = 0

    def watch(state: RunState) -> None:
        nonlocal most
        most = max(most, engine.running)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(runner.run, spec, watch)
        while engine.running < 2:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.running, runner.free) == (2, 0)
        engine.gate.set()
    assert (engine.runs, most, runner.free) == (6, 2, 2)


async def test_a_cancelled_task_gives_its_slot_back(engine: MemoryEngine, spec: TaskSpec, blobs: BlobStore) -> None:
    runner = Runner({"memory": engine}, blobs, slots=1)
    engine.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run, spec)
        while not engine.running:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (runner.free, engine.running, engine.runs) == (1, 0, 0)


async def test_a_liar_and_a_failure(engine: MemoryEngine, spec: TaskSpec, blobs: BlobStore) -> None:
    runner = Runner({"memory": engine}, blobs, slots=1)

    def root(outcome: Outcome) -> bytes:
        assert isinstance(outcome, Finished)
        return outcome.root

    honest = root(await runner.run(spec))
    assert root(await runner.run(spec)) == honest
    engine.forge = lambda spec, left: left | {"seed": b"0"}
    assert root(await runner.run(spec)) != honest
    engine.fail = Broke(Reason.OUT_OF_MEMORY, "told to")
    assert await runner.run(spec) == engine.fail
