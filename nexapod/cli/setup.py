"""Commands that make a node and its network's files: init, bootstrap, config. They work without a daemon.

Knows which questions to ask. Must never hold a key: bootstrap.setup, opened when needed, does.
"""

import os
from contextlib import suppress
from pathlib import Path

import click

from nexapod.cli.client import Api, DaemonDown, texts
from nexapod.cli.render import Column, counted, joined, put, put_one, put_rows, say, short
from nexapod.cli.session import Group, command, room, session
from nexapod.errors import Exit, LocalError

_FILE = click.Path(path_type=Path, dir_okay=False)


@command("init")
@click.option("--new-network", metavar="NAME", help="Begin a network of your own with this node as its witness.")
@click.option("--bootstrap", "file", metavar="FILE", type=_FILE, help="Join the network of this file.")
@click.option("--name", default="", help="What others call this node.")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Address to listen on; may be given several times.")
def init(new_network: str | None, file: Path | None, name: str, listen: tuple[str, ...]) -> None:
    """Make this machine a node: key, settings, network."""
    if new_network and file:
        raise click.UsageError("a node begins a network or joins one: give --new-network or --bootstrap, not both")
    setup, home = room("bootstrap.setup"), session().home
    found = setup.load_bootstrap(file) if file else None  # a faulty file must not leave half a node behind
    node = setup.create_node(home, name=name, listen=listen)
    if new_network:
        node = setup.found_network(home, new_network, node_name=name)
    elif found is not None:
        node = setup.join_network(home, found)
    answer = {"peer": node.peer, "feed": node.feed.hex(), "key": node.key.public.hex(), "home": str(home.config)}
    answer |= {"network": node.manifest.name if node.manifest else "", "netid": node.netid.hex()}
    put_one(session().output, answer, [Column(key, key) for key in answer])
    if node.manifest is None:
        say(f"belongs to no network yet; next: {session().nexapod} bootstrap import FILE")
    else:
        say(f"next: {session().nexapod} daemon start")


@click.group("bootstrap", cls=Group)
def bootstrap() -> None:
    """First peers, and the file others join with."""


@bootstrap.command("list")
def bootstrap_list() -> None:
    """The peers in this node's book."""
    book = room("bootstrap.peerbook").read_book(session().home.peerbook_file)
    rows = [
        {"peer": peer.peer, "addresses": peer.full_addresses(), "pinned": peer.pinned, "failures": peer.failures}
        for peer in book.best_first()
    ]
    columns = [Column("peer", "PEER"), Column("failures", "FAILURES"), Column("addresses", "ADDRESSES", joined)]
    put_rows(session().output, rows, columns, "the book is empty")


@bootstrap.command("add")
@click.argument("address")
def bootstrap_add(address: str) -> None:
    """Remember a peer by an address with /p2p/; a running daemon connects at once."""
    setup = room("bootstrap.setup")
    setup.add_peers(session().home, (setup.address_of(address),))
    say("remembered for the daemon's next start")
    with suppress(DaemonDown):
        session().api.post("/v1/swarm/connect", {"address": address})
        say("connected")


@bootstrap.command("rm")
@click.argument("peer")
def bootstrap_rm(peer: str) -> None:
    """Forget a peer, by its id or the beginning of it."""
    peerbook, path = room("bootstrap.peerbook"), session().home.peerbook_file
    book = peerbook.read_book(path)
    found = [known for known in book.best_first() if peer and known.peer.startswith(peer)]
    if len(found) != 1:
        why = "several begin like this" if found else "it is not in the book"
        raise LocalError(f"cannot tell which peer {peer} is", why, "see: nexapod bootstrap list", Exit.NOT_FOUND)
    book.forget(found[0].key)
    peerbook.write_book(path, book)
    say(f"forgot {found[0].peer}")


@bootstrap.command("import")
@click.argument("file", type=_FILE)
def bootstrap_import(file: Path) -> None:
    """Join the network of a file, or learn its peers."""
    setup = room("bootstrap.setup")
    found = setup.load_bootstrap(file)
    if session().api.alive():
        answer = session().api.post("/register", {"bootstrap": found.document()})
        put_one(session().output, answer, [Column("feed", "feed"), Column("peer", "peer")])
    else:
        node = setup.join_network(session().home, found)
        put_one(
            session().output,
            {"feed": node.feed.hex(), "peer": node.peer},
            [Column("feed", "feed"), Column("peer", "peer")],
        )
    say(f"on network {found.manifest.name} with {counted(len(found.peers), 'known peer')}")


