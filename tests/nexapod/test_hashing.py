"""Tags keep purposes apart; the Merkle tree is that of RFC 6962."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexapod.hashing import HASH_BYTES, Tag, blob_id, merkle_root, tagged

# Test vectors of the certificate-transparency project for RFC 6962: these leaves, and the root after each of them.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(1, 9))
def test_the_tree_is_that_of_rfc_6962(count: int) -> None:
    assert merkle_root([bytes.fromhex(leaf) for leaf in LEAVES[:count]]).hex() == ROOTS[count - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle_root([]) == hashlib.sha256(b"").digest()


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written: split at the largest power of two below the count."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


@settings(derandomize=True)
@given(st.lists(st.binary(max_size=3), min_size=1, max_size=70))
def test_the_tree_is_that_of_its_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == by_definition(leaves)


def test_a_node_is_never_taken_for_a_leaf() -> None:
    left, right = (hashlib.sha256(b"\0" + leaf).digest() for leaf in (b"a", b"b"))
    assert merkle_root([b"a", b"b"]) != merkle_root([left + right])
    assert merkle_root([b"a", b"b"]) != merkle_root([b"b", b"a"])
    assert merkle_root([b"a", b"b", b"b"]) != merkle_root([b"a", b"b"])


def test_the_same_bytes_under_another_tag_are_another_hash() -> None:
    assert len({tagged(tag, b"x") for tag in Tag}) == len(Tag)
    assert all(len(tagged(tag)) == HASH_BYTES for tag in Tag)
    assert tagged(Tag.EVENT, b"a", b"b") == hashlib.sha256(b"nexapod/ev/1\0ab").digest()


def test_no_tag_is_the_beginning_of_another() -> None:
    ended = [f"{tag}\0" for tag in Tag]
    assert not [(one, other) for one in ended for other in ended if one != other and other.startswith(one)]
    assert all(tag.isascii() and "\0" not in tag and tag.startswith("nexapod/") for tag in Tag)


def test_a_blob_is_known_by_what_every_tool_computes() -> None:
    assert blob_id(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
