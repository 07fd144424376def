"""An engine without containers, for tests: programs are Python functions.

Knows how to be slow, wrong or broken on demand. Must never run in a node.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from runtime.blobs import BlobStore
from runtime.engine import EngineInfo, Report
from runtime.outputs import manifest_of, result_root, selected
from runtime.task import Broke, Finished, Outcome, OutputFile, Reason, RunState, TaskSpec

Program = Callable[[TaskSpec, Mapping[str, bytes]], Mapping[str, bytes]]


class MemoryEngine:
    """Runs `programs[image]`, a function of the task and its inputs to the files it leaves in /out.

    `gate`: tasks wait for it. `forge`: changes what a program left, to lie. `fail`: every task breaks with it.
    `exit_code`: what programs exit with. `running` and `runs` count.
    """

    name = "memory"

    def __init__(self, programs: Mapping[str, Program], *, name: str = "memory") -> None:
        self.name = name
        self.programs = dict(programs)
        self.gate: trio.Event | None = None
        self.forge: Callable[[TaskSpec, dict[str, bytes]], dict[str, bytes]] | None = None
        self.fail: Broke | None = None
        self.exit_code = 0
        self.running = 0
        self.runs = 0

    @staticmethod
    def digest_of(image: str) -> bytes:
        """The digest such an engine knows an image by."""
        return hashlib.sha256(image.encode()).digest()

    async def probe(self) -> EngineInfo:
        return EngineInfo(self.name, "0", ready=True)

    async def image_digest(self, reference: str) -> bytes | None:
        return self.digest_of(reference) if reference in self.programs else None

    async def has_image(self, digest: bytes) -> bool:
        return any(self.digest_of(image) == digest for image in self.programs)

    async def pull(self, reference: str, digest: bytes) -> str:
        return "there is nowhere to pull from"

    async def export_image(self, digest: bytes, blobs: BlobStore) -> str:
        return "there is nothing to fetch"

    async def import_image(self, digest: bytes, blobs: BlobStore) -> str:
        return "there is nothing to load"

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def reap(self) -> int:
        return 0

    async def run(self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report) -> Outcome:
        self.running += 1
        try:
            report(RunState.RUNNING)
            await trio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if self.fail is not None:
            return self.fail
        image = next((image for image in self.programs if self.digest_of(image) == spec.image_digest), None)
        if image is None:
            return Broke(Reason.IMAGE_MISSING, spec.image)
        self.runs += 1
        left = dict(self.programs[image](spec, {path: file.read_bytes() for path, file in inputs.items()}))
        if self.forge is not None:
            left = self.forge(spec, left)
        kept = {path: content for path, content in left.items() if selected(path, spec.outputs, spec.volatile)}
        files = tuple(OutputFile(path, len(kept[path]), blobs.put(kept[path])) for path in sorted(kept, key=str.encode))
        manifest = manifest_of(self.exit_code, files)
        blobs.put(manifest)
        return Finished(self.exit_code, result_root(manifest), manifest, files, log=b"", run_ms=1)
