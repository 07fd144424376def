"""Jobs as JSON documents: this node's own from its record, those of others from the ledger.

Knows the answers of docs/api.md about jobs. Must never know HTTP. What others' jobs do between two events is not
known here, so their documents tell what the ledger shows and no more.
"""

from dataclasses import dataclass
from typing import Any

from daemon.core.matching import capacity_of, reasons_against
from daemon.core.ownerbook import STORY_PREFIX, Job, StoryRecord
from daemon.core.states import JobState, TaskState
from daemon.parts import Parts
from ledger.fold import OfferState
from ledger.story import describe
from nexapod.encoding import decode
from nexapod.errors import Exit, LocalError
from nexapod.events import Event
from nexapod.job import Resolved, decode_resolved
from nexapod.messages import Close, Commit, Offer, Seal, Settle, Verdict, Void

REFERENCE_DIGITS_MIN = 4  # of an offer id, to mean a job by
CANDIDATES_SHOWN = 8
_STORY_BYTES_MAX = 64 * 1024
_WAITS = {
    "waiting": "wait for executors",
    "agreed": "have a result; they settle once its bytes are here and witnesses have acknowledged the commits",
}
_ENDS = {
    Verdict.FAILED: TaskState.FAILED,
    Verdict.DISPUTED: TaskState.DISPUTED,
    Verdict.UNSERVED: TaskState.FAILED,
    Verdict.CANCELLED: TaskState.CANCELLED,
}


@dataclass(frozen=True)
class Known:
    """One job this node knows: its own record, or what the ledger says, or both."""

    id: bytes
    offer: Offer
    owner: bytes
    own: Job | None
    state: OfferState | None


def known_jobs(parts: Parts) -> dict[bytes, Known]:
    """Every job this node knows, by offer id."""
    found: dict[bytes, Known] = {}
    certified = parts.ledger.replica.fold.offers
    for offer_id, state in certified.items():
        found[offer_id] = Known(offer_id, state.offer, state.owner, None, state)
    for offer_id, seen in parts.core.worker.offers.items():
        found.setdefault(offer_id, Known(offer_id, seen.offer, seen.owner, None, None))
    for offer_id, job in parts.core.owner.book.jobs.items():
        found[offer_id] = Known(offer_id, job.offer, parts.node.feed, job, certified.get(offer_id))
    return found


def find_job(parts: Parts, reference: str) -> Known:
    """The job meant by the beginning of its id or by its label.

    Raises:
        LocalError: none (exit 4) or several (exit 2) are meant.
    """
    jobs = known_jobs(parts)
    meant = [
        job
        for job in jobs.values()
        if job.offer.job_id == reference
        or (len(reference) >= REFERENCE_DIGITS_MIN and job.id.hex().startswith(reference.lower()))
    ]
    # A stranger may give a job a label that reads like the id of another: a whole id means the job of that id.
    meant = [job for job in meant if job.id.hex() == reference.lower()] or meant
    if not meant:
        raise LocalError(f"no job is called {reference}", "", "see: nexapod job list", Exit.NOT_FOUND)
    if len(meant) > 1:
        which = "\n".join(f"{job.id.hex()}  {job.offer.job_id}" for job in meant[:CANDIDATES_SHOWN])
        raise LocalError(f"{reference} may be one of {len(meant)} jobs", which, "give more of the id", Exit.USAGE)
    return meant[0]


# --- rows and documents -----------------------------------------------------------------------------------------------
async def job_list(parts: Parts) -> dict[str, Any]:
    """All jobs known here, oldest first by their publishers' clocks."""
    said_ms = {event.id: event.ts for event in await parts.ledger.offers()}
    rows = [job_row(parts, job, said_ms.get(job.id, 0)) for job in known_jobs(parts).values()]
    return {"jobs": sorted(rows, key=lambda row: (row["created_ms"], row["job"]))}


