"""Every effect the core asks for, done between real hosts, and the news each leads to when it works and when not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from daemon import errands as errands_file
from daemon.core.step import (
    Answered,
    DescriptorHeld,
    Effect,
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
from daemon.errands import EXECUTIONS_KEPT, Errands
from daemon.host import open_host
from daemon.nodes import Nodes
from daemon.transfer import Transfer
from dht.service import Directory
from nexapod.encoding import encode
from nexapod.hashing import blob_id
from nexapod.identity import Key
from nexapod.job import Resolved, ResolvedInput, descriptor_hash, parse, resolve
from nexapod.limits import BLOBS_PER_QUESTION
from nexapod.messages import (
    Ask,
    AskAssign,
    AskClaim,
    AskGiveUp,
    AskHolding,
    AskKeep,
    AskOpen,
    AskRenew,
    Assignment,
    Claim,
    Done,
    HoldingReply,
    OpeningNote,
    Progress,
    Refused,
    RenewReply,
    Reply,
)
from runtime.blobs import BlobStore
from runtime.memory import MemoryEngine
from runtime.outputs import manifest_of
from runtime.service import Runner
from runtime.task import Broke, OutputFile, Reason, RunState
from tests.daemon.standing import IMAGE, LOOPBACK, PATIENCE_S, Stranger, eventually, job_of, program, stranger

NETID, OFFER = blob_id(b"net"), blob_id(b"offer")
KEY = Key.from_seed(bytes(32))
FLOPS = 1_000_000  # of one core
MB = 2**20


@dataclass
class Worker:
    """Errands of one node connected to a peer, what they told, and what they gossiped."""

    errands: Errands
    transfer: Transfer
    engine: MemoryEngine
    peer: Stranger
    store: BlobStore  # of the peer
    told: list[News] = field(default_factory=list)
    said: list[tuple[str, bytes]] = field(default_factory=list)

    async def perform(self, effect: Effect) -> list[News]:
        """Perform an effect to its end; what it told."""
        before = len(self.told)
        with trio.fail_after(PATIENCE_S):
            await self.errands.perform(effect)
        return self.told[before:]


@asynccontextmanager
async def worker_of(folder: Path) -> AsyncIterator[Worker]:
    async with open_host(KEY.seed, LOOPBACK) as mesh, stranger(NETID) as peer:
        store = BlobStore(folder / "peer", 64 * MB)
        transfer = Transfer(mesh, BlobStore(folder / "own", 64 * MB), Directory(NETID, lambda: None))
        peers = Transfer(peer.mesh, store, Directory(NETID, lambda: None))
        peers.serve()
        nodes = Nodes(NETID, lambda: 0)
        nodes.introduce(peer.genesis, peer.key.public)
        engine = MemoryEngine({IMAGE: program}, name="docker")
        errands = Errands(KEY, mesh, nodes, transfer, Runner({"docker": engine}, transfer.blobs, 1))
        worker = Worker(errands, transfer, engine, peer, store)

        async def tell(news: News) -> None:
            worker.told.append(news)

        errands.connect(tell, lambda topic, raw: worker.said.append((topic, raw)), FLOPS)
        with trio.fail_after(PATIENCE_S):
            await mesh.connect(peer.key.public, peer.mesh.addresses())
        yield worker


def answering(*replies: Reply) -> Any:
    """A script that gives these replies in order; blobs are held by asking the store."""
    left = list(replies)

    async def answer(key: bytes, ask: Ask) -> Reply:
        if isinstance(ask, AskHolding):
            return HoldingReply(())
        return left.pop(0)

    return answer


def resolved_of(*inputs: ResolvedInput, **changes: Any) -> Resolved:
    files = [item.path for item in inputs]
    return resolve(parse(job_of(input_files=files, **changes)), MemoryEngine.digest_of(IMAGE), inputs)


def run_of(resolved: Resolved, owner: bytes, task: int = 0) -> Run:
    return Run((OFFER, task, 0), owner, resolved, descriptor_hash(resolved))


# --- sending ----------------------------------------------------------------------------------------------------------
async def test_what_a_peer_answers_is_news(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        feed = worker.peer.feed
        note = OpeningNote(0, 0, bytes(32), bytes(16), "", 1, bytes(32))
        give_up = AskGiveUp(OFFER, 0, 0, "no-room", "")
        steps = (Progress(0, 0, 0, 1),)
        effects: list[tuple[Any, Ask, Reply]] = [
            (SendAssign(feed, Assignment(feed, feed, OFFER, 0, 1, (0,)), b"raw"), AskAssign(b"raw"), Done()),
            (SendRenew(feed, OFFER, steps), AskRenew(OFFER, steps), RenewReply((0,))),
            (SendOpen(feed, OFFER, (note,)), AskOpen(OFFER, (note,)), Refused("unknown-commit", "")),
            (SendGiveUp(feed, give_up), give_up, Done()),
        ]
        worker.peer.answers = answering(*(reply for _, _, reply in effects))
        for effect, _, reply in effects:
            assert await worker.perform(effect) == [Answered(effect, reply)]
        assert worker.peer.asked == [ask for _, ask, _ in effects]
        # Whoever is not connected, or not known at all, is answered for with nothing.
        stranger_effect = SendGiveUp(blob_id(b"nobody"), give_up)
        assert await worker.perform(stranger_effect) == [Answered(stranger_effect, None)]
        await worker.peer.mesh.disconnect(KEY.public)
        await eventually(lambda: not worker.errands._mesh.connected())
        assert await worker.perform(effects[0][0]) == [Answered(effects[0][0], None)]


async def test_a_claim_goes_to_the_owner_and_to_everybody(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.peer.answers = answering(Done())
        claim = Claim(blob_id(b"own feed"), "", 1, 1, 1_000, OFFER)
        assert await worker.perform(SendClaim(worker.peer.feed, claim)) == []
        ((topic, raw),) = worker.said
        assert topic == "claims"
        assert worker.peer.asked == [AskClaim(raw)]
        own = Nodes(NETID, lambda: 0)
        own.remember(KEY.public, claim.feed)
        assert own.open_claim(raw) == claim
        # Gossip is said also when the owner cannot be reached.
        await worker.perform(SendClaim(blob_id(b"nobody"), claim))
        assert len(worker.said) == 2


# --- descriptors ------------------------------------------------------------------------------------------------------
async def test_a_descriptor_comes_from_its_owner(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        resolved = resolved_of()
        effect = FetchDescriptor(OFFER, worker.peer.feed, worker.store.put(encode(resolved)))
        assert await worker.perform(effect) == [DescriptorHeld(OFFER, resolved, True)]
        worker.engine.programs.clear()
        assert await worker.perform(effect) == [DescriptorHeld(OFFER, resolved, False)]


async def test_a_descriptor_is_asked_for_until_somebody_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands_file, "AGAIN_S", 0.01)
    async with worker_of(tmp_path) as worker:
        resolved = resolved_of()
        asked = 0

        async def answer(key: bytes, ask: Ask) -> Reply:
            nonlocal asked
            asked += 1
            if asked == 3:
                worker.store.put(encode(resolved))
            return HoldingReply((0,) if asked >= 3 else ())

        worker.peer.answers = answer
        effect = FetchDescriptor(OFFER, blob_id(b"an owner not known here"), descriptor_hash(resolved))
        assert await worker.perform(effect) == [DescriptorHeld(OFFER, resolved, True)]
        assert asked == 3


async def test_a_descriptor_nobody_has_is_given_up_and_a_broken_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands_file, "AGAIN_S", 0.001)
    monkeypatch.setattr(errands_file, "AGAIN_LAST_S", 0.001)
    async with worker_of(tmp_path) as worker:
        assert await worker.perform(FetchDescriptor(OFFER, worker.peer.feed, bytes(32))) == []
        monkeypatch.setattr(errands_file, "AGAIN_S", 1_000.0)
        assert await worker.perform(FetchDescriptor(OFFER, worker.peer.feed, worker.store.put(b"rubbish"))) == []


# --- outputs ----------------------------------------------------------------------------------------------------------
async def test_outputs_are_held_or_missing_with_a_reason(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        file = OutputFile("a", 3, worker.store.put(b"abc"))
        root = worker.store.put(manifest_of(7, [file]))
        effect = FetchOutputs(OFFER, 2, root, worker.peer.feed)
        assert await worker.perform(effect) == [OutputsHeld(OFFER, 2, root, 7)]
        assert worker.transfer.blobs.read(file.sha256) == b"abc"
        (missing,) = await worker.perform(FetchOutputs(OFFER, 2, bytes(32), worker.peer.feed))
        assert isinstance(missing, OutputsMissing)
        assert "nobody reachable" in missing.why
        lost = worker.store.put(manifest_of(0, [OutputFile("gone", 3, bytes(32))]))
        (missing,) = await worker.perform(FetchOutputs(OFFER, 2, lost, worker.peer.feed))
        assert isinstance(missing, OutputsMissing)
        (missing,) = await worker.perform(FetchOutputs(OFFER, 2, worker.store.put(b"rubbish"), worker.peer.feed))
        assert isinstance(missing, OutputsMissing)
        assert "not a result manifest" in missing.why


# --- running ----------------------------------------------------------------------------------------------------------
async def test_a_run_fetches_its_inputs_reports_and_ends(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        item = ResolvedInput("a.txt", worker.store.put(b"abc"), 3)
        effect = run_of(resolved_of(item), worker.peer.feed)
        *phases, ended = await worker.perform(effect)
        assert [type(news) for news in phases] == [Progressed, Progressed]
        assert isinstance(ended, RunEnded)
        assert (ended.execution, ended.exit_code, ended.work) == (effect.execution, 0, FLOPS // 1000)
        _, files = await worker.transfer.need_result(ended.root)
        assert {file.path for file in files} == {"back/a.txt", "task.txt"}
        kept = worker.errands.executions[effect.execution]
        assert kept.ended_ms >= kept.since_ms[RunState.RUNNING] >= kept.since_ms[RunState.FETCHING] > 0
        assert kept.what.startswith("exit code 0")


async def test_a_run_without_its_inputs_breaks(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        effect = run_of(resolved_of(ResolvedInput("a.txt", bytes(32), 3)), worker.peer.feed)
        broke = (await worker.perform(effect))[-1]
        assert isinstance(broke, RunBroke)
        assert broke.reason == "input-missing"
        assert worker.engine.runs == 0
        assert "nobody reachable" in worker.errands.executions[effect.execution].what


async def test_a_run_that_breaks_says_why(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.engine.fail = Broke(Reason.OUT_OF_MEMORY, "the task took all of it", log=b"last words")
        effect = run_of(resolved_of(), worker.peer.feed)
        broke = (await worker.perform(effect))[-1]
        assert broke == RunBroke(effect.execution, "out-of-memory", "the task took all of it")
        assert worker.errands.executions[effect.execution].log == b"last words"


async def test_a_run_is_started_once_and_stopped_without_news(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.engine.gate = trio.Event()
        effect = run_of(resolved_of(), worker.peer.feed)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.errands.perform, effect)
                await eventually(lambda: worker.engine.running == 1)
                told = len(worker.told)
                assert await worker.perform(effect) == []  # it runs already
                assert await worker.perform(StopRun((OFFER, 5, 5))) == []  # nothing of that name runs
                await worker.perform(StopRun(effect.execution))
        assert len(worker.told) == told
        assert (worker.engine.running, worker.engine.runs) == (0, 0)
        kept = worker.errands.executions[effect.execution]
        assert kept.ended_ms
        assert "stopped" in kept.what
        worker.engine.gate = None
        assert isinstance((await worker.perform(effect))[-1], RunEnded)  # and may be started again


async def test_executions_kept_to_look_at_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands_file, "EXECUTIONS_KEPT", 2)
    assert EXECUTIONS_KEPT > 2
    async with worker_of(tmp_path) as worker:
        for task in range(3):
            await worker.perform(run_of(resolved_of(tasks=3), worker.peer.feed, task))
        assert [task for _, task, _ in worker.errands.executions] == [1, 2]


# --- spreading --------------------------------------------------------------------------------------------------------
async def test_spreading_counts_the_peers_that_keep_everything(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.peer.answers = answering(Done(), Done())
        blobs = tuple(blob_id(number.to_bytes(4, "big")) for number in range(BLOBS_PER_QUESTION + 1))
        await worker.perform(Spread(OFFER, blobs))
        spreading = worker.errands.spreading(OFFER)
        assert spreading.holders == 1
        assert spreading.done.is_set()
        asked = [ask for ask in worker.peer.asked if isinstance(ask, AskKeep)]
        assert tuple(blob for ask in asked for blob in ask.blobs) == blobs


async def test_spreading_ends_when_nobody_keeps_anything(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.peer.answers = answering(Refused("no-room", ""))
        await worker.perform(Spread(OFFER, (bytes(32),)))
        assert worker.errands.spreading(OFFER).holders == 0
        assert worker.errands.spreading(OFFER).done.is_set()


async def test_what_runs_is_given_back_when_the_node_leaves(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as worker:
        worker.engine.gate = trio.Event()
        effect = run_of(resolved_of(), worker.peer.feed)
        with trio.move_on_after(PATIENCE_S) as deadline:
            await worker.errands.give_back("nothing runs, so nothing is waited for")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.errands.perform, effect)
                await eventually(lambda: worker.engine.running == 1)
                with trio.move_on_after(0.2):  # nobody answers for the peer here
                    await worker.errands.give_back("the owner of this node stopped it")
        assert not deadline.cancelled_caught
        assert worker.told[-1] == RunBroke(effect.execution, "stopping", "the owner of this node stopped it")
