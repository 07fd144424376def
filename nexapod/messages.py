"""Every message of the protocol: what is signed into feeds, what is gossiped, what is asked on a stream.

The only place where a message is defined: its fields, its numbers, its bounds. Knows shapes; must never know what a
message makes a node do. Field order is the wire order. Each section names its page in docs/protocol/.
"""

from enum import IntEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Raw

from nexapod.encoding import Wire, Worded
from nexapod.limits import (
    ADDRESSES_MAX,
    ADVERT_VALID_MS,
    BLOBS_PER_QUESTION,
    CLAIM_VALID_MS,
    ENGINES_MAX,
    ENTRIES_MAX,
    EVENT_BYTES_MAX,
    EVENTS_PER_PAGE,
    EXECUTIONS_MAX,
    FRONTIER_PER_PAGE,
    GPUS_MAX,
    NAME_CHARS_MAX,
    NOTE_CHARS_MAX,
    TASKS_MAX,
)

Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Big: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Label: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Name: TypeAlias = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Note: TypeAlias = Annotated[str, Meta(max_length=NOTE_CHARS_MAX)]
NumericClass: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._+-]{0,64}\Z")]
Address: TypeAlias = Annotated[str, Meta(pattern=r"\A[!-~]{1,200}\Z")]
TaskIndex: TypeAlias = Annotated[int, Meta(ge=0, lt=TASKS_MAX)]
Round: TypeAlias = Annotated[int, Meta(ge=0, lt=EXECUTIONS_MAX)]
EventBytes: TypeAlias = Annotated[bytes, Meta(max_length=EVENT_BYTES_MAX)]

VERSION = 1


# --- events: docs/protocol/events.md -----------------------------------------------------------------------------
class Kind(IntEnum):
    """Number of an event kind; a number is never used again for something else."""

    GENESIS = 0
    ROTATE = 1
    VOUCH = 2
    OFFER = 10
    STEWARD = 11
    COMMIT = 12
    SEAL = 13
    SETTLE = 14
    VOID = 15
    CLOSE = 16
    REVEAL = 17
    ATTEST = 18
    PAY = 30
    LOCK = 31
    RELEASE = 32
    BURN = 33
    ACK = 40
    CHECKPOINT = 41
    REPORT = 50