def job_row(parts: Parts, job: Known, created_ms: int) -> dict[str, Any]:
    """One job in a list."""
    return {
        "job": job.id.hex(),
        "job_id": job.offer.job_id,
        "owner": job.owner.hex(),
        "owner_name": parts.name_of(job.owner),
        "mine": job.own is not None,
        "state": state_of(job),
        "tasks": job.offer.tasks,
        "ended": _ended(job),
        "created_ms": created_ms,
        "paid_micro": job.state.paid if job.state else 0,
    }


def state_of(job: Known) -> str:
    """The job's state in words; another node's job is judged by its certified events."""
    if job.own is not None:
        return job.own.state.name.lower()
    if job.state is None:
        return JobState.QUEUED.name.lower()
    if job.state.open:
        return (JobState.RUNNING if job.state.sealed or job.state.ended else JobState.QUEUED).name.lower()
    verdicts = {ended.verdict for ended in job.state.ended.values()}
    if Verdict.CANCELLED in verdicts:
        return JobState.CANCELLED.name.lower()
    if verdicts & {Verdict.FAILED, Verdict.UNSERVED}:
        return JobState.FAILED.name.lower()
    return (JobState.DISPUTED if Verdict.DISPUTED in verdicts else JobState.SETTLED).name.lower()


def is_over(job: Known) -> bool:
    """Whether nothing more will happen to the job."""
    if job.own is not None:
        return job.own.over
    return job.state is not None and not job.state.open


def _ended(job: Known) -> int:
    if job.own is not None:
        return sum(task.state >= TaskState.SETTLED for task in job.own.tasks)
    return len(job.state.ended) if job.state else 0


async def job_document(parts: Parts, job: Known) -> dict[str, Any]:
    """One job with its tasks."""
    resolved = await _descriptor(parts, job)
    tasks = [_task_row(job, index) for index in range(job.offer.tasks)]
    event = await parts.ledger.event(job.id)
    paid = await _paid_by_task(parts, job)
    for row in tasks:
        row["paid_micro"] = paid.get(row["task"], 0)
    return job_row(parts, job, event.ts if event else 0) | {
        "image": resolved.image if resolved else "",
        "price_micro": job.offer.price,
        "replicas": job.offer.replicas,
        "quorum": job.offer.quorum,
        "verified": job.offer.quorum > 1,
        "why": _whys(tasks),
        "paid_micro": sum(paid.values()),
        "task_list": tasks,
    }


async def _descriptor(parts: Parts, job: Known) -> Resolved | None:
    if job.own is not None:
        return job.own.resolved
    if not parts.transfer.blobs.has(job.offer.descriptor):
        return None
    return decode_resolved(await parts.transfer.content(job.offer.descriptor))


def _task_row(job: Known, index: int) -> dict[str, Any]:
    root: bytes | None = None
    if job.own is not None:
        task = job.own.tasks[index]
        state, root, why, exit_code = task.state, task.root, task.why, task.exit_code
    else:
        ended = job.state.ended.get(index) if job.state else None
        sealed = job.state is not None and index in job.state.sealed
        state, why, exit_code = (TaskState.RUNNING if sealed else TaskState.WAITING), "", None
        if ended is not None:
            root = ended.root
            state = TaskState.SETTLED if ended.verdict is None else _ENDS[ended.verdict]
    shown = root.hex() if root else ""
    return {"task": index, "state": state.name.lower(), "root": shown, "why": why, "exit_code": exit_code}


def _whys(tasks: list[dict[str, Any]]) -> list[str]:
    """Each reason once, with how many tasks it holds for."""
    counts: dict[str, int] = {}
    for row in tasks:
        if row["why"]:
            counts[row["why"]] = counts.get(row["why"], 0) + 1
    return [why if count == 1 else f"{why} ({count} tasks)" for why, count in counts.items()]


async def _paid_by_task(parts: Parts, job: Known) -> dict[int, int]:
    paid: dict[int, int] = {}
    for event in await parts.ledger.of_offer(job.id):
        if isinstance(event.data, Settle) and event.data.offer == job.id:
            for entry in event.data.entries:
                paid[entry.task] = sum(opening.amount for opening in entry.openings)
    return paid


