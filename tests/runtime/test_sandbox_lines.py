"""No line of the box without a test that breaks when it is gone; scripts/sandbox-lines shows it for each."""

import ast
from collections.abc import Callable
from pathlib import Path

import msgspec

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
