"""This node and those around it as JSON documents.

Knows the answers of docs/api.md about nodes. Must never know HTTP.
"""

from collections import Counter
from importlib.metadata import version
from typing import Any

from daemon.core.states import DutyState
from daemon.local import ledger_documents
from daemon.local.job_documents import known_jobs, state_of
from daemon.loop import now
from daemon.parts import Parts
from nexapod.identity import peer_id
from nexapod.messages import Advert
from runtime.engine import EngineInfo
from runtime.task import RunState


def status(parts: Parts, started_s: float) -> dict[str, Any]:
    """How this node is doing. `started_s`: when it started, by the monotonic clock."""
    lending, now_s = parts.lending, now().mono_ms / 1000
    running = sum(duty.state == DutyState.RUNNING for duty in parts.core.worker.duties.all())
    done = sum(bool(execution.ended_ms) for execution in parts.errands.executions.values())
    why = _why(parts, now_s)
    state = "stopping" if lending.stopping else "paused" if lending.is_paused(now_s) else "running"
    state = "read-only" if parts.loop.halted is not None else state
    return identity(parts) | {
        "state": state,
        "healthy": not why,
        "why": why,
        "addresses": parts.mesh.addresses(),
        "peers": len(parts.neighbours.introduced()),
        "version": version("nexapod"),
        "uptime_s": int(now_s - started_s),
        "engines": [engine(info) for info in lending.engines],
        "slots": parts.core.worker.capacity.slots,
        "gossip": lending.config.gossip,
        "tasks": {"running": running, "done": done},
        "jobs": dict(Counter(state_of(job) for job in known_jobs(parts).values())),
        "ledger": ledger_documents.summary(parts.ledger.replica),
        "network_restarts": parts.mesh.restarts,
    }


def _why(parts: Parts, now_s: float) -> list[str]:
    """What is not as it should be, each with what to do."""
    found = []
    if (halted := parts.loop.halted) is not None:
        found.append(f"it writes nothing more and only lets itself be read: {halted}; {halted.next_step}")
    if not parts.mesh.addresses():
        found.append("the network host is being restarted")
    if not parts.neighbours.introduced():
        found.append("no peer is connected; see: nexapod bootstrap list")
    if parts.lending.config.work and not parts.lending.ready():
        reasons = "; ".join(info.why for info in parts.lending.engines if info.why)
        found.append(f"no engine can run tasks ({reasons or 'none is configured'}); see: nexapod doctor")
    if parts.lending.is_paused(now_s):
        found.append("paused by its owner; undo: nexapod node resume")
    return found


def identity(parts: Parts) -> dict[str, Any]:
    """Who this node is."""
    manifest = parts.node.manifest
    return {
        "name": parts.lending.config.name,
        "peer": parts.node.peer,
        "feed": parts.node.feed.hex(),
        "key": parts.node.key.public.hex(),
        "network": manifest.name if manifest else "",
        "netid": parts.node.netid.hex(),
    }


def engine(info: EngineInfo) -> dict[str, Any]:
    """One engine."""
    return {"name": info.name, "version": info.version, "ready": info.ready, "why": info.why}


def peers(parts: Parts) -> dict[str, Any]:
    """Open connections."""
    rows = []
    for key in sorted(parts.mesh.connected()):
        feed, latency = parts.nodes.feed_of(key), parts.connections.latency_s(key)
        rows.append(
            {
                "name": parts.name_of(feed) if feed else "",
                "feed": feed.hex() if feed else "",
                "peer": peer_id(key),
                "address": parts.mesh.remote_address(key) or "",
                "inbound": parts.mesh.is_inbound(key),
                "latency_ms": None if latency is None else round(latency * 1000, 1),
            }
        )
    return {"peers": rows}


def nodes(parts: Parts) -> dict[str, Any]:
    """Every node whose advert is known, this one first."""
    connected = parts.mesh.connected()
    rows = [_node(parts, advert, advert.key in connected) for advert in parts.nodes.adverts()]
    rows.sort(key=lambda row: (not row["me"], row["name"], row["feed"]))
    return {"nodes": rows}


def _node(parts: Parts, advert: Advert, connected: bool) -> dict[str, Any]:
    me = advert.key == parts.node.key.public
    heard_ms = parts.nodes.heard_ms_ago(advert.key) or 0
    profile = advert.profile
    return {
        "name": advert.name,
        "feed": advert.feed.hex(),
        "peer": peer_id(advert.key),
        "me": me,
        "tier": advert.tier,
        "engines": list(advert.engines),
        "slots": advert.slots,
        "cores": profile.cores,
        "ram_bytes": profile.ram_bytes,
        "disk_bytes": profile.disk_bytes,
        "flops": profile.flops,
        "class": profile.numeric_class,
        "gpus": [{"vendor": gpu.vendor, "name": gpu.name, "vram_bytes": gpu.vram_bytes} for gpu in profile.gpus],
        "addresses": list(advert.addresses),
        "seen": "this node" if me else "connected" if connected else f"{heard_ms // 1000} s ago",
    }


def why_not(parts: Parts) -> dict[str, Any]:
    """Why this node does not work on the offers it knows."""
    rows = [
        {"offer": offer.hex(), "job_id": seen.offer.job_id, "reason": reason.code, "detail": reason.detail}
        for offer, seen in parts.core.worker.offers.items()
        for reason in seen.reasons
    ]
    return {"reasons": rows}


def executions(parts: Parts) -> dict[str, Any]:
    """What this node runs or ran for others since it started."""
    rows = [
        {
            "job": offer.hex(),
            "task": task,
            "round": round_,
            "state": "ended" if execution.ended_ms else execution.state.value,
            "fetching_ms": execution.since_ms.get(RunState.FETCHING, 0),
            "running_ms": execution.since_ms.get(RunState.RUNNING, 0),
            "ended_ms": execution.ended_ms,
            "what": execution.what,
        }
        for (offer, task, round_), execution in parts.errands.executions.items()
    ]
    return {"executions": rows}
