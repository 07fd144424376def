"""A node's first day: its keys, its settings, and the network it belongs to, as files in its home.

Knows which files make a node. Must never run a node. The command line comes here for what needs
keys or the network's files.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from bootstrap.address import PeerAddress, parse_address
from bootstrap.bootstrap_file import FILE_BYTES_MAX, Bootstrap, new_bootstrap, read_bootstrap
from bootstrap.manifest import Manifest, decode_manifest, feed_of_member, genesis_manifest, netid_of_bytes
from bootstrap.manifest import Member as _Member
from bootstrap.peerbook import PeerBook, pin_all, read_book, write_book
from nexapod import disk
from nexapod.config import SETTINGS, write_config
from nexapod.encoding import NotCanonical, encode
from nexapod.errors import Exit, LocalError
from nexapod.home import Home
from nexapod.identity import Key, next_key_digest, peer_id, read_key, write_key


@dataclass(frozen=True)
class Node:
    """Who a node is, and on which network; `manifest` is None while it belongs to none."""

    key: Key
    next_key_digest: bytes
    manifest: Manifest | None
    netid: bytes

    @property
    def peer(self) -> str:
        return peer_id(self.key.public)

    @property
    def feed(self) -> bytes:
        """Feed id on its network, empty while it belongs to none."""
        if self.manifest is None:
            return b""
        return feed_of_member(self.manifest, _Member(self.key.public, self.next_key_digest, "", 0, ""))


def create_node(home: Home, *, name: str, listen: tuple[str, ...]) -> Node:
    """Make keys and settings in an empty home.

    Raises:
        LocalError: the home has a key already; a key is never overwritten.
    """
    if home.key_file.exists():
        raise LocalError(
            "this home has a node already", f"{home.key_file} exists", "choose another --home", Exit.REFUSED
        )
    home.make_folders()
    if not home.config_file.exists():
        default = SETTINGS["listen"].default
        write_config(home, name=name, listen=listen or (default if isinstance(default, tuple) else ()))
    passphrase = _passphrase()
    # The next key first: a crash between the two leaves a home that is still without a node.
    if not home.next_key_file.exists():
        write_key(home.next_key_file, Key.fresh(), passphrase)
    write_key(home.key_file, Key.fresh(), passphrase)
    return load_node(home)


def load_node(home: Home) -> Node:
    """
    Raises:
        LocalError: no key, a damaged file, or a wrong passphrase.
    """
    passphrase = _passphrase()
    key = read_key(home.key_file, passphrase)
    digest = next_key_digest(read_key(home.next_key_file, passphrase).public)
    try:
        raw = home.manifest_file.read_bytes()
    except FileNotFoundError:
        return Node(key, digest, None, b"")
    try:
        return Node(key, digest, decode_manifest(raw), netid_of_bytes(raw))
    except NotCanonical as error:
        raise LocalError(f"{home.manifest_file} is damaged", str(error), "import the bootstrap file again") from None


def found_network(home: Home, network: str, *, node_name: str) -> Node:
    """Begin a network with this node as its only witness, anchor and issuer.

    Raises:
        LocalError: the node belongs to a network already, the name is not allowed, or the disk refuses.
    """
    node = load_node(home)
    try:
        # The random note keeps two networks apart that were given the same name.
        manifest = genesis_manifest(
            network, node.key.public, node.next_key_digest, node_name=node_name, note=os.urandom(8).hex()
        )
    except NotCanonical as error:
        raise LocalError(
            f"{network!r} cannot be a network's name", str(error), "letters, digits, dots", Exit.USAGE
        ) from None
    _adopt(home, encode(manifest))
    return load_node(home)


def join_network(home: Home, bootstrap: Bootstrap) -> Node:
    """Belong to the network of a bootstrap file and remember its peers.

    Raises:
        LocalError: the node belongs to another network.
    """
    _adopt(home, bootstrap.manifest_raw)
    add_peers(home, bootstrap.peers)
    return load_node(home)


def export_bootstrap(home: Home, addresses: list[str], *, sign: bool = True) -> Bootstrap:
    """The bootstrap file of this node's network: given addresses (with /p2p/), then the pinned peers.

    Raises:
        LocalError: the node belongs to no network, or an address is not allowed.
    """
    node = load_node(home)
    if node.manifest is None:
        raise LocalError("this node belongs to no network", "", "run: nexapod init --new-network NAME")
    pinned = [peer for peer in read_book(home.peerbook_file).best_first() if peer.pinned]
    known = [parse_address(text) for peer in pinned for text in peer.full_addresses()]
    made = new_bootstrap(node.manifest).with_peers((*(address_of(text) for text in addresses), *known))
    return made.signed(node.key) if sign else made


def address_of(text: str) -> PeerAddress:
    """
    Raises:
        LocalError: not an address of a peer.
    """
    try:
        return parse_address(text)
    except ValueError as error:
        example = "an address reads /ip4/192.0.2.7/tcp/4001/p2p/12D3..."
        raise LocalError(f"{text[:120]!r} {error}", "", example, Exit.USAGE) from None


def load_bootstrap(path: Path) -> Bootstrap:
    """
    Raises:
        LocalError: no such file. DescriptorFaults: it is not sound.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        return read_bootstrap(raw)
    except OSError as error:
        raise LocalError(f"{path} cannot be read", error.strerror or "", "give a bootstrap file", Exit.USAGE) from None


def add_peers(home: Home, peers: tuple[PeerAddress, ...]) -> PeerBook:
    """Pin peers in the book on disk. A running daemon reads it at its next start."""
    book = read_book(home.peerbook_file)
    pin_all(book, peers)
    write_book(home.peerbook_file, book)
    return book


def _adopt(home: Home, manifest_raw: bytes) -> None:
    try:
        disk.write_new(home.manifest_file, manifest_raw, 0o644)
    except FileExistsError:
        if home.manifest_file.read_bytes() != manifest_raw:
            what = "this node belongs to another network"
            raise LocalError(what, "a node's ledger holds one network", "choose another --home", Exit.REFUSED) from None
    except OSError as error:
        raise LocalError(f"{home.manifest_file} cannot be written", str(error), "choose another --home") from None


def _passphrase() -> str | None:
    # An empty one would look like protection and be none.
    return os.environ.get("NEXAPOD_PASSPHRASE") or None
