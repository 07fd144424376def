"""A node's first day: keys, a new network, joining one, and what is refused."""

import os
from pathlib import Path

import pytest

from bootstrap.bootstrap_file import read_bootstrap
from bootstrap.peerbook import read_book
from bootstrap.setup import create_node, export_bootstrap, found_network, join_network, load_bootstrap, load_node
from nexapod.config import load_config
from nexapod.errors import LocalError
from nexapod.events import make_genesis
from nexapod.home import Home, find_home
from nexapod.job_faults import DescriptorFaults


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


def test_an_empty_passphrase_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look like protection."""
    monkeypatch.setenv("NEXAPOD_PASSPHRASE", "")
    home = find_home(str(tmp_path / "n"), {})
    create_node(home, name="n", listen=())
    assert b"plain" in home.key_file.read_bytes()
    monkeypatch.delenv("NEXAPOD_PASSPHRASE")
    assert load_node(home).key.public


def test_a_crash_while_a_network_is_joined_leaves_a_node_without_one(
    homes: tuple[Home, Home, Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a manifest would be neither a network nor none."""

    def crash(handle: int) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", crash)
        with pytest.raises(LocalError, match="cannot be written"):
            found_network(homes[0], "lab", node_name="")
    assert load_node(homes[0]).manifest is None
    assert found_network(homes[0], "lab", node_name="").manifest is not None


def test_a_bootstrap_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DescriptorFaults, match="larger than"):
        load_bootstrap(Path("/dev/zero"))
    with pytest.raises(LocalError, match="cannot be read"):
        load_bootstrap(tmp_path / "none")


def test_a_damaged_manifest_is_told(homes: tuple[Home, Home, Home]) -> None:
    homes[0].manifest_file.write_bytes(b"\x00")
    with pytest.raises(LocalError, match="damaged"):
        load_node(homes[0])
