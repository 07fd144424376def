"""A node's first day: keys, a new network, joining one, and what is refused."""

from pathlib import Path

import pytest

from bootstrap.bootstrap_file import read_bootstrap
from bootstrap.peerbook import read_book
from bootstrap.setup import create_node, export_bootstrap, found_network, join_network, load_node
from nexapod.config import load_config
from nexapod.errors import LocalError
from nexapod.events import make_genesis
from nexapod.home import Home, find_home


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Home, Home, Home]:
    one, two, three = (find_home(str(tmp_path / name), {}) for name in "abc")
    for home in (one, two, three):
        create_node(home, name=home.config.name, listen=("/ip4/127.0.0.1/tcp/4001",))
    return one, two, three


def test_two_nodes_come_to_share_a_network(homes: tuple[Home, Home, Home]) -> None:
    one, two, _ = homes
    first = found_network(one, "lab", node_name="a")
    text = export_bootstrap(one, [f"/ip4/127.0.0.1/tcp/4001/p2p/{first.peer}"]).text()
    second = join_network(two, read_bootstrap(text))
    assert second.netid == first.netid
    assert second.feed == make_genesis(second.key, second.netid, second.next_key_digest).id != first.feed
    [known] = read_book(two.peerbook_file).best_first()
    assert known.pinned
    assert known.key == first.key.public
    assert load_config(two, {}).name == "b"
    assert join_network(two, read_bootstrap(text)).feed == second.feed, "joining twice changes nothing"


def test_a_key_is_never_overwritten(homes: tuple[Home, Home, Home]) -> None:
    before = homes[0].key_file.read_bytes()
    with pytest.raises(LocalError, match="has a node already"):
        create_node(homes[0], name="x", listen=())
    assert homes[0].key_file.read_bytes() == before
    assert homes[0].key_file.stat().st_mode & 0o077 == 0


def test_a_node_never_changes_its_network(homes: tuple[Home, Home, Home]) -> None:
    one, two, three = homes
    found_network(one, "lab", node_name="")
    found_network(two, "lab", node_name="")
    other = export_bootstrap(two, [])
    with pytest.raises(LocalError, match="another network"):
        join_network(one, other)
    with pytest.raises(LocalError, match="belongs to no network"):
        export_bootstrap(three, [])
    with pytest.raises(LocalError, match="cannot be a network's name"):
        found_network(three, "two words", node_name="")
    assert load_node(three).feed == b""


def test_a_damaged_manifest_is_told(homes: tuple[Home, Home, Home]) -> None:
    homes[0].manifest_file.write_bytes(b"\x00")
    with pytest.raises(LocalError, match="damaged"):
        load_node(homes[0])
