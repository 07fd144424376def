"""Where engines are looked for."""

import hashlib
import json
from pathlib import Path

from runtime.sockets import candidates


def test_a_chosen_engine_is_the_only_one(tmp_path: Path) -> None:
    assert candidates({"DOCKER_HOST": "unix:///x", "HOME": str(tmp_path)}) == ("unix:///x",)


def test_the_current_context_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"lab").hexdigest()
    folder.mkdir(parents=True)
    (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": "lab"}))
    (folder / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "unix:///lab.sock"}}}))
    desktop = tmp_path / ".docker/run/docker.sock"
    desktop.parent.mkdir()
    desktop.touch()
    assert candidates({"HOME": str(tmp_path)})[:2] == ("unix:///lab.sock", f"unix://{desktop}")


def test_podman_is_found_after_docker(tmp_path: Path) -> None:
    for name in ("docker.sock", "podman/podman.sock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = candidates({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert found.index(f"unix://{tmp_path}/docker.sock") < found.index(f"unix://{tmp_path}/podman/podman.sock")


def test_a_broken_configuration_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("[1")
    assert candidates({"HOME": str(tmp_path)})
