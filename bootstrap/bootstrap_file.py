"""The file that lets a node join: the network's manifest, a few peers to begin with, and who vouches for the list.

Knows the file's format and its signatures. Must never know how peers are dialled. The file comes from anywhere:
everything is checked, and every fault is told at once.
"""

import base64
import binascii
import json
from dataclasses import dataclass, replace
from typing import Any

from bootstrap.address import PeerAddress, parse_address
from bootstrap.manifest import Manifest, decode_manifest, netid_of_bytes
from nexapod.encoding import NotCanonical, encode
from nexapod.hashing import Tag, tagged
from nexapod.identity import Key, verify
from nexapod.job_faults import DescriptorFaults, nearest, shown
from nexapod.job_shapes import FAULTS_MAX, Faults, refuse

FILE_BYTES_MAX = 512 * 1024  # the largest manifest in base64, every peer and every signature
PEERS_MAX = 256
SIGNATURES_MAX = 64
BRACKETS_MAX = 3 + SIGNATURES_MAX  # the whole, two lists, a table for each signature; more only cost time and memory
KEYS = ("nexapod_bootstrap", "network", "netid", "manifest", "peers", "signatures")


@dataclass(frozen=True)
class Vouched:
    """One signature over manifest and peer list."""

    key: bytes
    signature: bytes


@dataclass(frozen=True)
class Bootstrap:
    """A checked bootstrap file. `manifest_raw` are the exact bytes whose hash is `netid`."""

    manifest: Manifest
    manifest_raw: bytes
    netid: bytes
    peers: tuple[PeerAddress, ...]
    signatures: tuple[Vouched, ...] = ()

    def digest(self) -> bytes:
        """What signatures cover: the network and the peers, in order."""
        return tagged(Tag.BOOTSTRAP, self.netid, encode([str(peer) for peer in self.peers]))

    def signed(self, key: Key) -> "Bootstrap":
        """The same with this key's signature, replacing an earlier one of the same key."""
        others = tuple(item for item in self.signatures if item.key != key.public)
        return replace(self, signatures=(*others, Vouched(key.public, key.sign(self.digest()))))

    def with_peers(self, peers: tuple[PeerAddress, ...]) -> "Bootstrap":
        """Another list of peers, without repetition; signatures over the old list are dropped."""
        return replace(self, peers=tuple(dict.fromkeys(peers)), signatures=())

    def vouchers(self) -> list[tuple[bytes, str]]:
        """Who signed, and the name of that member in the manifest, empty for a stranger."""
        names = {member.key: member.name or member.operator for member in self.manifest.members}
        return [(item.key, names.get(item.key, "")) for item in self.signatures]

    def document(self) -> dict[str, Any]:
        """The file as plain JSON values."""
        return {
            "nexapod_bootstrap": 1,
            "network": self.manifest.name,
            "netid": self.netid.hex(),
            "manifest": base64.b64encode(self.manifest_raw).decode(),
            "peers": [str(peer) for peer in self.peers],
            "signatures": [
                {"key": item.key.hex(), "signature": base64.b64encode(item.signature).decode()}
                for item in self.signatures
            ],
        }

    def text(self) -> str:
        """The content of the file."""
        return json.dumps(self.document(), indent=2) + "\n"


def new_bootstrap(manifest: Manifest, peers: tuple[PeerAddress, ...] = ()) -> Bootstrap:
    """An unsigned bootstrap file of this network."""
    raw = encode(manifest)
    return Bootstrap(manifest, raw, netid_of_bytes(raw), peers)


def read_bootstrap(text: str | bytes) -> Bootstrap:
    """
    Raises:
        DescriptorFaults: as `parse_bootstrap`; also too long or not JSON.
    """
    faults: Faults = []
    if len(text) > FILE_BYTES_MAX:
        refuse(faults, "", None, f"is larger than {FILE_BYTES_MAX} bytes")
        raise _faulty(faults)
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if raw.count(b"{") + raw.count(b"[") > BRACKETS_MAX:
        refuse(faults, "", None, "is no bootstrap file: it has too many lists and tables")
        raise _faulty(faults)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        refuse(faults, "", None, f"is not JSON: {str(error)[:200]}")
        raise _faulty(faults) from None
    return parse_bootstrap(document)


