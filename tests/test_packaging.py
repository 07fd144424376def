"""What is shipped: the seven packages and nothing else, under names that are ours alone."""

import importlib.metadata
import os
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOMS, ROOT, source_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of this checkout, built with the tool that set the checkout up."""
    out = tmp_path_factory.mktemp("wheel")
    local = ROOT / ".cache/uv/bin/uv"
    uv = str(local) if local.exists() else shutil.which("uv")
    assert uv, "scripts/setup puts uv into .cache/uv/bin"
    environment = {"UV_CACHE_DIR": str(ROOT / ".cache/uv-cache"), "UV_PYTHON_DOWNLOADS": "never"} | os.environ
    if index := os.environ.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    # Hatchling lies in uv's cache since the setup built this very project; the network is asked only when it does not.
    for flags in (["--offline"], []):
        command = [uv, "build", "--wheel", "--quiet", *flags, "--out-dir", str(out), str(ROOT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_the_seven_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if not name.endswith("/")]
    packed = {Path(name).parts[0] for name in names}
    assert {top for top in packed if not top.endswith(".dist-info")} == set(ROOMS)
    assert not [name for name in names if "test" in Path(name).name or "__pycache__" in name]


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert {path.as_posix() for path in source_files()} <= set(wheel.namelist())


def test_the_wheel_brings_its_commands_and_its_license(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name for name in wheel.namelist()}
    assert {"entry_points.txt", "LICENSE"} <= names


def test_no_other_distribution_has_a_package_of_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    # An editable installation maps no names, and then nobody else may.
    assert {room: set(owners.get(room, ())) - {"nexapod"} for room in ROOMS} == {room: set() for room in ROOMS}


def test_the_commands_are_installed() -> None:
    scripts = importlib.metadata.distribution("nexapod").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in scripts} == PROJECT["project"]["scripts"]


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_a_command_starts_what_it_says(name: str) -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert callable(script.load())


def test_the_runtime_dependencies_hold_no_tool() -> None:
    tools = {"pytest", "ruff", "mypy", "hatchling", "hypothesis", "import-linter"}
    wanted = {requirement.partition(">")[0].partition("=")[0] for requirement in PROJECT["project"]["dependencies"]}
    assert not wanted & tools
