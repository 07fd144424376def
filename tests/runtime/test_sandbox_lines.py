"""No line of the box without a test that breaks when it is gone."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from runtime.sandbox import Mounted, out_volume, task_container
from runtime.task import TaskSpec
from tests.runtime.sandbox_lines import NOT_A_GUARD, SANDBOX, lines

HERE = Path(__file__).parent
MOUNTED = Mounted("sha256:00", "volume-1", "/scratch/in", {"nexapod.node": "n"}, image_volumes=("/data",))
ENGINES_OWN = {"HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths"}  # not asked for, and counted on


def test_every_line_has_a_test_and_every_test_is_there(task: Callable[..., TaskSpec]) -> None:
    spec = task(command=("true",), gpus=1)
    body = task_container(spec, msgspec.structs.replace(MOUNTED))
    asked = {line for line in lines(body, out_volume(spec)) if not line.startswith("HostConfig.Tmpfs./data.")}
    assert asked == (SANDBOX.keys() | NOT_A_GUARD.keys()) - ENGINES_OWN
    for name in set(SANDBOX.values()):
        file, _, test = name.partition("::")
        known = {node.name for node in ast.walk(ast.parse((HERE / file).read_text()))
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}  # fmt: skip
        assert test.partition("[")[0] in known, name


@pytest.mark.docker
@pytest.mark.skipif(os.environ.get("NEXAPOD_SLOW") != "1", reason="takes minutes: set NEXAPOD_SLOW=1")
@pytest.mark.parametrize("line", SANDBOX)
def test_without_a_line_its_test_fails(line: str, engine_host: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{HERE}/{SANDBOX[line]}"],
        env=os.environ | {"NEXAPOD_SANDBOX_WITHOUT": line, "DOCKER_HOST": engine_host, "NEXAPOD_SLOW": ""},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    print(f"\nwithout {line}: {SANDBOX[line]} {'fails' if done.returncode == 1 else 'does not fail'}")
    assert done.returncode == 1, f"without {line}, {SANDBOX[line]} does not fail: {last}"