@bootstrap.command("export")
@click.option(
    "--address", "addresses", multiple=True, help="Address to put in (default: where the running daemon listens)."
)
@click.option("--file", "file", type=_FILE, help="Where to write (default: stdout).")
def bootstrap_export(addresses: tuple[str, ...], file: Path | None) -> None:
    """Write the file others join with, signed by this node."""
    given = list(addresses) or _listening(session().api)
    made = room("bootstrap.setup").export_bootstrap(session().home, given)
    _write(made.text(), file)
    if not made.peers:
        say("the file names no peer: give --address, or start the daemon first")


@bootstrap.command("check")
@click.argument("file", type=_FILE)
def bootstrap_check(file: Path) -> None:
    """Whether a file is sound, what network it is of, and who vouches for it."""
    found = room("bootstrap.setup").load_bootstrap(file)
    answer = {
        "network": found.manifest.name,
        "netid": found.netid.hex(),
        "witnesses": len(found.manifest.witnesses),
        "threshold": found.manifest.threshold,
        "peers": [str(peer) for peer in found.peers],
        "signed_by": [name or f"a stranger, {short(key.hex())}" for key, name in found.vouchers()],
    }
    put_one(
        session().output, answer, [Column(key, key, joined if key in ("peers", "signed_by") else str) for key in answer]
    )


@bootstrap.command("sign")
@click.argument("file", type=_FILE)
@click.option("--to", "target", type=_FILE, help="Where to write (default: the same file).")
def bootstrap_sign(file: Path, target: Path | None) -> None:
    """Vouch for a file with this node's key."""
    setup = room("bootstrap.setup")
    signed = setup.load_bootstrap(file).signed(setup.load_node(session().home).key)
    _write(signed.text(), target or file)
    say(counted(len(signed.signatures), "signature"))


@bootstrap.command("verify")
@click.argument("file", type=_FILE)
@click.option(
    "--by", "wanted", default=1, show_default=True, type=click.IntRange(1), help="How many members must have signed."
)
def bootstrap_verify(file: Path, wanted: int) -> None:
    """Exit 6 unless enough members of the network signed the file."""
    found = room("bootstrap.setup").load_bootstrap(file)
    members = {member.key for member in found.manifest.members}
    signed = len({item.key for item in found.signatures} & members)
    if signed < wanted:
        raise LocalError(
            f"{counted(signed, 'member')} signed {file.name}, {wanted} wanted",
            "",
            "ask a member to sign",
            Exit.DISPUTED,
        )
    put(f"{signed} of {len(members)} members signed")


@click.group("config", cls=Group)
def config() -> None:
    """Settings."""


@config.command("show")
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
def config_show(origin: bool) -> None:
    """The settings in force."""
    from nexapod.config import SETTINGS, load_config

    found = load_config(session().home, os.environ)
    rows = [{"key": key, "value": getattr(found, key), "origin": found.origins[key]} for key in SETTINGS]
    columns = [Column("key", "KEY"), Column("value", "VALUE", _value)]
    put_rows(session().output, rows, [*columns, Column("origin", "ORIGIN")] if origin else columns)


@config.command("reload")
def config_reload() -> None:
    """Have the running daemon read its settings again."""
    answer = session().api.post("/v1/node/reload")
    if session().output != "table":
        put_one(session().output, answer, [Column(key, key, joined) for key in answer])
        return
    say(f"taken now: {joined(answer.get('changed')) or 'nothing has changed'}")
    if later := joined(answer.get("at_next_start")):
        say(f"at the next start: {later}; run: {session().nexapod} daemon restart")


@config.command("socket")
def config_socket() -> None:
    """The path of the API socket, for other programs."""
    put(str(session().home.socket()))


def _listening(api: Api) -> list[str]:
    try:
        return texts(api.get("/status"), "addresses")
    except DaemonDown:
        return []


def _write(text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    draft = file.with_name(file.name + ".new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise LocalError(f"{file} cannot be written", error.strerror or "", "choose another file") from None
    say(f"wrote {file}")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return joined(value) if isinstance(value, tuple) else str(value)
