"""A task as a machine runs it, and what came of it.

Knows the words of running: what goes in, how much it may use, what came out or why nothing did. Must never know
containers, peers or credit. A job that fails is an Outcome, not an exception.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec


class InputFile(msgspec.Struct, frozen=True):
    """One file the task finds at /in/<path>; its bytes are the blob with this SHA-256."""

    path: str
    sha256: bytes
    size: int


class Limits(msgspec.Struct, frozen=True):
    """What one task may use at most. `disk_bytes` is room for outputs; it lives in memory beside `ram_bytes`."""

    cpus_milli: int
    ram_bytes: int
    disk_bytes: int
    gpus: int
    run_ms: int


class TaskSpec(msgspec.Struct, frozen=True):
    """All that decides the bytes of a result, and nothing that differs between replicas.

    `image` is the reference as the publisher wrote it, `image_digest` the 32-byte digest that counts. An empty
    `command` runs what the image says; empty `outputs` mean every file below /out. `outputs` and `volatile` are globs.
    """

    offer: bytes
    job_id: str
    index: int
    count: int
    engine: str
    image: str
    image_digest: bytes
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    inputs: tuple[InputFile, ...]
    outputs: tuple[str, ...]
    volatile: tuple[str, ...]
    seed: int
    limits: Limits


class OutputFile(msgspec.Struct, frozen=True):
    """One file the task left; its bytes are in the blob store under `sha256`."""

    path: str
    size: int
    sha256: bytes


class Reason(StrEnum):
    """Why a task has no result. Each is about this machine or this run, never a choice of the program."""

    IMAGE_MISSING = "image-missing"
    INPUT_MISSING = "input-missing"
    ENGINE_DOWN = "engine-down"
    ENGINE_REFUSED = "engine-refused"  # no GPU, more cores than there are, an image this engine cannot start
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    OUTPUTS_REFUSED = "outputs-refused"
    NO_ROOM = "no-room"  # this node's blob store is full; another node may do better
    CANCELLED = "cancelled"


class RunState(StrEnum):
    """Where a run is; only for people to look at."""

    WAITING = "waiting"
    FETCHING = "fetching"
    PULLING = "pulling"
    RUNNING = "running"
    COLLECTING = "collecting"


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The program ended by itself, with whatever exit code it chose.

    `manifest` are the canonical bytes of outputs.py and `root` is their SHA-256. `log` is the end of stdout and stderr
    and `run_ms` what the engine measured from start to exit; neither is part of the root.
    """

    exit_code: int
    root: bytes
    manifest: bytes
    files: tuple[OutputFile, ...]
    log: bytes
    run_ms: int


class Broke(msgspec.Struct, frozen=True, tag="broke"):
    """The program's own result is unknown: it was stopped, refused, or never started."""

    reason: Reason
    detail: str
    log: bytes = b""


Outcome: TypeAlias = Finished | Broke