class Body(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a feed's owner signs. `feed` and `prev` are empty in a genesis, whose id becomes the feed id.

    `ts` is milliseconds since 1970 by the author's clock: information only, it decides nothing.
    """

    version: Count
    feed: Annotated[bytes, Meta(max_length=32)]
    seq: Big
    prev: Annotated[bytes, Meta(max_length=32)]
    kind: Count
    ts: Big
    data: Raw


class Envelope(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One event as it travels and is stored: the exact body bytes and the signature over the event id."""

    body: EventBytes
    signature: Signature


class Genesis(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """First event of a feed: its key, and the digest of the key it will rotate to."""

    key: PublicKey
    next_key_digest: Hash


class Rotate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The pre-committed next key takes over; signed by that new key."""

    key: PublicKey
    next_key_digest: Hash


class Vouch(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The author answers for another feed: the two count as one operator."""

    feed: Hash
    note: Note


class Mode(IntEnum):
    """When two results count as the same."""

    EXACT = 0
    EXACT_CLASS = 1
    TOLERANCE = 2
    CHECKER = 3


class Independence(IntEnum):
    """What two executions must not share."""

    NODE = 0
    OPERATOR = 1


class Policy(IntEnum):
    """How much is executed twice."""

    STRICT = 0
    ADAPTIVE = 1


class Offer(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A job is published. Its event id is the job's key; `price` and `lock` are micro-credits.

    `colour` nil: the publisher's own. `seed_commitment` hides the seed that draws executors until the job closes.
    """

    job_id: Label
    descriptor: Hash
    tasks: Annotated[int, Meta(ge=1, le=TASKS_MAX)]
    price: Big
    replicas: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    quorum: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    executions_max: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    mode: Mode
    independence: Independence
    policy: Policy
    colour: Hash | None
    lock: Big
    seed_commitment: Hash
    steward: Hash | None


class Steward(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The named steward accepts: from here on it alone seals and settles the offer."""

    offer: Hash


class CommitEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`digest` hides class, work and result root under a nonce until the commit is sealed."""

    task: TaskIndex
    round: Round
    digest: Hash


class Commit(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A worker binds itself to results nobody else can see yet. `assignment` is the digest of what allowed it."""

    offer: Hash
    assignment: Hash
    entries: Annotated[tuple[CommitEntry, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class SealEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The closed set of commits of one round of a task, by commit event id."""

    task: TaskIndex
    round: Round
    commits: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=EXECUTIONS_MAX)]


class Seal(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The owner closes commit sets; only then do workers open."""

    offer: Hash
    entries: Annotated[tuple[SealEntry, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class Opening(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one commit hid, made public. `root` nil: the agreed one. `work` in operations; `amount` in micro-credits."""

    commit: Hash
    nonce: Nonce
    numeric_class: NumericClass
    work: Big
    root: Hash | None
    amount: Big


class Settlement(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The verdict on one task: the agreed result root and every opening it rests on, in commit-id order."""

    task: TaskIndex
    root: Hash
    openings: Annotated[tuple[Opening, ...], Meta(min_length=1, max_length=EXECUTIONS_MAX)]


class Settle(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The owner settles tasks; every peer checks each settlement before it counts the credit."""

    offer: Hash
    entries: Annotated[tuple[Settlement, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class Verdict(IntEnum):
    """Why a task ends without a settlement."""

    FAILED = 0  # the program fails the same way on independent nodes
    DISPUTED = 1  # executions kept disagreeing
    UNSERVED = 2  # no node could or would run it in time
    CANCELLED = 3  # its owner took it back


class Voided(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One task that ends unpaid; the openings are kept as the evidence. Amounts are zero."""

    task: TaskIndex
    verdict: Verdict
    detail: Note
    openings: Annotated[tuple[Opening, ...], Meta(max_length=EXECUTIONS_MAX)]


class Void(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The owner ends tasks without paying."""

    offer: Hash
    entries: Annotated[tuple[Voided, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class Close(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The job is over: what is left of the lock returns. `seed` proves that executors were drawn as committed."""

    offer: Hash
    seed: Hash


class Reveal(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A stiffed worker's public self-defence: the opening of its own sealed commit."""

    offer: Hash
    task: TaskIndex
    opening: Opening


class Attest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A drawn non-executor repeated the comparison of outputs and reports the roots it found equal."""

    offer: Hash
    task: TaskIndex
    roots: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=EXECUTIONS_MAX)]


class Pay(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Credits of one colour change hands."""

    to: Hash
    colour: Hash
    amount: Big


class Lock(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sponsor sets credits aside for an offer."""

    offer: Hash
    colour: Hash
    amount: Big


class Release(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sponsor pays out against a settle event, or takes the lock back (`settle` nil)."""

    lock: Hash
    settle: Hash | None


class Burn(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Credits are destroyed by their holder."""

    colour: Hash
    amount: Big


class AckEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The witness holds and vouches for the whole prefix of `feed` up to this event."""

    feed: Hash
    seq: Big
    event: Hash


class Ack(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A witness acknowledges feed heads, once per seq, after it synced them to disk."""

    entries: Annotated[tuple[AckEntry, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class Checkpoint(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A witness states the roots of frontier and state after `events` certified events."""

    frontier_root: Hash
    state_root: Hash
    events: Big


class Report(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A subjective remark about a feed; never touches balances."""

    feed: Hash
    topic: Count
    note: Note


EventData: TypeAlias = (
    Genesis | Rotate | Vouch | Offer | Steward | Commit | Seal | Settle | Void | Close | Reveal | Attest
    | Pay | Lock | Release | Burn | Ack | Checkpoint | Report
)  # fmt: skip

DATA_OF_KIND: dict[int, type[EventData]] = {
    Kind.GENESIS: Genesis,
    Kind.ROTATE: Rotate,
    Kind.VOUCH: Vouch,
    Kind.OFFER: Offer,
    Kind.STEWARD: Steward,
    Kind.COMMIT: Commit,
    Kind.SEAL: Seal,
    Kind.SETTLE: Settle,
    Kind.VOID: Void,
    Kind.CLOSE: Close,
    Kind.REVEAL: Reveal,
    Kind.ATTEST: Attest,
    Kind.PAY: Pay,
    Kind.LOCK: Lock,
    Kind.RELEASE: Release,
    Kind.BURN: Burn,
    Kind.ACK: Ack,
    Kind.CHECKPOINT: Checkpoint,
    Kind.REPORT: Report,
}
KIND_OF_DATA: dict[type[EventData], Kind] = {data: Kind(kind) for kind, data in DATA_OF_KIND.items()}


class Hidden(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the digest of a commit entry is made of (tag `commit`, after the network id)."""

    offer: Hash
    task: TaskIndex
    round: Round
    worker: Hash
    numeric_class: NumericClass
    work: Big
    root: Hash
    nonce: Nonce


# --- signed notes outside the ledger: docs/protocol/notes.md ---------------------------------------------------------
class Signed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The exact bytes of an Advert, Claim or Assignment and the signature over their tagged hash."""

    body: Annotated[bytes, Meta(max_length=EVENT_BYTES_MAX)]
    signature: Signature


class Gpu(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One accelerator as its driver reports it."""

    vendor: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,15}\Z")]
    name: Annotated[str, Meta(pattern=r"\A[ -~]{0,64}\Z")]
    vram_bytes: Big


class Profile(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Measured hardware a node lends. `flops`: operations per second of all lent cores together, measured."""

    cores: Count
    ram_bytes: Big
    disk_bytes: Big
    flops: Big
    numeric_class: NumericClass
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=GPUS_MAX)]


class Advert(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who a node is, where it listens and what it lends. The highest `seq` wins; `valid_ms` runs from receipt."""

    key: PublicKey
    feed: Hash
    seq: Big
    valid_ms: Annotated[int, Meta(ge=0, le=ADVERT_VALID_MS)]
    name: Name
    addresses: Annotated[tuple[Address, ...], Meta(max_length=ADDRESSES_MAX)]
    engines: Annotated[tuple[Label, ...], Meta(max_length=ENGINES_MAX)]
    tier: Annotated[int, Meta(ge=0, le=2)]
    slots: Count
    profile: Profile


class Claim(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A worker stands ready to run up to `slots` tasks, of one offer or of any (`offer` nil)."""

    feed: Hash
    numeric_class: NumericClass
    slots: Count
    seq: Big
    valid_ms: Annotated[int, Meta(ge=0, le=CLAIM_VALID_MS)]
    offer: Hash | None


class Assignment(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The owner lends tasks of one round to one worker until the lease runs out."""

    owner: Hash
    worker: Hash
    offer: Hash
    round: Round
    lease_ms: Big
    tasks: Annotated[tuple[TaskIndex, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


# --- asked and answered on direct streams: docs/protocol/streams.md -------------------------------------------------
class AskHello(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """First words on a connection: network, own genesis event, own advert (a Signed)."""

    netid: Hash
    genesis: EventBytes
    advert: EventBytes


class AskFrontier(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Is your frontier mine? If not: the feeds after `after` in id order."""

    root: Hash
    after: Annotated[bytes, Meta(max_length=32)]


class AskEvents(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Events of one feed from `seq` on, as many as fit a reply."""

    feed: Hash
    seq: Big


class AskClaim(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """A signed Claim handed to the owner of the offer."""

    claim: EventBytes


class AskAssign(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """A signed Assignment handed to its worker."""

    assignment: EventBytes


class Progress(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where one execution is; `permille` of its run, 0 when unknown."""

    task: TaskIndex
    round: Round
    state: Count
    permille: Annotated[int, Meta(ge=0, le=1000)]


class AskRenew(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """The worker still works: renews the leases of these tasks."""

    offer: Hash
    entries: Annotated[tuple[Progress, ...], Meta(max_length=ENTRIES_MAX)]


class OpeningNote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A private opening: what the commit hid."""

    task: TaskIndex
    round: Round
    commit: Hash
    nonce: Nonce
    numeric_class: NumericClass
    work: Big
    root: Hash


class AskOpen(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """A worker opens sealed commits to the owner; it holds the outputs until the task ends."""

    offer: Hash
    entries: Annotated[tuple[OpeningNote, ...], Meta(min_length=1, max_length=ENTRIES_MAX)]


class AskGiveUp(Worded, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """A worker hands a task back, with the reason a person can read."""

    offer: Hash
    task: TaskIndex
    round: Round
    reason: Label
    detail: Note


class AskHolding(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """Which of these blobs do you hold?"""

    blobs: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=BLOBS_PER_QUESTION)]


class AskKeep(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """Please fetch and keep these blobs of my offer, so that it outlives me."""

    offer: Hash
    blobs: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=BLOBS_PER_QUESTION)]


class AskPing(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """Are you there?"""


Ask: TypeAlias = (
    AskHello | AskFrontier | AskEvents | AskClaim | AskAssign | AskRenew | AskOpen | AskGiveUp | AskHolding
    | AskKeep | AskPing
)  # fmt: skip


class Done(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=64):
    """Accepted, and on disk where the protocol says so."""


class Refused(Worded, frozen=True, array_like=True, forbid_unknown_fields=True, tag=65):
    """No, for a reason a machine can read and a detail for people."""

    reason: Label
    detail: Note


class HelloReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=66):
    """The other side's first words."""

    genesis: EventBytes
    advert: EventBytes


class Head(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far one feed is known."""

    feed: Hash
    seq: Big
    event: Hash


class FrontierReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=67):
    """Feed heads in id order; empty when the roots are equal. `more`: ask again after the last one."""

    heads: Annotated[tuple[Head, ...], Meta(max_length=FRONTIER_PER_PAGE)]
    more: bool


class EventsReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=68):
    """Envelopes of one feed in seq order."""

    events: Annotated[tuple[EventBytes, ...], Meta(max_length=EVENTS_PER_PAGE)]


class HoldingReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=69):
    """Positions in the question of the blobs held here."""

    held: Annotated[tuple[Count, ...], Meta(max_length=BLOBS_PER_QUESTION)]


class RenewReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=70):
    """Tasks of the renewal that are no longer this worker's: stop them."""

    lost: Annotated[tuple[TaskIndex, ...], Meta(max_length=ENTRIES_MAX)]


Reply: TypeAlias = Done | Refused | HelloReply | FrontierReply | EventsReply | HoldingReply | RenewReply