# --- executions -------------------------------------------------------------------------------------------------------
async def executions(parts: Parts, job: Known) -> dict[str, Any]:
    """Who ran what, with what came of it."""
    events = await parts.ledger.of_offer(job.id)
    rows = _public_executions(events, job.id)
    if job.own is not None:
        amounts = {(row["task"], row["node"]): row["amount_micro"] for row in rows}
        rows = [
            {
                "task": task.index,
                "round": execution.round,
                "node": execution.worker.hex(),
                "state": execution.state.name.lower(),
                "root": execution.opening.root.hex() if execution.opening else "",
                "amount_micro": amounts.get((task.index, execution.worker.hex()), 0),
                "permille": job.own.progress.get((task.index, execution.worker), 0),
                "why": execution.why,
            }
            for task in job.own.tasks
            for execution in task.executions
        ]
    for row in rows:
        row["name"] = parts.name_of(bytes.fromhex(row["node"]))
    return {"executions": rows}


def _public_executions(events: list[Event], offer: bytes) -> list[dict[str, Any]]:
    """Executions as the ledger tells of them."""
    rows: dict[tuple[bytes, int, int], dict[str, Any]] = {}
    by_commit: dict[tuple[bytes, int], dict[str, Any]] = {}
    for event in events:
        match event.data:
            case Commit(of, _, entries) if of == offer:
                for commit in entries:
                    row = rows[event.feed, commit.task, commit.round] = {
                        "task": commit.task, "round": commit.round, "node": event.feed.hex(), "state": "committed",
                        "root": "", "amount_micro": 0, "permille": 1000, "why": "",
                    }  # fmt: skip
                    by_commit[event.id, commit.task] = row
            case Seal(of, sealed) if of == offer:
                for seal in sealed:
                    for commit_id in seal.commits:
                        if (found := by_commit.get((commit_id, seal.task))) is not None:
                            found["state"] = "sealed"
            case Settle(of, settled) if of == offer:
                for entry in settled:
                    for opening in entry.openings:
                        if (found := by_commit.get((opening.commit, entry.task))) is not None:
                            agreed = opening.root in (None, entry.root)
                            found["state"] = "settled" if agreed else "differed"
                            found["root"] = (opening.root or entry.root).hex()
                            found["amount_micro"] = opening.amount
            case Void(of, voided) if of == offer:
                for end in voided:
                    for opening in end.openings:
                        if (found := by_commit.get((opening.commit, end.task))) is not None:
                            found["state"], found["root"] = "differed", (opening.root or b"").hex()
    return sorted(rows.values(), key=lambda row: (row["task"], row["round"], row["node"]))


# --- the story --------------------------------------------------------------------------------------------------------
async def story(parts: Parts, job: Known, after: int) -> dict[str, Any]:
    """The lines of a job's story from line `after` on. It is over once its last line can be read."""
    over = is_over(job)
    if job.own is not None:
        prefix = STORY_PREFIX + job.id + b"/"
        facts = await parts.ledger.facts(prefix)
        lines = [decode(raw, StoryRecord, size_max=_STORY_BYTES_MAX) for _, raw in sorted(facts.items())]
        rows = [(line.ms, line.step, line.task - 1 if line.task else None, line.feed, line.text) for line in lines]
        over = over and any(line.step == "close" for line in lines)
    else:
        rows = [_public_line(event) for event in await parts.ledger.of_offer(job.id)]
    events = [
        {"n": n, "ms": ms, "step": step, "task": task, "node": feed.hex(), "name": parts.name_of(feed), "text": text}
        for n, (ms, step, task, feed, text) in enumerate(rows)
        if n >= after
    ]
    return {"events": events, "next": max(after, len(rows)), "state": state_of(job), "over": over}


def _public_line(event: Event) -> tuple[int, str, int | None, bytes, str]:
    steps: dict[Any, str] = {
        Offer: "offer",
        Commit: "commit",
        Seal: "seal",
        Settle: "settle",
        Void: "void",
        Close: "close",
    }
    entries: Any = getattr(event.data, "entries", ())
    task = entries[0].task if len(entries) == 1 else None
    return event.ts, steps.get(type(event.data), "other"), task, event.feed, describe(event)


