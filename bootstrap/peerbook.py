"""The peers this node has heard of, kept over restarts, never more than a fixed number.

Knows keys, addresses and how often dialling failed. Must never dial. When the book is full the least useful
entry goes: never a pinned one, first those that never answered, then those that failed most often in a row, then
those seen longest ago. So a flood of invented peers drives out its own kind, also while this node is cut off and
nobody answers.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bootstrap.address import PeerAddress, check_transport, parse_address
from nexapod import disk
from nexapod.identity import peer_id
from nexapod.limits import ADDRESSES_MAX

PEERS_MAX = 1024
FILE_BYTES_MAX = 4 * 1024 * 1024
FAILURES_MAX = 1_000_000


@dataclass
class KnownPeer:
    """One peer. `last_ok_ms`: when it last answered by the caller's clock, 0 never. `pinned`: an operator named it."""

    key: bytes
    addresses: tuple[str, ...]
    last_ok_ms: int = 0
    failures: int = 0
    pinned: bool = False

    @property
    def peer(self) -> str:
        return peer_id(self.key)

    def full_addresses(self) -> tuple[str, ...]:
        return tuple(f"{address}/p2p/{self.peer}" for address in self.addresses)


@dataclass
class PeerBook:
    """Known peers by key."""

    peers: dict[bytes, KnownPeer] = field(default_factory=dict)
    peers_max: int = PEERS_MAX

    def learn(self, key: bytes, addresses: Iterable[str], *, pinned: bool = False) -> None:
        """Remember where a peer says it listens; newest addresses first, the oldest are lost.

        Addresses nobody could dial are left out: a peer may say anything.
        """
        old = self.peers.get(key)
        said = (address for address in islice(addresses, ADDRESSES_MAX) if _dialable(address))
        kept = tuple(dict.fromkeys((*said, *(old.addresses if old else ()))))[:ADDRESSES_MAX]
        if old:
            old.addresses, old.pinned = kept, old.pinned or pinned
        elif kept:
            if len(self.peers) >= self.peers_max and not self._evict(pinned):
                return
            self.peers[key] = KnownPeer(key, kept, pinned=pinned)

    def succeeded(self, key: bytes, address: str, now_ms: int) -> None:
        """The peer answered at `address`: it is tried first next time."""
        self.learn(key, [address])
        if key in self.peers:
            self.peers[key].last_ok_ms, self.peers[key].failures = now_ms, 0

    def failed(self, key: bytes) -> None:
        """No address of the peer answered."""
        if key in self.peers:
            self.peers[key].failures = min(self.peers[key].failures + 1, FAILURES_MAX)

    def forget(self, key: bytes) -> bool:
        """Strike a peer out; whether it stood in the book."""
        return self.peers.pop(key, None) is not None

    def best_first(self) -> list[KnownPeer]:
        """Most promising first: fewest failures, pinned, seen last."""
        return sorted(
            self.peers.values(), key=lambda peer: (peer.failures, not peer.pinned, -peer.last_ok_ms, peer.key)
        )

    def _evict(self, for_pinned: bool) -> bool:
        loose = [peer for peer in self.peers.values() if not peer.pinned]
        if not loose:
            return False
        worst = max(loose, key=lambda peer: (not peer.last_ok_ms, peer.failures, -peer.last_ok_ms, peer.key))
        # A full book of peers that answer does not lose one to a rumour.
        if not for_pinned and worst.failures == 0 and worst.last_ok_ms:
            return False
        del self.peers[worst.key]
        return True


def pin_all(book: PeerBook, peers: Sequence[PeerAddress]) -> None:
    """Put the peers of a bootstrap file into the book."""
    for peer in peers:
        book.learn(peer.key, [peer.transport], pinned=True)


def read_book(path: Path) -> PeerBook:
    """The book on disk. It is a cache of hints: what is missing or damaged is left out, never an error."""
    book = PeerBook()
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return book
    entries = document.get("peers", []) if isinstance(document, dict) else []
    for entry in entries[:PEERS_MAX] if isinstance(entries, list) else []:
        peer = _read_entry(entry)
        if peer:
            book.peers[peer.key] = peer
    return book


def write_book(path: Path, book: PeerBook) -> None:
    """Replace the file in one step: a crash leaves the old book or the new one."""
    entries = [
        {
            "addresses": peer.full_addresses(),
            "last_ok_ms": peer.last_ok_ms,
            "failures": peer.failures,
            "pinned": peer.pinned,
        }
        for peer in book.best_first()
    ]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk.replace(path, json.dumps({"version": 1, "peers": entries}, indent=1).encode())


def _dialable(address: str) -> bool:
    try:
        check_transport(address)
    except ValueError:
        return False
    return True


def _read_entry(entry: Any) -> KnownPeer | None:
    try:
        addresses = [parse_address(text) for text in entry["addresses"][:ADDRESSES_MAX]]
        last_ok_ms, failures, pinned = int(entry["last_ok_ms"]), int(entry["failures"]), entry["pinned"] is True
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    if not addresses or len({address.key for address in addresses}) != 1 or not 0 <= failures <= FAILURES_MAX:
        return None
    transports = tuple(address.transport for address in addresses)
    return KnownPeer(addresses[0].key, transports, max(0, last_ok_ms), failures, pinned)
