"""The bootstrap file: signed, checked, every fault at once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.address import parse_address
from bootstrap.bootstrap_file import Bootstrap, new_bootstrap, parse_bootstrap, read_bootstrap
from bootstrap.manifest import genesis_manifest
from nexapod.identity import Key, next_key_digest, peer_id
from nexapod.job_faults import DescriptorFaults

OWNER, FRIEND = Key.from_seed(b"\x01" * 32), Key.from_seed(b"\x02" * 32)
MANIFEST = genesis_manifest("lab", OWNER.public, next_key_digest(FRIEND.public), node_name="first")
PEERS = tuple(
    parse_address(f"/ip4/192.0.2.{n}/tcp/4001/p2p/{peer_id(Key.from_seed(bytes([n]) * 32).public)}") for n in (1, 2)
)


def made() -> Bootstrap:
    return new_bootstrap(MANIFEST, PEERS).signed(OWNER).signed(FRIEND)


def faults_of(document: object) -> set[str]:
    with pytest.raises(DescriptorFaults) as caught:
        parse_bootstrap(document)
    return {fault.path for fault in caught.value.faults}


def test_a_signed_file_reads_back_and_names_its_vouchers() -> None:
    found = read_bootstrap(made().text())
    assert found == made()
    assert found.vouchers() == [(OWNER.public, "first"), (FRIEND.public, "")]
    assert found.signed(OWNER).signatures[-1].key == OWNER.public
    assert len(found.signed(OWNER).signatures) == 2


def test_other_peers_drop_the_signatures() -> None:
    assert made().with_peers((PEERS[0], PEERS[0])).signatures == ()
    assert made().with_peers((PEERS[0], PEERS[0])).peers == PEERS[:1]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"netid": "00" * 32}, "netid"),
        ({"network": "other"}, "network"),
        ({"manifest": "####"}, "manifest"),
        ({"manifest": "AAAA"}, "manifest"),
        ({"manifest": None}, "manifest"),
        ({"nexapod_bootstrap": 2}, "nexapod_bootstrap"),
        ({"nexapod_bootstrap": True}, "nexapod_bootstrap"),
        ({"peerz": []}, "peerz"),
        ({"peers": [str(PEERS[0])]}, "signatures[0]"),
        ({"peers": [str(PEERS[0])] * 2}, "peers[1]"),
        ({"peers": ["rubbish"]}, "peers[0]"),
        ({"peers": [7]}, "peers[0]"),
        ({"peers": {}}, "peers"),
        ({"signatures": [{"key": "zz", "signature": "AAAA"}]}, "signatures[0].key"),
        ({"signatures": [{"key": "00" * 32, "signature": "AAAA"}]}, "signatures[0]"),
        ({"signatures": ["x"]}, "signatures[0]"),
        ({"signatures": None}, "signatures"),
    ],
)
def test_a_change_is_a_fault_that_names_its_place(change: dict[str, Any], path: str) -> None:
    assert path in faults_of(made().document() | change)


def test_a_hostile_key_is_shown_without_its_escape_sequences() -> None:
    with pytest.raises(DescriptorFaults) as caught:
        parse_bootstrap(made().document() | {"\x1b[2J" + "x" * 10_000: "\x1b[31m"})
    assert all(line.isprintable() and len(line) < 400 for line in caught.value.why.splitlines())


@pytest.mark.parametrize("raw", [b"\xff\xfe{", b"\x00" * 100, b"\xef\xbb\xbf[", b'{"a": NaN}', b"9" * 5000])
def test_bytes_that_are_no_text_are_a_fault(raw: bytes) -> None:
    with pytest.raises(DescriptorFaults):
        read_bootstrap(raw)


def test_any_changed_byte_of_the_signed_part_is_noticed() -> None:
    text = made().text().encode()
    for at in range(0, len(text), 7):
        changed = text[:at] + bytes([text[at] ^ 0x01]) + text[at + 1 :]
        try:
            found = read_bootstrap(changed)
        except DescriptorFaults:
            continue
        assert found == made(), f"byte {at} changed what the file means, unnoticed"


def test_all_faults_are_told_at_once() -> None:
    document = made().document() | {"netid": "00", "network": "x", "peers": ["a", "b"], "extra": 1}
    assert {"netid", "network", "peers[0]", "peers[1]", "extra"} <= faults_of(document)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 200_000, " " * 300_000, "7"])
def test_what_is_no_bootstrap_file_is_a_fault(text: str) -> None:
    with pytest.raises(DescriptorFaults):
        read_bootstrap(text)


@settings(derandomize=True)
@given(
    st.recursive(st.none() | st.booleans() | st.text("ab/\x00", max_size=4), lambda inner: st.lists(inner, max_size=3))
)
def test_a_signature_list_of_anything_never_crashes(value: object) -> None:
    if value == []:
        assert parse_bootstrap(made().document() | {"signatures": value}).signatures == ()
    else:
        assert faults_of(made().document() | {"signatures": value})
