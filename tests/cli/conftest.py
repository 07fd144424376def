"""A stand-in daemon in a home of its own, and the command line in this process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexapod.cli.main import run
from nexapod.home import find_home
from tests.cli.standin import Standin, serving

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
    start = "import sys; sys.executable = sys.argv[1]; from nexapod.cli.main import main; main(sys.argv[2:])"

    def begin(*words: str, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", start, str(programs / "python"), *words]
        pipe = subprocess.PIPE
        env = os.environ | {"PYTHONPATH": root} | environ
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=env)

    return begin
