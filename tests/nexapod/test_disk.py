"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from nexapod import disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_written_once(tmp_path: Path) -> None:
    disk.write_new(tmp_path / "a", b"first", 0o640)
    with pytest.raises(FileExistsError):
        disk.write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["a"]


def test_replacing_leaves_nothing_else_behind(tmp_path: Path) -> None:
    disk.replace(tmp_path / "a", b"first")
    disk.replace(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"second"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [disk.write_new, disk.replace])
def test_what_a_crash_left_behind_is_in_nobodys_way(tmp_path: Path, write: object) -> None:
    (tmp_path / "a.new").write_bytes(b"half")
    assert callable(write)
    write(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [disk.write_new, disk.replace])
def test_a_crash_before_the_end_leaves_what_was_there(
    tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(write)

    def crash(handle: int) -> None:
        raise OSError("the power went")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="power"):
        write(tmp_path / "a", b"whole")
    assert not (tmp_path / "a").exists()


def test_without_links_a_file_is_still_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system such as FAT has none."""

    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    disk.write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        disk.write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


def test_a_link_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "a.new").symlink_to(tmp_path / "other")
    disk.write_new(tmp_path / "a", b"ours")
    assert (tmp_path / "other").read_bytes() == b"precious"
