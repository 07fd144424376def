"""Commands about this node and its neighbours: id, status, peers, node, swarm, version.

Knows those answers of the local API. Must never know jobs or the ledger.
"""

from importlib.metadata import version as installed
from typing import Any

import click

from nexapod.cli.client import DaemonDown, part, rows, texts
from nexapod.cli.render import (
    Column,
    counted,
    credits,
    gigabytes,
    joined,
    plain,
    put,
    put_one,
    put_rows,
    say,
    short,
    yes,
)
from nexapod.cli.session import Group, command, room, session
from nexapod.errors import Exit, LocalError

ID = [
    Column("peer", "peer"),
    Column("feed", "feed"),
    Column("key", "key"),
    Column("network", "network"),
    Column("netid", "network id"),
    Column("addresses", "addresses", lambda found: "\n".join(map(plain, found))),
]
PEERS = [
    Column("name", "NAME"),
    Column("feed", "FEED", short),
    Column("address", "ADDRESS"),
    Column("inbound", "CAME TO US", yes),
    Column("peer", "PEER"),
]
NODES = [
    Column("name", "NAME"),
    Column("feed", "FEED", short),
    Column("tier", "TIER"),
    Column("engines", "ENGINES", joined),
    Column("cores", "CORES"),
    Column("ram_bytes", "MEMORY", gigabytes),
    Column("gpus", "GPUS", lambda found: str(len(found))),
    Column("flops", "GFLOP/S", lambda found: f"{found / 1e9:.1f}"),
    Column("class", "CLASS"),
    Column("seen", "SEEN"),
]


@command("id")
def identity() -> None:
    """Who this node is; works without a daemon."""
    try:
        found = session().api.get("/status")
    except DaemonDown:
        node = room("bootstrap.setup").load_node(session().home)
        found = {"peer": node.peer, "feed": node.feed.hex(), "key": node.key.public.hex(), "addresses": []}
        found |= {"network": node.manifest.name if node.manifest else "", "netid": node.netid.hex()}
    put_one(session().output, {column.key: found.get(column.key, "") for column in ID}, ID)


@command("version")
def version() -> None:
    """Which version this is."""
    put(f"nexapod {installed('nexapod')}")


@command("status")
def status() -> None:
    """How this node is doing: the verdict first."""
    found = session().api.get("/status")
    if session().output != "table":
        put_one(session().output, found, [Column(key, key) for key in found])
        return
    tasks, ledger = part(found, "tasks"), part(found, "ledger")
    health = "healthy" if found.get("healthy") else "not healthy"
    parts = [
        str(found.get("state", "?")).capitalize(),
        counted(found.get("peers", 0), "peer"),
        counted(tasks.get("running", 0), "task"),
        health,
    ]
    said = [" · ".join(parts)]
    said += [f"  why: {reason}" for reason in texts(found, "why")]
    said.append(f"node     {found.get('name') or '(no name)'}  {found.get('peer', '')}")
    said.append(f"network  {found.get('network', '')}  {short(found.get('netid'))}  {joined(found.get('addresses'))}")
    for engine in rows(found, "engines"):
        ready = "ready" if engine.get("ready") else f"not ready: {engine.get('why', '')}"
        said.append(f"engine   {engine.get('name', '')} {engine.get('version', '')}  {ready}")
    said.append(f"tasks    {tasks.get('running', 0)} running, {tasks.get('done', 0)} done")
    jobs = ", ".join(f"{count} {state}" for state, count in part(found, "jobs").items() if count)
    said.append(f"jobs     {jobs or 'none'}")
    total = sum(value for value in part(ledger, "minted_micro").values() if isinstance(value, int))
    said.append(
        f"ledger   {ledger.get('events', 0)} events of {ledger.get('feeds', 0)} feeds, "
        f"{ledger.get('certified_events', 0)} certified, {credits(total)} credits"
        f"{' (provisional)' if ledger.get('provisional') else ''}, state {short(ledger.get('state_root'))}"
    )
    for line in said:
        put(plain(line))


@command("peers")
def peers() -> None:
    """The nodes this one is connected to."""
    put_rows(session().output, rows(session().api.get("/v1/peers"), "peers"), PEERS, "no peer is connected")


@click.group("node", cls=Group)
def node() -> None:
    """Nodes of the mesh, and what this one does."""


@node.command("list")
def node_list() -> None:
    """Every node heard of, with what it lends."""
    put_rows(session().output, rows(session().api.get("/v1/nodes"), "nodes"), NODES, "no node is known")


@node.command("show")
@click.argument("name")
def node_show(name: str) -> None:
    """One node, by name or by the beginning of its feed or peer id."""
    found = [one for one in rows(session().api.get("/v1/nodes"), "nodes") if _means(name, one)]
    if not found:
        raise LocalError(f"no node is called {name}", "", "see: nexapod node list", Exit.NOT_FOUND)
    if len(found) > 1:
        which = ", ".join(short(one.get("feed")) for one in found)
        raise LocalError(f"{name} may be one of {len(found)} nodes", which, "give more of the feed id", Exit.USAGE)
    put_one(session().output, found[0], [Column(key, key, joined) for key in found[0]])


@node.command("why")
def node_why() -> None:
    """Why this node is not working on the offers it knows."""
    columns = [Column("offer", "OFFER", short), Column("reason", "REASON"), Column("detail", "DETAIL")]
    reasons = rows(session().api.get("/v1/node/why"), "reasons")
    put_rows(session().output, reasons, columns, "nothing is in the way")


@node.command("pause")
@click.option("--for", "for_s", metavar="TIME", help="How long, such as 90s, 30m or 2h (default: until resume).")
def node_pause(for_s: str | None) -> None:
    """Take no new work."""
    session().api.post("/v1/node/pause", {"for_s": seconds(for_s) if for_s else None})
    say(f"paused{f' for {for_s}' if for_s else ''}; running tasks go on. Undo: {session().nexapod} node resume")


@node.command("resume")
def node_resume() -> None:
    """Take work again."""
    session().api.post("/v1/node/resume", {"for_s": None})
    say("resumed")


@click.group("swarm", cls=Group)
def swarm() -> None:
    """Connections."""


@swarm.command("connect")
@click.argument("address")
def swarm_connect(address: str) -> None:
    """Connect to a peer at an address with /p2p/."""
    session().api.post("/v1/swarm/connect", {"address": address})
    say(f"connected to {address}")


def seconds(text: str) -> int:
    """Seconds of a time such as 90, 90s, 30m, 2h or 1d."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    if not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) == 0:
        raise click.BadParameter(f"{text!r} is not a time such as 90s, 30m or 2h")
    return int(number) * units[unit]


def _means(name: str, one: dict[str, Any]) -> bool:
    starts = (str(one.get(key, "")).startswith(name) for key in ("feed", "peer"))
    return bool(name) and (one.get("name") == name or any(starts))