# --- explaining -------------------------------------------------------------------------------------------------------
async def explain(parts: Parts, job: Known) -> dict[str, Any]:
    """Why a job is where it is: what ended tasks say, and for each node known why it could or could not run it."""
    resolved = await _descriptor(parts, job)
    nodes = []
    for advert in parts.nodes.adverts():
        reasons = [] if resolved is None else reasons_against(resolved, capacity_of(advert), image_here=True)
        found = [{"code": reason.code, "detail": reason.detail} for reason in reasons]
        if advert.feed == job.owner:
            found.append({"code": "owner", "detail": "a publisher's own execution proves nothing"})
        elif job.own is not None and not job.own.over and not found and advert.feed not in job.own.claims:
            found.append(
                {"code": "no-claim", "detail": "it has not claimed the job; does an engine there hold the image?"}
            )
        node = {"node": advert.feed.hex(), "name": parts.name_of(advert.feed)}
        nodes.append(node | {"able": not found, "reasons": found})
    tasks = [_task_row(job, index) for index in range(job.offer.tasks)]
    why = _whys(tasks)
    for state, words in _WAITS.items():
        count = sum(row["state"] == state for row in tasks)
        if count and not is_over(job):
            why.append(f"{count} of {len(tasks)} tasks {words}")
    return {"state": state_of(job), "why": why, "nodes": nodes}


# --- results ----------------------------------------------------------------------------------------------------------
def _settled_roots(job: Known) -> dict[int, bytes]:
    if job.own is not None:
        return {t.index: t.root for t in job.own.tasks if t.state == TaskState.SETTLED and t.root is not None}
    ended = job.state.ended if job.state else {}
    return {task: end.root for task, end in sorted(ended.items()) if end.root is not None}


async def holders(parts: Parts, job: Known) -> list[bytes]:
    """Keys of nodes likely to hold the outputs of a job: its owner, then its executors."""
    feeds = [job.owner, *(bytes.fromhex(row["node"]) for row in (await executions(parts, job))["executions"])]
    keys = (parts.nodes.key_of(feed) for feed in dict.fromkeys(feeds))
    return [key for key in keys if key is not None and key != parts.node.key.public]


async def results(parts: Parts, job: Known) -> dict[str, Any]:
    """What the settled tasks left. Fetches manifests that are not here.

    Raises:
        Unavailable: nobody reachable holds a manifest.
    """
    likely = await holders(parts, job)
    tasks = []
    for task, root in _settled_roots(job).items():
        exit_code, files = await parts.transfer.need_manifest(root, holders=likely)
        rows = [{"path": file.path, "size": file.size, "sha256": file.sha256.hex()} for file in files]
        tasks.append({"task": task, "root": root.hex(), "exit_code": exit_code, "files": rows})
    return {"job": job.id.hex(), "job_id": job.offer.job_id, "state": state_of(job), "tasks": tasks}


async def result_file(parts: Parts, job: Known, task: int, path: str) -> tuple[bytes, int]:
    """SHA-256 and size of one file of a settled task; its blob is on this disk when this returns.

    Raises:
        LocalError: the task is not settled, or left no such file (exit 4). Unavailable: nobody reachable holds it.
    """
    root = _settled_roots(job).get(task)
    if root is None:
        what = f"task {task} of {job.offer.job_id} has no result"
        raise LocalError(what, "it is not settled", "see: nexapod job show", Exit.NOT_FOUND)
    likely = await holders(parts, job)
    _, files = await parts.transfer.need_manifest(root, holders=likely)
    for file in files:
        if file.path == path:
            await parts.transfer.need(file.sha256, size_max=file.size, holders=likely)
            return file.sha256, file.size
    raise LocalError(f"task {task} left no file {path}", "", "see: nexapod results ls", Exit.NOT_FOUND)


def logs(parts: Parts, job: Known, task: int | None) -> dict[str, Any]:
    """The end of what this node's own executions printed."""
    found = [
        {"task": index, "round": round_, "text": execution.log.decode(errors="replace")}
        for (offer, index, round_), execution in parts.errands.executions.items()
        if offer == job.id and task in (None, index) and execution.ended_ms
    ]
    return {"logs": found}
