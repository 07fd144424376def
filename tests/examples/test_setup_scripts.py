"""The shell scripts that prepare a machine: what they refuse, what they leave alone, what they clean up."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts in a folder of their own, so that nothing they do touches this checkout."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "quickstart", tmp_path / "quickstart")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def run(clone: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {"PATH": SYSTEM_PATH, "HOME": str(clone / "home"), **environment}
    return subprocess.run(command, cwd=clone, env=clean, capture_output=True, text=True, timeout=120, check=False)


def test_an_engine_asked_for_by_name_is_never_replaced_by_another(clone: Path) -> None:
    done = run(clone, "scripts/engine", "start", DOCKER_HOST=f"unix://{clone}/nothing.sock")
    assert done.returncode == 69
    assert "no engine answers there" in done.stderr
    assert done.stdout == ""
    assert not (clone / ".run/engine").exists()


@pytest.mark.docker
def test_a_private_engine_answers_and_leaves_nothing(clone: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("dockerd", path=SYSTEM_PATH):
        pytest.skip("only root with dockerd can start a private engine")
    if Path("/var/run/docker.sock").exists() or Path("/run/podman/podman.sock").exists():
        pytest.skip("this machine has an engine of its own, which goes first")
    try:
        started = run(clone, "scripts/engine", "start")
        assert started.returncode == 0, started.stderr
        address = started.stdout.removeprefix("export DOCKER_HOST=").strip()
        assert run(clone, "scripts/engine", "path").stdout.strip() == address
        again = run(clone, "scripts/engine", "start")
        assert "using the one at" in again.stderr
        pid = int((clone / ".run/engine/pid").read_text())
        assert Path(f"/proc/{pid}").exists()
        folder = (clone / ".run/engine/folder").read_text().strip()
    finally:
        stopped = run(clone, "scripts/engine", "stop")
    assert stopped.returncode == 0, stopped.stderr
    # A process nobody has waited for yet keeps its number, but has no command line any more.
    line = Path(f"/proc/{pid}/cmdline")
    assert not line.exists() or line.read_bytes() == b""
    assert not Path(folder).exists()
    assert folder not in Path("/proc/self/mounts").read_text()
    assert run(clone, "scripts/engine", "path").returncode == 1


def test_another_package_index_fills_this_clone_and_no_other_environment(clone: Path) -> None:
    # `uv pip` follows UV_PYTHON and sync removes what is not listed, so each call has to name the clone's own.
    tools = clone / "tools"
    tools.mkdir()
    (tools / "uv").write_text('#!/bin/sh\necho "UV_PYTHON=$UV_PYTHON $*" >>"$UV_CALLS"\n')
    (tools / "uv").chmod(0o755)
    (clone / ".venv").unlink()
    calls = clone / "calls"
    settings = {"PATH": f"{tools}:{SYSTEM_PATH}", "UV_CALLS": str(calls), "UV_SYSTEM_PYTHON": "1"}
    environment = {"PIP_INDEX_URL": "https://index.invalid/simple", "UV_PYTHON": "/usr/bin/python3"}
    done = run(clone, "scripts/setup", **settings, **environment)
    assert done.returncode == 0, done.stderr
    pip = [line for line in calls.read_text().splitlines() if " pip " in line]
    assert len(pip) == 2
    for line in pip:
        assert line.startswith("UV_PYTHON= ")
        assert f"--python {clone}/.venv/bin/python" in line
        assert "--default-index https://index.invalid/simple" in line


def test_two_quickstarts_in_one_clone_are_refused(clone: Path) -> None:
    (clone / ".run").mkdir()
    lock = str(clone / ".run/quickstart.lock")
    done = run(clone, "flock", lock, "./quickstart", "setup")
    assert done.returncode == 1
    assert "another one is running" in done.stderr


def test_a_failed_step_shows_its_reason_and_its_exit_code(clone: Path) -> None:
    (clone / "scripts/setup").write_text("#!/bin/sh\necho 'setup: python is missing' >&2\nexit 69\n")
    done = run(clone, "./quickstart", "setup")
    assert done.returncode == 69
    assert "✗ Python environment" in done.stdout
    assert "python is missing" in done.stderr
