"""Every guard stands in the table of scripts/guards with a test that exists; that it fails then, the script shows."""

import ast
import inspect

import pytest

from daemon import guards
from tests.attacks.unguarded import DEFENCES
from tests.sources import ROOT


def called_by_install() -> set[str]:
    tree = ast.parse(inspect.getsource(guards.install))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {function.id for function in calls if isinstance(function, ast.Name)}


def test_every_guard_stands_in_the_table() -> None:
    names = {name.removeprefix("guards.") for name in DEFENCES}
    assert called_by_install() - names == set()
    public = {name for name, value in vars(guards).items() if inspect.isfunction(value) and not name.startswith("_")}
    own = {name for name in public if getattr(guards, name).__module__ == guards.__name__} - {"install"}
    assert own - names == set()


def test_every_guard_says_what_it_stops() -> None:
    for name in called_by_install() - {"check_library"}:
        assert (getattr(guards, name).__doc__ or "").startswith("Stops "), name


@pytest.mark.parametrize("name", DEFENCES)
def test_the_test_of_a_guard_exists(name: str) -> None:
    file, _, function = DEFENCES[name].test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function.partition("[")[0] in tests
