"""The words between the core and its shell: news that comes in, effects that go out, and what is recorded first.

Knows shapes only. News is what happened; an effect is what the shell should do next and may safely do twice. The shell
writes `Step.record` in one synced batch before it performs a single effect or sends the reply.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from nexapod.events import Event
from nexapod.job import Resolved
from nexapod.messages import (
    AckEntry,
    AskGiveUp,
    AskOpen,
    AskRenew,
    Assignment,
    Claim,
    OpeningNote,
    Progress,
    Reply,
)

ExecutionKey: TypeAlias = tuple[bytes, int, int]  # offer, task, round


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a step. `mono_ms` never goes back and times leases; `wall_ms` is only written into `ts`."""

    mono_ms: int
    wall_ms: int


# --- news ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Resumed:
    """The process started; what the record owes is to be done now."""


@dataclass(frozen=True, slots=True)
class Woke:
    """A wake-up asked for has come, or someone thinks it is time to look."""


@dataclass(frozen=True, slots=True)
class Published:
    """A local person publishes a job. `seed`: 32 secret bytes that will draw the executors."""

    descriptor: Resolved
    descriptor_hash: bytes
    seed: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The local owner takes a job back."""

    offer: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """Another feed's event was checked, stored and chained; events of one feed come in order."""

    event: Event


@dataclass(frozen=True, slots=True)
class Forked:
    """There is proof that a feed contradicted itself; told once per fork, and again after a restart."""

    feed: bytes


@dataclass(frozen=True, slots=True)
class AcksDue:
    """This node is a witness and these heads are safe on its disk."""

    entries: tuple[AckEntry, ...]


@dataclass(frozen=True, slots=True)
class DescriptorHeld:
    """The descriptor of an offer is here. `image_here`: an engine of this node holds its image."""

    offer: bytes
    descriptor: Resolved
    image_here: bool


@dataclass(frozen=True, slots=True)
class ClaimHeard:
    """A claim whose signature matches its feed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AssignmentHeard:
    """An assignment to this node, signed by its owner; `digest` is what the owner signed."""

    assignment: Assignment
    digest: bytes


@dataclass(frozen=True, slots=True)
class RenewalHeard:
    """`worker` says it still works."""

    worker: bytes
    ask: AskRenew


@dataclass(frozen=True, slots=True)
class OpeningsHeard:
    """`worker` opens sealed commits."""

    worker: bytes
    ask: AskOpen


@dataclass(frozen=True, slots=True)
class GaveUp:
    """`worker` hands a task back."""

    worker: bytes
    ask: AskGiveUp


@dataclass(frozen=True, slots=True)
class Progressed:
    """The runtime reports where an execution of this node is."""

    execution: ExecutionKey
    state: int
    permille: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The program of an execution ended by itself; its outputs and manifest are on disk. `work` in operations."""

    execution: ExecutionKey
    root: bytes
    exit_code: int
    work: int


@dataclass(frozen=True, slots=True)
class RunBroke:
    """An execution came to nothing for a reason that is not the program's result."""

    execution: ExecutionKey
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class OutputsHeld:
    """The manifest `root` and every file it names are on this node's disk, hashes checked."""

    offer: bytes
    task: int
    root: bytes
    exit_code: int


@dataclass(frozen=True, slots=True)
class OutputsMissing:
    """Outputs could not be had from `worker`."""

    offer: bytes
    task: int
    root: bytes
    worker: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What a peer replied to an effect; `reply` None: it could not be reached."""

    effect: "SendAssign | SendOpen | SendClaim | SendRenew | SendGiveUp"
    reply: Reply | None


@dataclass(frozen=True, slots=True)
class PeerCame:
    """A connection to the node of this feed stands."""

    feed: bytes


@dataclass(frozen=True, slots=True)
class CapacityChanged:
    """What this node lends has changed."""

    capacity: "Capacity"


News: TypeAlias = (
    Resumed | Woke | Published | Cancelled | Heard | Forked | AcksDue | DescriptorHeld | ClaimHeard
    | AssignmentHeard | RenewalHeard | OpeningsHeard | GaveUp | Progressed | RunEnded | RunBroke | OutputsHeld
    | OutputsMissing | Answered | PeerCame | CapacityChanged
)  # fmt: skip


# --- effects ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class FetchDescriptor:
    """Get the descriptor blob of an offer; comes back as DescriptorHeld."""

    offer: bytes
    owner: bytes
    descriptor_hash: bytes


@dataclass(frozen=True, slots=True)
class SendClaim:
    """Tell the owner of an offer, on a stream and by gossip, that this node would run its tasks."""

    owner: bytes
    claim: Claim


@dataclass(frozen=True, slots=True)
class SendAssign:
    """Hand a signed assignment to its worker; `raw` are the bytes of the Signed."""

    worker: bytes
    assignment: Assignment
    raw: bytes


@dataclass(frozen=True, slots=True)
class SendRenew:
    """Renew leases with an owner."""

    owner: bytes
    offer: bytes
    entries: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class SendOpen:
    """Open sealed commits to the owner."""

    owner: bytes
    offer: bytes
    entries: tuple[OpeningNote, ...]


@dataclass(frozen=True, slots=True)
class SendGiveUp:
    """Hand a task back to its owner."""

    owner: bytes
    ask: AskGiveUp


@dataclass(frozen=True, slots=True)
class FetchOutputs:
    """Get manifest and files of a result from `worker`; comes back as OutputsHeld or OutputsMissing."""

    offer: bytes
    task: int
    root: bytes
    worker: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Run one task here; comes back as RunEnded or RunBroke."""

    execution: ExecutionKey
    owner: bytes
    descriptor: Resolved
    descriptor_hash: bytes


@dataclass(frozen=True, slots=True)
class StopRun:
    """Stop an execution if it still runs; nothing comes back."""

    execution: ExecutionKey


@dataclass(frozen=True, slots=True)
class Spread:
    """Ask peers to keep the blobs of an own offer, so that it can go on without this node's disk."""

    offer: bytes
    blobs: tuple[bytes, ...]


Effect: TypeAlias = (
    FetchDescriptor | SendClaim | SendAssign | SendRenew | SendOpen | SendGiveUp | FetchOutputs | Run | StopRun | Spread
)


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One line of a job's story: which step of the walk, which task (None: the job), whose doing, in words."""

    offer: bytes
    step: str
    task: int | None
    feed: bytes
    text: str


@dataclass(slots=True)
class Step:
    """What one piece of news leads to. `events` and `facts` are the record; a fact of None is deleted."""

    events: list[Event] = field(default_factory=list)
    facts: dict[bytes, bytes | None] = field(default_factory=dict)
    story: list[StoryLine] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    reply: Reply | None = None
    offer: bytes | None = None  # the id of the offer a Published led to


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this node lends right now. `engines`: names of the ones that are ready; `willing` False: takes no work."""

    slots: int
    engines: frozenset[str]
    tier: int
    cores: int
    ram_bytes: int
    disk_bytes: int
    numeric_class: str
    gpus: tuple[tuple[str, int], ...]  # vendor, vram in bytes
    willing: bool = True
    why_not: str = ""
