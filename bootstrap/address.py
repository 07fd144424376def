"""Addresses of peers as people and files write them: /ip4/192.0.2.7/tcp/4001/p2p/12D3...

Knows the grammar this network dials (IP or name, TCP, an Ed25519 peer). Must never resolve or dial anything.
"""

import ipaddress
import re
from typing import NamedTuple

from nexapod.identity import key_of_peer_id

ADDRESS_CHARS_MAX = 200
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


class PeerAddress(NamedTuple):
    """Where to dial, and whose key must answer there."""

    transport: str
    key: bytes
    peer: str

    def __str__(self) -> str:
        return f"{self.transport}/p2p/{self.peer}"


def parse_address(text: str) -> PeerAddress:
    """
    Raises:
        ValueError: saying what is wrong with the address.
    """
    transport, _, peer = text.partition("/p2p/")
    if not peer:
        raise ValueError("has no /p2p/ part: it must say which peer answers")
    check_transport(transport)
    try:
        return PeerAddress(transport, key_of_peer_id(peer), peer)
    except ValueError as error:
        raise ValueError(f"does not end in an Ed25519 peer id: {error}") from None


def check_transport(text: str) -> None:
    """
    Raises:
        ValueError: not a dialable IP or name with a TCP port.
    """
    parts = text.split("/")
    if len(text) > ADDRESS_CHARS_MAX or len(parts) != 5 or parts[0] or parts[3] != "tcp":
        raise ValueError("must read /ip4/ADDRESS/tcp/PORT (or ip6, dns4, dns6, dns)")
    _, kind, host, _, port = parts
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65535 or port[0] == "0":
        raise ValueError(f"{port[:20]!r} is not a port")
    match kind:
        case "ip4" | "ip6":
            found = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
            if found.is_unspecified or found.is_multicast or "%" in host:  # a zone means something on one machine only
                raise ValueError(f"{host} is not the address of one machine")
        case "dns" | "dns4" | "dns6":
            if not _NAME.fullmatch(host):
                raise ValueError(f"{host[:40]!r} is not a host name")
        case _:
            raise ValueError(f"{kind[:20]!r} is not a way this network dials")
