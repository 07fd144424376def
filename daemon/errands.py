"""What the core asked for, done: sent to a peer, fetched, run. Whatever comes of it goes back as news.

Knows how each effect is carried out. Must never decide whether it should be. Every errand may be done twice without
harm, ends by its own deadline, and turns every failure into news.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from daemon.core.step import (
    Answered,
    DescriptorHeld,
    Effect,
    ExecutionKey,
    FetchDescriptor,
    FetchOutputs,
    News,
    OutputsHeld,
    OutputsMissing,
    Progressed,
    Run,
    RunBroke,
    RunEnded,
    SendAssign,
    SendClaim,
    SendGiveUp,
    SendOpen,
    SendRenew,
    Spread,
    StopRun,
)
from daemon.host import Mesh
from daemon.nodes import Nodes
from daemon.transfer import Transfer, ask_peer
from nexapod.encoding import NotCanonical
from nexapod.errors import LocalError, Unavailable
from nexapod.events import sign_note
from nexapod.hashing import Tag
from nexapod.identity import Key
from nexapod.job import Resolved, decode_resolved
from nexapod.limits import BLOBS_PER_QUESTION, DESCRIPTOR_BYTES_MAX
from nexapod.messages import Ask, AskAssign, AskClaim, AskKeep, AskOpen, AskRenew, Done, Reply
from runtime.environment import task_seed
from runtime.service import Runner
from runtime.task import Broke, Finished, InputFile, Limits, RunState, TaskSpec

DESCRIPTOR_TRIES = 20  # attempts to get a descriptor before the offer is left alone until the node restarts
AGAIN_S = 0.5  # first pause between attempts; doubles up to AGAIN_LAST_S
AGAIN_LAST_S = 30.0
OUTPUTS_S = 1_200.0  # getting all outputs of one task
SPREAD_TO = 2  # peers asked to keep the blobs of an own offer
SPREAD_S = 60.0
RUN_MS_MAX = 30 * 24 * 3_600_000  # a month: beyond, a wait cannot be told from for ever
GIVE_BACK_LOOK_S = 0.05
EXECUTIONS_KEPT = 512  # executions of this node remembered for people to look at; the oldest is forgotten

Tell: TypeAlias = Callable[[News], Awaitable[None]]
Publish: TypeAlias = Callable[[str, bytes], None]
log = logging.getLogger("nexapod.errands")


@dataclass(slots=True)
class Execution:
    """One execution on this node, for people: where it is, when it got there (wall clock ms), how it ended."""

    state: RunState = RunState.WAITING
    since_ms: dict[RunState, int] = field(default_factory=dict)
    ended_ms: int = 0
    what: str = ""
    log: bytes = b""


@dataclass(slots=True)
class Spreading:
    """How far an own offer has been spread: peers that keep its blobs, and whether all were asked."""

    holders: int = 0
    done: trio.Event = field(default_factory=trio.Event)


class Errands:
    """Carries out effects. `publish` says something by gossip; `flops` is what one lent core does per second."""

    def __init__(self, key: Key, mesh: Mesh, nodes: Nodes, transfer: Transfer, runner: Runner) -> None:
        self._key, self._mesh, self._nodes, self._transfer, self._runner = key, mesh, nodes, transfer, runner
        self._running: dict[ExecutionKey, trio.CancelScope] = {}
        self._leaving = ""  # why all that runs here is given back; empty while this node stays
        self._given_back = 0
        self.executions: OrderedDict[ExecutionKey, Execution] = OrderedDict()
        self._spread_offers: dict[bytes, Spreading] = {}  # own offers of this process
        self.core_flops = 0

    def connect(self, tell: Tell, publish: Publish, core_flops: int) -> None:
        """Give the errands what exists only once the node stands."""
        self._tell, self._publish, self.core_flops = tell, publish, core_flops

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect; returns when it is done or has failed."""
        match effect:
            case FetchDescriptor():
                await self._fetch_descriptor(effect)
            case SendClaim(owner, claim):
                signed = sign_note(self._key, Tag.CLAIM, self._nodes.netid, claim)
                self._publish("claims", signed)
                await self._ask(owner, AskClaim(signed))
            case SendAssign(worker, _, raw):
                await self._tell(Answered(effect, await self._ask(worker, AskAssign(raw))))
            case SendRenew(owner, offer, renewals):
                await self._tell(Answered(effect, await self._ask(owner, AskRenew(offer, renewals))))
            case SendOpen(owner, offer, openings):
                await self._tell(Answered(effect, await self._ask(owner, AskOpen(offer, openings))))
            case SendGiveUp(owner, ask):
                await self._tell(Answered(effect, await self._ask(owner, ask)))
                self._given_back += 1
            case FetchOutputs():
                await self._fetch_outputs(effect)
            case Run():
                await self._run(effect)
            case StopRun(execution):
                if execution in self._running:
                    self._running[execution].cancel()
            case Spread(offer, blobs):
                await self._spread(offer, blobs)

    async def _ask(self, feed: bytes, question: Ask) -> Reply | None:
        key = self._nodes.key_of(feed)
        return await ask_peer(self._mesh, key, question) if key else None

    # --- fetching --------------------------------------------------------------------------------------------------
    async def _fetch_descriptor(self, effect: FetchDescriptor) -> None:
        """Get a descriptor from its owner or whoever keeps it; pauses grow, and at last the offer is left alone."""
        pause = AGAIN_S
        for _ in range(DESCRIPTOR_TRIES):
            key = self._nodes.key_of(effect.owner)
            try:
                await self._transfer.need(
                    effect.descriptor_hash, size_max=DESCRIPTOR_BYTES_MAX, holders=[key] if key else []
                )
                resolved = decode_resolved(await self._transfer.content(effect.descriptor_hash))
                await self._tell(DescriptorHeld(effect.offer, resolved, await self.image_here(resolved)))
                return
            except NotCanonical as error:
                log.info("offer %s has a broken descriptor: %s", effect.offer.hex()[:12], error)
                return
            except (Unavailable, LocalError) as error:
                log.debug("descriptor of %s: %s", effect.offer.hex()[:12], error)
            await trio.sleep(pause)
            pause = min(pause * 2, AGAIN_LAST_S)

    async def image_here(self, resolved: Resolved) -> bool:
        """Whether an engine of this node holds the image of a job."""
        return await self._runner.has_image(resolved.engine, resolved.image_digest)

    async def _fetch_outputs(self, effect: FetchOutputs) -> None:
        key = self._nodes.key_of(effect.worker)
        why = "too slow"
        with trio.move_on_after(OUTPUTS_S):
            try:
                exit_code, _ = await self._transfer.need_result(effect.root, holders=[key] if key else [])
                await self._tell(OutputsHeld(effect.offer, effect.task, effect.root, exit_code))
                return
            except (Unavailable, LocalError) as error:
                why = str(error)
        await self._tell(OutputsMissing(effect.offer, effect.task, effect.root, effect.worker, why))

    # --- running ---------------------------------------------------------------------------------------------------
    async def _run(self, effect: Run) -> None:
        """Fetch the inputs and run the task; always ends in RunEnded or RunBroke unless it was stopped."""
        if effect.execution in self._running:
            return
        execution = self.executions[effect.execution] = Execution()
        while len(self.executions) > EXECUTIONS_KEPT:
            self.executions.popitem(last=False)
        with trio.CancelScope() as scope:
            self._running[effect.execution] = scope
            try:
                news = await self._run_to_news(effect, execution)
                await self._tell(news)
            finally:
                del self._running[effect.execution]
                execution.ended_ms = _wall_ms()
        if scope.cancelled_caught:
            execution.what = self._leaving or "stopped: its owner needs it no more"
            if self._leaving:
                await self._tell(RunBroke(effect.execution, "stopping", self._leaving))

    async def give_back(self, why: str) -> None:
        """Stop what runs here and hand it back, so that its owners need not wait for the lease to end.

        Cancellation: safe; whoever was not told finds out later.
        """
        self._leaving, waited_for = why, self._given_back + len(self._running)
        for scope in self._running.values():
            scope.cancel()
        while self._given_back < waited_for:  # noqa: ASYNC110 - at the very end, and only for as long as the caller says
            await trio.sleep(GIVE_BACK_LOOK_S)

    async def _run_to_news(self, effect: Run, execution: Execution) -> News:
        _reach(execution, RunState.FETCHING)
        await self._tell(Progressed(effect.execution, _PHASES[RunState.FETCHING], 0))
        owner = self._nodes.key_of(effect.owner)
        try:
            for item in effect.descriptor.inputs:
                await self._transfer.need(item.sha256, size_max=item.size, holders=[owner] if owner else [])
        except (Unavailable, LocalError) as error:
            execution.what = str(error)
            return RunBroke(effect.execution, "input-missing", str(error))
        await self._tell(Progressed(effect.execution, _PHASES[RunState.RUNNING], 0))
        outcome = await self._runner.run(_spec(effect), lambda state: _reach(execution, state))
        execution.log = outcome.log
        match outcome:
            case Finished():
                execution.what = f"exit code {outcome.exit_code}, result {outcome.root.hex()[:12]}"
                cores = max(1, effect.descriptor.needs.cpus_milli // 1000)
                work = outcome.run_ms * self.core_flops * cores // 1000
                return RunEnded(effect.execution, outcome.root, outcome.exit_code, work)
            case Broke(reason, detail):
                execution.what = f"{reason.value}: {detail}"
                return RunBroke(effect.execution, reason.value, detail)

    # --- spreading -------------------------------------------------------------------------------------------------
    def spreading(self, offer: bytes) -> Spreading:
        """How far an own offer has been spread."""
        return self._spread_offers.setdefault(offer, Spreading())

    async def _spread(self, offer: bytes, blobs: tuple[bytes, ...]) -> None:
        """Have some peers keep descriptor and inputs, so that the job goes on without this node's blobs."""
        spreading = self.spreading(offer)
        groups = [blobs[start : start + BLOBS_PER_QUESTION] for start in range(0, len(blobs), BLOBS_PER_QUESTION)]
        try:
            with trio.move_on_after(SPREAD_S):
                for key in sorted(self._mesh.connected()):
                    if spreading.holders >= SPREAD_TO:
                        break
                    replies = [
                        await ask_peer(self._mesh, key, AskKeep(offer, group), timeout_ms=int(SPREAD_S * 1000))
                        for group in groups
                    ]
                    spreading.holders += all(isinstance(reply, Done) for reply in replies)
        finally:
            spreading.done.set()


_PHASES = {state: number for number, state in enumerate(RunState)}  # as a Progress message counts them


def _reach(execution: Execution, state: RunState) -> None:
    execution.state = state
    execution.since_ms.setdefault(state, _wall_ms())


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _spec(effect: Run) -> TaskSpec:
    """The task as the runtime takes it: everything in it follows from the descriptor and the index."""
    offer, index, _ = effect.execution
    job = effect.descriptor
    return TaskSpec(
        offer=offer,
        job_id=job.job_id,
        index=index,
        count=job.tasks,
        engine=job.engine,
        image=job.image,
        image_digest=job.image_digest,
        command=job.command,
        env=job.env,
        inputs=tuple(InputFile(item.path, item.sha256, item.size) for item in job.inputs),
        outputs=job.outputs,
        volatile=job.volatile,
        seed=task_seed(effect.descriptor_hash, index),
        limits=Limits(
            job.needs.cpus_milli,
            job.needs.ram_bytes,
            job.needs.disk_bytes,
            job.needs.gpus,
            min(job.run_ms, RUN_MS_MAX),
        ),
    )
