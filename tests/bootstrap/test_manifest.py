"""The manifest: one hash, one network; what no manifest may say."""

from typing import Any

import pytest

from bootstrap.manifest import Manifest, Member, Role, decode_manifest, feed_of_member, genesis_manifest, netid
from nexapod.encoding import NotCanonical, encode
from nexapod.events import make_genesis
from nexapod.identity import Key, next_key_digest

KEYS = sorted((Key.from_seed(bytes([n]) * 32) for n in range(1, 5)), key=lambda key: key.public)
NEXT = next_key_digest(Key.from_seed(b"\xff" * 32).public)


def member(index: int, roles: int = Role.WITNESS) -> Member:
    return Member(KEYS[index].public, NEXT, f"n{index}", int(roles), f"op{index}")


def manifest(**change: Any) -> Manifest:
    fields: dict[str, Any] = {
        "version": 1,
        "name": "lab",
        "note": "",
        "members": (member(0), member(1), member(2)),
        "threshold": 2,
        "issuers": (KEYS[0].public,),
    }
    return Manifest(**(fields | change))


def test_a_network_of_one_reads_back_and_its_id_depends_on_every_field() -> None:
    one = genesis_manifest("lab", KEYS[0].public, NEXT, node_name="a", note="1")
    assert decode_manifest(encode(one)) == one
    assert one.witnesses == one.anchors == one.members
    others = [
        genesis_manifest("lab2", KEYS[0].public, NEXT, node_name="a", note="1"),
        genesis_manifest("lab", KEYS[1].public, NEXT, node_name="a", note="1"),
        genesis_manifest("lab", KEYS[0].public, NEXT, node_name="a", note="2"),
    ]
    assert len({netid(item) for item in [one, *others]}) == 4


def test_a_members_feed_is_known_before_it_speaks() -> None:
    one = genesis_manifest("lab", KEYS[0].public, NEXT)
    assert feed_of_member(one, one.members[0]) == make_genesis(KEYS[0], netid(one), NEXT).id


@pytest.mark.parametrize(
    "change",
    [
        {"members": (member(1), member(0))},
        {"members": (member(0), member(0))},
        {"members": ()},
        {"threshold": 1},
        {"threshold": 4},
        {"threshold": 0},
        {"issuers": (KEYS[3].public,)},
        {"name": "two words"},
        {"note": "line\nend"},
        {"version": 2},
    ],
)
def test_what_no_manifest_may_say(change: dict[str, Any]) -> None:
    good = manifest()
    raw = encode([change.get(name, getattr(good, name)) for name in Manifest.__struct_fields__])
    with pytest.raises(NotCanonical):
        decode_manifest(raw)
    assert decode_manifest(encode(good)) == good


def test_a_mesh_without_witnesses_has_threshold_zero() -> None:
    open_mesh = manifest(members=(member(0, Role.ANCHOR),), threshold=0)
    assert decode_manifest(encode(open_mesh)).witnesses == ()


def test_a_name_no_network_may_have_is_refused() -> None:
    with pytest.raises(NotCanonical):
        genesis_manifest("a b", KEYS[0].public, NEXT)
