"""Where a node that leaves the choice of its port to the system listens again after a restart.

Knows multiaddrs and ports. Must never know who dials them. Peers remember where they met a node: one that came back
elsewhere each time would find nobody, and be found by nobody, when several restart at once.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_ANY = "/tcp/0"


def same_ports(wanted: Sequence[str], record: Path) -> list[str]:
    """The wanted addresses; where one asks for any port, the port of last time if it is free."""
    try:
        before = record.read_text().split()
    except (OSError, UnicodeDecodeError):
        before = []
    found = []
    for address in wanted:
        start = address.removesuffix("0") if address.endswith(_ANY) else None
        again = next((old for old in before if start and old.startswith(start) and _free(old)), address)
        before = [old for old in before if old != again]
        found.append(again)
    return found


def remember_ports(listening: Sequence[str], record: Path) -> None:
    """Keep where this node listens for its next start. A full disk is no reason not to run."""
    with suppress(OSError):
        record.write_text("\n".join(listening) + "\n")


def _free(address: str) -> bool:
    """Whether this machine lets us listen there now."""
    try:
        _, family, host, _, port = address.split("/")
        kind = socket.AF_INET6 if family == "ip6" else socket.AF_INET
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, ValueError, OverflowError):
        return False
    return True
