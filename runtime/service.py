"""One machine's hands: takes tasks, runs as many at once as it may, and says what came of each.

Knows engines, blobs and a number of slots. Must never know who asked or why. Fetching inputs from other nodes is not
its job: they are in the blob store, or the task breaks with the list of what is missing.
"""

from collections.abc import Mapping
from pathlib import Path

import trio

from nexapod.errors import Unavailable
from runtime.blobs import BlobStore
from runtime.engine import Engine, EngineInfo, Report
from runtime.task import Broke, Outcome, Reason, RunState, TaskSpec

PULL_S = 600  # an image that takes longer is not coming; another node may have it
_SHOWN_MAX = 5


def _unheard(state: RunState) -> None:
    """Nobody watches."""


class Runner:
    """Runs tasks on the engines of this machine, at most `slots` at once; more wait in order."""

    def __init__(self, engines: Mapping[str, Engine], blobs: BlobStore, slots: int) -> None:
        self.engines, self.blobs = dict(engines), blobs
        self._slots = trio.Semaphore(slots)
        self.slots = slots

    @property
    def free(self) -> int:
        """Slots nobody uses now."""
        return self._slots.value

    async def start(self) -> tuple[EngineInfo, ...]:
        """Look at every engine and clear away what an earlier life left. Call once, before the first task.

        Cancellation: safe; reaping may be repeated.
        """
        infos = await self.probe()
        for engine in self.engines.values():
            await engine.reap()
        return infos

    async def probe(self) -> tuple[EngineInfo, ...]:
        """Whether each engine answers now."""
        return tuple([await engine.probe() for engine in self.engines.values()])

    async def aclose(self) -> None:
        """Let go of every engine; no task may be running."""
        for engine in self.engines.values():
            await engine.aclose()

    async def image_digest(self, engine: str, reference: str) -> bytes | None:
        """The digest of the image that an engine of this machine holds under a name.

        Raises:
            Unavailable: there is no such engine, or it does not answer.
        """
        found = self.engines.get(engine)
        info = await found.probe() if found else None
        if found is None or info is None or not info.ready:
            raise Unavailable(f"no {engine} engine answers here" + (f": {info.why}" if info else ""))
        return await found.image_digest(reference)

    async def has_image(self, engine: str, digest: bytes) -> bool:
        """Whether an engine of this machine holds exactly this image."""
        found = self.engines.get(engine)
        return found is not None and await found.has_image(digest)

    async def run(self, spec: TaskSpec, report: Report = _unheard) -> Outcome:
        """Run one task to its end.

        Cancellation: the task is stopped and its traces removed before the cancellation propagates.
        """
        engine = self.engines.get(spec.engine)
        if engine is None:
            return Broke(Reason.ENGINE_DOWN, f"this node has no engine {spec.engine!r}")
        report(RunState.WAITING)
        async with self._slots:
            report(RunState.FETCHING)
            inputs, missing = await trio.to_thread.run_sync(self._find_inputs, spec)
            if missing:
                more = f" and {len(missing) - _SHOWN_MAX} more" if len(missing) > _SHOWN_MAX else ""
                return Broke(Reason.INPUT_MISSING, ", ".join(missing[:_SHOWN_MAX]) + more)
            # An engine that does not answer has no image either; what to say of that, it knows best.
            if not await engine.has_image(spec.image_digest) and (await engine.probe()).ready:
                report(RunState.PULLING)
                if why := await self._obtain(engine, spec):
                    return Broke(Reason.IMAGE_MISSING, f"{spec.image}: {why}")
            return await engine.run(spec, inputs, self.blobs, report)

    async def _obtain(self, engine: Engine, spec: TaskSpec) -> str:
        """Bring the image to the engine, from the blobs when peers have sent them, else by its name; why it failed."""
        with trio.move_on_after(PULL_S):
            if self.blobs.has(spec.image_digest) and not await engine.import_image(spec.image_digest, self.blobs):
                return ""
            return await engine.pull(spec.image, spec.image_digest)
        return f"not here after {PULL_S} seconds"

    def _find_inputs(self, spec: TaskSpec) -> tuple[dict[str, Path], list[str]]:
        found: dict[str, Path] = {}
        missing: list[str] = []
        for file in spec.inputs:
            if self.blobs.has(file.sha256) and self.blobs.size(file.sha256) == file.size:
                found[file.path] = self.blobs.path(file.sha256)
            else:
                missing.append(file.path)
        return found, missing