def parse_bootstrap(document: object) -> Bootstrap:
    """Check a whole document: its manifest hashes to its netid, its addresses can be dialled, its signatures hold.

    Raises:
        DescriptorFaults: with every fault found.
    """
    faults: Faults = []
    if not isinstance(document, dict):
        refuse(faults, "", document, "must be a table of names and values")
        raise _faulty(faults)
    for key in document:
        if key not in KEYS:
            refuse(faults, shown(key)[1:-1], document[key], "is not a known key", nearest(str(key), KEYS))
        if len(faults) == FAULTS_MAX:  # nobody hears of the rest, and looking for what was meant is slow
            raise _faulty(faults)
    if document.get("nexapod_bootstrap") != 1 or isinstance(document.get("nexapod_bootstrap"), bool):
        refuse(faults, "nexapod_bootstrap", document.get("nexapod_bootstrap"), "must be 1: the version of this format")
    manifest, raw = _manifest(document, faults)
    peers = _peers(document.get("peers", []), faults)
    signatures = _signatures(document.get("signatures", []), faults)
    if faults or manifest is None:
        raise _faulty(faults)
    found = Bootstrap(manifest, raw, netid_of_bytes(raw), peers, signatures)
    for index, item in enumerate(signatures):
        if not verify(item.key, found.digest(), item.signature):
            refuse(faults, f"signatures[{index}]", item.key.hex(), "does not sign this manifest and these peers")
    if faults:
        raise _faulty(faults)
    return found


def _manifest(document: dict[str, Any], faults: Faults) -> tuple[Manifest | None, bytes]:
    raw = _base64(document.get("manifest"), "manifest", faults)
    if raw is None:
        return None, b""
    try:
        manifest = decode_manifest(raw)
    except NotCanonical as error:
        refuse(faults, "manifest", None, str(error))
        return None, raw
    if document.get("netid") != netid_of_bytes(raw).hex():
        refuse(faults, "netid", document.get("netid"), "is not the hash of the manifest")
    if document.get("network") != manifest.name:
        refuse(faults, "network", document.get("network"), "is not the name in the manifest", manifest.name)
    return manifest, raw


def _peers(value: object, faults: Faults) -> tuple[PeerAddress, ...]:
    if not isinstance(value, list) or len(value) > PEERS_MAX:
        refuse(faults, "peers", None, f"must be a list of at most {PEERS_MAX} addresses")
        return ()
    found: list[PeerAddress] = []
    for index, item in enumerate(value):
        try:
            if not isinstance(item, str):
                raise ValueError("must be text")  # noqa: TRY004 - one kind of error for one kind of fault
            address = parse_address(item)
        except ValueError as error:
            refuse(faults, f"peers[{index}]", item, str(error))
            continue
        if address in found:
            refuse(faults, f"peers[{index}]", item, "stands in the list twice")
        found.append(address)
    return tuple(found)


def _signatures(value: object, faults: Faults) -> tuple[Vouched, ...]:
    if not isinstance(value, list) or len(value) > SIGNATURES_MAX:
        refuse(faults, "signatures", None, f"must be a list of at most {SIGNATURES_MAX} signatures")
        return ()
    found: list[Vouched] = []
    for index, item in enumerate(value):
        where = f"signatures[{index}]"
        if not isinstance(item, dict) or set(item) != {"key", "signature"}:
            refuse(faults, where, item, "must have key and signature, nothing else")
            continue
        signature = _base64(item["signature"], f"{where}.signature", faults)
        try:
            key = bytes.fromhex(item["key"]) if isinstance(item["key"], str) else b""
        except ValueError:
            key = b""
        if len(key) != 32 or key.hex() != item["key"]:
            refuse(faults, f"{where}.key", item["key"], "must be 64 lowercase hexadecimal digits")
        elif any(other.key == key for other in found):
            refuse(faults, f"{where}.key", item["key"], "signs twice")
        elif signature is not None:
            found.append(Vouched(key, signature))
    return tuple(found)


def _base64(value: object, where: str, faults: Faults) -> bytes | None:
    try:
        if isinstance(value, str) and value:
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    refuse(faults, where, value, "must be base64")
    return None


def _faulty(faults: Faults) -> DescriptorFaults:
    remedy = "ask whoever gave you the file for a fresh one"
    return DescriptorFaults(faults, subject="bootstrap file", result="nothing was joined", remedy=remedy)
