"""Where things lie, and that the socket's name always fits."""

import os
from pathlib import Path

import pytest

from nexapod.errors import LocalError
from nexapod.home import SOCKET_PATH_BYTES_MAX, find_home


def test_a_chosen_home_holds_everything(tmp_path: Path) -> None:
    home = find_home(str(tmp_path / "n"), {"NEXAPOD_HOME": "/elsewhere"})
    home.make_folders()
    for place in (home.key_file, home.ledger_dir, home.blobs_dir, home.log_file, home.socket(), home.lock_file):
        assert place.is_relative_to(tmp_path / "n")
    assert home.ledger_dir.stat().st_mode & 0o077 == 0
    assert find_home(None, {"NEXAPOD_HOME": str(tmp_path / "n")}) == home


def test_without_a_choice_the_users_own_folders_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    home = find_home(None, {})
    assert not home.together
    assert home.config_file == tmp_path / "c" / "nexapod" / "config.toml"


def test_a_long_home_gets_a_short_socket_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    home = find_home(str(tmp_path / ("x" * 120)), {})
    home.make_folders()
    place = home.make_socket_place()
    try:
        assert len(os.fsencode(place)) <= SOCKET_PATH_BYTES_MAX
        monkeypatch.setenv("XDG_RUNTIME_DIR", "")
        assert home.socket() == place, "the record wins over what this process would choose"
        os.chmod(place.parent, 0o755)
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
        with pytest.raises(LocalError, match="not ours alone"):
            home.make_socket_place()
    finally:
        place.parent.rmdir()
