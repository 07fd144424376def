"""Inputs as a folder of links."""

from pathlib import Path

import pytest

from runtime.inputs import BadInput, stage


def test_files_stand_at_their_paths_and_share_their_bytes(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"1")
    stage({"a/b/c": blob, "d": blob}, tmp_path / "in")
    assert (tmp_path / "in/a/b/c").read_bytes() == b"1"
    assert (tmp_path / "in/d").stat().st_ino == blob.stat().st_ino
    for folder in ("in", "in/a", "in/a/b"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o755
    (tmp_path / "in/d").unlink()
    assert blob.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a\n"])
def test_no_path_leaves_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput):
        stage({path: tmp_path / "blob"}, tmp_path / "in")
    assert not list(tmp_path.iterdir())


def test_a_file_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "blob").touch()
    with pytest.raises(BadInput, match="below a file"):
        stage({"a": tmp_path / "blob", "a/b": tmp_path / "blob"}, tmp_path / "in")


def test_a_blob_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stage({"a": tmp_path / "gone"}, tmp_path / "in")
