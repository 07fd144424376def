"""What every engine can do, whatever it runs tasks in.

Knows the promises. Must never know how one keeps them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from runtime.blobs import BlobStore
from runtime.task import Outcome, RunState, TaskSpec

Report = Callable[[RunState], None]


class EngineInfo(msgspec.Struct, frozen=True):
    """Whether an engine can run tasks now; `why` says why not, and what to do, when it cannot."""

    name: str
    version: str
    ready: bool
    why: str = ""


class Engine(Protocol):
    """Runs one task at a time per call, many calls at once."""

    @property
    def name(self) -> str:
        """What a job descriptor calls this kind of engine."""

    async def probe(self) -> EngineInfo:
        """Look whether the engine answers; never raises for one that does not. What could not be cleared away while it
        did not answer is cleared away now.
        """

    async def image_digest(self, reference: str) -> bytes | None:
        """The 32-byte digest of the image this engine holds under a name; None when it holds none."""

    async def has_image(self, digest: bytes) -> bool:
        """Whether exactly this image is here."""

    async def pull(self, reference: str, digest: bytes) -> str:
        """Fetch an image by name from where it was published; empty when it is here now, else why not."""

    async def export_image(self, digest: bytes, blobs: BlobStore) -> str:
        """Put an image into the blob store for others to fetch (images.py); empty when it is there, else why not."""

    async def import_image(self, digest: bytes, blobs: BlobStore) -> str:
        """Give the engine an image whose blobs are all here; empty when it is known now, else why not."""

    async def run(self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report) -> Outcome:
        """Run one task to its end and keep its outputs as blobs.

        `inputs` are the files to show at /in, by path. An engine that goes away is given some seconds to come back, and
        the task is then run once more. Cancellation stops the task and removes every trace of it before
        it propagates.
        """

    async def aclose(self) -> None:
        """Let go of the engine; no run may be under way."""

    async def reap(self) -> int:
        """Stop and remove what an earlier life of this node left behind; how many things. An engine that does not
        answer is remembered and done at the next probe.
        """
