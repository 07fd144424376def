"""A stand-in daemon in a home of its own, and the command line in this process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from nexapod.cli.main import run
from nexapod.home import find_home
from tests.cli.standin import ENGINE_INFO, ENGINE_VERSION, Standin, serving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("NEXAPOD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEXAPOD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Standin]:
    with serving(Standin(find_home(str(tmp_path / "home"), {}))) as one:
        yield one


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """A container engine as DOCKER_HOST that has all that a node needs."""
    with serving(Standin(find_home(str(tmp_path / "engine"), {}))) as one:
        one.answers |= {"GET /version": ENGINE_VERSION, "GET /info": ENGINE_INFO}
        monkeypatch.setenv("DOCKER_HOST", f"unix://{one.home.socket()}")
        yield one


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Nothing is on the PATH but what this is called with: a name, and a shell script."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def nexapod(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line: its exit code, stdout and stderr."""

    def run_line(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    return run_line


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a command line as a process whose nexapod-daemon is the stand-in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nexapod-daemon"
    root = str(Path(__file__).parent.parent.parent)
    program.write_text(f"#!{sys.executable}\nfrom tests.cli.standin import main\nmain()\n")
    program.chmod(0o755)
    start = "import signal, sys; sys.executable = sys.argv[1]; from nexapod.cli.main import main; "
    # Where tests run in the background ^C is ignored, and so it would be by what they start.
    start += "signal.signal(signal.SIGINT, signal.default_int_handler); main(sys.argv[2:])"

    def begin(*words: str, stdout: int | IO[bytes] = subprocess.PIPE, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", start, str(programs / "python"), *words]
        env, none, pipe = os.environ | {"PYTHONPATH": root} | environ, subprocess.DEVNULL, subprocess.PIPE
        return subprocess.Popen(command, stdin=none, stdout=stdout, stderr=pipe, text=True, env=env)

    return begin
