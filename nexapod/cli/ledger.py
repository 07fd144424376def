"""The group `ledger`: log, show, balance, verify, forks; with --offline straight from this home, without a daemon.

Knows the answers about the ledger, which are the same both ways. Must never judge an event.
"""

from collections.abc import Callable, Iterable
from typing import Any

import click

from nexapod.cli.client import DaemonDown, part, rows, segment, texts
from nexapod.cli.render import Column, credits, put, put_one, put_rows, say, short, yes
from nexapod.cli.session import Group, room, session
from nexapod.cli.story import day
from nexapod.errors import Exit, LocalError

VERIFY_S = 600.0  # every signature from the first event on
LOG = [
    Column("id", "ID", short),
    Column("name", "FEED"),
    Column("seq", "SEQ"),
    Column("kind", "KIND"),
    Column("ts_ms", "TIME", day),
    Column("certified", "CERTIFIED", yes),
    Column("text", "TEXT"),
]
BALANCES = [
    Column("name", "NAME"),
    Column("account", "ACCOUNT", short),
    Column("issuer", "ISSUER"),
    Column("colour", "COLOUR", short),
    Column("balance_micro", "BALANCE", credits),
    Column("earned_micro", "EARNED", credits),
]
FORKS = [
    Column("name", "FEED"),
    Column("feed", "FEED ID", short),
    Column("seq", "SEQ"),
    Column("kept", "KEPT", short),
    Column("other", "OTHER", short),
]
PROVISIONAL = "provisional: the witnesses have not certified all of it yet; it may still change"
_OFFLINE = click.option("--offline", is_flag=True, help="Read this home's own copy; no daemon is needed.")


@click.group("ledger", cls=Group)
def ledger() -> None:
    """What happened and who is owed, as this node's own copy has it."""


@ledger.command("log")
@click.option("--feed", help="Only of this feed (the beginning of its id).")
@click.option("--job", help="Only about this job.")
@click.option("--kind", help="Only of this kind, such as settle.")
@click.option("--after", type=int, help="With --feed: only events after this number.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@_OFFLINE
def log(offline: bool, **query: Any) -> None:
    """Signed events: the newest, or those of a feed or a job."""
    query = {key: value for key, value in query.items() if value is not None}
    found = _ask(
        offline,
        lambda: session().api.get("/v1/ledger/log", **query),
        lambda room: room.log(session().home, **query),
    )
    put_rows(session().output, rows(found, "events"), LOG, "the ledger has no such event")


@ledger.command("show")
@click.argument("event")
@_OFFLINE
def show(event: str, offline: bool) -> None:
    """One event, by the beginning of its id, and whether it is signed."""
    found = _ask(
        offline,
        lambda: session().api.get(f"/v1/ledger/events/{segment(event)}"),
        lambda room: room.show(session().home, event),
    )
    put_one(session().output, found, [Column(key, key, day if key == "ts_ms" else _shown) for key in found])


@ledger.command("balance")
@click.argument("account", required=False)
@_OFFLINE
def balance(account: str | None, offline: bool) -> None:
    """Credits by account and colour (whose credits they are)."""
    found = _ask(
        offline,
        lambda: session().api.get("/v1/ledger/balances", account=account),
        lambda room: room.balances(session().home, account),
    )
    held = rows(found, "balances")
    if session().output == "json":
        put_one("json", found, [])
    else:
        put_rows(session().output, held, BALANCES, "nobody has earned anything yet")
    if session().output == "table" and account is None:
        minted = _sum(part(found, "minted_micro").values())
        put(f"minted {credits(minted)} credits, held {credits(_sum(row.get('balance_micro') for row in held))}")
    if found.get("provisional"):
        say(PROVISIONAL)


@ledger.command("verify")
@_OFFLINE
def verify(offline: bool) -> None:
    """Check every signature, link and verdict again, from the first event on; exit 6 when one is wrong."""
    found = _ask(
        offline,
        lambda: session().api.get("/v1/ledger/verify", timeout_s=VERIFY_S),
        lambda room: room.verify(session().home),
    )
    put_one(session().output, found, [Column(key, key, _shown) for key in found])
    if found.get("provisional"):
        say(PROVISIONAL)
    if found.get("ok") is not True:
        faults = texts(found, "faults") + texts(found, "refuted")
        next_step = "keep it as evidence, and fetch a copy from other nodes with a new home"
        raise LocalError("this copy of the ledger is not sound", "\n".join(faults[:50]), next_step, Exit.DISPUTED)


@ledger.command("forks")
@_OFFLINE
def forks(offline: bool) -> None:
    """Proofs that an author signed two histories."""
    found = _ask(offline, lambda: session().api.get("/v1/ledger/forks"), lambda room: room.forks(session().home))
    put_rows(session().output, rows(found, "forks"), FORKS, "no fork is known")


def _ask(offline: bool, online: Callable[[], dict[str, Any]], home: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The answer of the daemon, or of the room that reads the ledger without one."""
    if offline:
        if session().api.alive():
            what, why = "the ledger is in use", "the daemon runs and keeps it open"
            raise LocalError(what, why, "leave --offline out: the daemon gives the same answer")
        return home(room("daemon.offline"))
    try:
        return online()
    except DaemonDown as down:
        raise DaemonDown(down.what, down.why, f"{down.next_step}, or add --offline", down.exit_code) from None


def _sum(amounts: Iterable[object]) -> int:
    return sum(amount for amount in amounts if isinstance(amount, int))


def _shown(value: object) -> str:
    import json

    match value:
        case bool():
            return yes(value)
        case list() if all(isinstance(item, str) for item in value):
            return ", ".join(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
