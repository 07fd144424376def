"""Addresses: the few forms this network dials."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.address import parse_address
from nexapod.identity import Key, peer_id

KEY = Key.from_seed(b"\x07" * 32).public
PEER = peer_id(KEY)


@pytest.mark.parametrize(
    "transport",
    ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/dns4/a-b.example.org/tcp/65535", "/dns/node/tcp/4001"],
)
def test_an_address_reads_back(transport: str) -> None:
    found = parse_address(f"{transport}/p2p/{PEER}")
    assert found == (transport, KEY, PEER)
    assert str(found) == f"{transport}/p2p/{PEER}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ip4/192.0.2.1/tcp/4001",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}x",
        "/ip4/192.0.2.1/tcp/4001/p2p/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "/ip4/192.0.2.1/tcp/4001/p2p/0OIl",
        f"/ip4/0.0.0.0/tcp/4001/p2p/{PEER}",
        f"/ip4/224.0.0.1/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/0/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/70000/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/٣/p2p/{PEER}",
        f"/ip4/192.0.2.1/udp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.999/tcp/4001/p2p/{PEER}",
        f"/ip6/zz/tcp/4001/p2p/{PEER}",
        f"/ip6/fe80::1%eth0/tcp/4001/p2p/{PEER}",
        f"/ip6/fe80::1%\x1b[31m/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER} ",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}\n",
        f"/ip4/192.0.2.1/tcp/4001\n/p2p/{PEER}",
        f"/ip4/192.0.2.01/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/04001/p2p/{PEER}",
        f"/dns4/{'a' * 64}.example/tcp/4001/p2p/{PEER}",
        "/ip4/192.0.2.1/tcp/4001/p2p/" + "1" * 1_000_000,
        "/" * 1_000_000,
        f"/dns4/bad host/tcp/4001/p2p/{PEER}",
        f"/dns4/-bad/tcp/4001/p2p/{PEER}",
        f"/unix/x/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/4001/ws/p2p/{PEER}",
        f"ip4/192.0.2.1/tcp/4001/p2p/{PEER}",
    ],
)
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


@settings(derandomize=True)
@given(st.text(max_size=80))
def test_no_text_crashes_it(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_address(f"/ip4/192.0.2.1/tcp/4001/p2p/{text}x")
