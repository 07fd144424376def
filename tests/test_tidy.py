"""House style, as far as it can be counted. docs/CONTRIBUTING.md says why each rule is there."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.sources import ROOMS, ROOT, every_file, python_files, source_files, text_of, tree_of

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
POLL_S_MAX = 0.1

# Modules without a test file of their own name: the test file that covers them instead.
TESTED_ELSEWHERE = {
    # An adapter is nothing without the service that drives it and a real host.
    "dht/kad.py": "tests/dht/test_dht_service.py",
    "gossip/pubsub.py": "tests/gossip/test_gossip_service.py",
    # The parts of a job file: each key, shape and fault is tried through the whole file.
    "nexapod/job_faults.py": "tests/nexapod/test_job.py",
    "nexapod/job_shapes.py": "tests/nexapod/test_job.py",
    "nexapod/job_table.py": "tests/nexapod/test_job.py",
    "nexapod/job_yaml.py": "tests/nexapod/test_job_file.py",
    # Parts of commands, tried through the commands.
    "nexapod/cli/demo_mesh.py": "tests/cli/test_demo.py",
    "nexapod/cli/follow.py": "tests/cli/test_jobs.py",
    "nexapod/cli/process.py": "tests/cli/test_daemon_commands.py",
    "nexapod/cli/saving.py": "tests/cli/test_results.py",
    # An engine for tests, kept where other rooms' tests may use it; and an interface without code.
    "runtime/memory.py": "tests/runtime/test_runtime_service.py",
    "runtime/engine.py": "tests/runtime/test_docker.py",
    # What a node decides is told as stories and simulated: no file of it decides anything alone.
    "daemon/core/author.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/duties.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/node.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/openings.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/owner.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/ownerbook.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/step.py": "tests/daemon/core/test_scenarios.py",
    "daemon/core/worker.py": "tests/daemon/core/test_scenarios.py",
    # Assembly: there is nothing to it but the whole.
    "daemon/app.py": "tests/process/test_mesh_of_daemons.py",
    "daemon/main.py": "tests/process/test_mesh_of_daemons.py",
    "daemon/parts.py": "tests/process/test_mesh_of_daemons.py",
}

# Words that name a place where things are put because nobody knew what they are.
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "manager", "handler", "common", "misc", "base", "types"}

# Hosts that a tracked file may name: none of them is asked for anything by what is written here.
HOSTS = {
    "localhost", "127.0.0.1", "example.org", "index.invalid", "json-schema.org", "matplotlib.org", "bford.info",
    "creativecommons.org", "purl.org", "www.w3.org", "www.rfc-editor.org", "arxiv.org", "github.com",
}  # fmt: skip
LOCK_HOSTS = {"pypi.org", "files.pythonhosted.org"}


def none_of(found: Iterable[str]) -> None:
    """Assert that nothing was found, one line for each thing that was."""
    lines = list(found)
    assert not lines, "\n" + "\n".join(lines)


# --- size ------------------------------------------------------------------------------------------------------------
def test_functions_fit_on_a_screen() -> None:
    none_of(
        f"{path}:{node.lineno} {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}"
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_files_can_be_read_in_one_go() -> None:
    none_of(
        f"{path} has {lines} lines, at most {FILE_LINES_MAX}"
        for path in python_files()
        if (lines := text_of(path).count("\n")) > FILE_LINES_MAX
    )


# --- words -----------------------------------------------------------------------------------------------------------
def test_every_module_says_what_it_is() -> None:
    none_of(f"{path}:1 has no docstring" for path in python_files() if not ast.get_docstring(tree_of(path)))


def test_a_package_file_holds_one_sentence() -> None:
    none_of(
        f"{path} holds more than one sentence"
        for path in source_files()
        if path.name == "__init__.py" and (len(tree_of(path).body) != 1 or text_of(path).count("\n") != 1)
    )


def test_names_are_nouns_of_the_field() -> None:
    none_of(f"{path} is no name for a module" for path in python_files() if path.stem in EMPTY_WORDS)
    none_of(
        f"{path}:{node.lineno} class {node.name}"
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and EMPTY_WORDS & {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)}
    )


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
    none_of(
        f"{path}:{number} {line.strip()[:80]}"
        for path, number, line in lines_of(every_file())
        if path.name != Path(__file__).name and later.search(line)
    )


# --- places ----------------------------------------------------------------------------------------------------------
def test_no_file_knows_the_machine_it_was_written_on() -> None:
    homes = re.compile("(?<![A-Za-z0-9._~})-])/(?:home/(?!someone/|you/)[a-z]+|root|Users/[A-Za-z]+|work|mnt)/")
    none_of(
        f"{path}:{number} {line.strip()[:80]}" for path, number, line in lines_of(every_file()) if homes.search(line)
    )


def test_no_file_names_a_host_of_its_own_accord() -> None:
    address = re.compile(r"[a-z][a-z0-9+]*://(?:[^\s/@\"'`<>]*@)?([A-Za-z0-9.-]+)")
    none_of(
        f"{path}:{number} {host}"
        for path, number, line in lines_of(every_file())
        for host in address.findall(line)
        if "." in host
        and not host.startswith("192.0.2.")
        and host not in (LOCK_HOSTS if path.name == "uv.lock" else HOSTS)
    )


# --- tests -----------------------------------------------------------------------------------------------------------
def test_every_module_has_its_test() -> None:
    modules = [path for path in source_files() if path.name != "__init__.py"]
    excused = {path for path, test in TESTED_ELSEWHERE.items() if (ROOT / test).exists()}
    missing = [path for path in modules if not any((ROOT / test).exists() for test in mirrors(path))]
    none_of(f"{path} has no test ({mirrors(path)[0]})" for path in missing if str(path) not in excused)
    none_of(f"{path} is gone: take it off the list" for path in TESTED_ELSEWHERE if not (ROOT / path).exists())


def mirrors(path: Path) -> list[str]:
    """Where the test of a module may be; a room before its name, or `commands` behind it, keeps two files apart."""
    *rooms, name = path.with_suffix("").parts
    folders = [*("/".join(rooms[:depth]) for depth in range(len(rooms), 0, -1)), rooms[-1]]
    names = [name, f"{name}_commands", *("_".join((*rooms[start:], name)) for start in range(len(rooms) - 1, -1, -1))]
    return [f"tests/{folder}/test_{name}.py" for folder in folders for name in names]


def test_tests_wait_for_events_and_not_for_time() -> None:
    none_of(
        f"{path}:{call.lineno} sleeps"
        for path in python_files("tests")
        if path.name.startswith("test_") and "autojump_clock" not in text_of(path)
        for call, within in calls(tree_of(path))
        if called(call) in ("time.sleep", "trio.sleep") and not is_poll(call, within)
    )


def is_poll(call: ast.Call, within: tuple[ast.AST, ...]) -> bool:
    """A short pause in a loop that looks again: what it waits for happens where nobody can tell the test."""
    pause = call.args[0] if call.args else None
    short = isinstance(pause, ast.Constant) and isinstance(pause.value, int | float) and pause.value <= POLL_S_MAX
    return short and any(isinstance(node, ast.While | ast.For | ast.AsyncFor) for node in within)


# --- bounds ----------------------------------------------------------------------------------------------------------
def test_every_channel_has_a_bound_with_a_name_and_a_reason() -> None:
    none_of(
        f"{path}:{call.lineno} {called(call)}: {fault}"
        for path in source_files()
        for call, _ in calls(tree_of(path))
        if called(call).rpartition(".")[2] in ("open_memory_channel", "Queue", "SimpleQueue")
        if (fault := fault_of_bound(path, call))
    )


def fault_of_bound(path: Path, call: ast.Call) -> str:
    bound = call.args[0] if len(call.args) == 1 else None
    if isinstance(bound, ast.Constant) and bound.value == 0:
        return ""  # nothing waits: the two sides meet
    if not isinstance(bound, ast.Name) or not bound.id.isupper():
        return "its bound is not a constant with a name"
    for home in (path, Path("nexapod/limits.py")):
        for line in text_of(home).splitlines():
            if re.match(rf"{bound.id}\b[^=]*=", line):
                return "" if "#" in line else f"{bound.id} does not say what happens when it is full"
    return f"{bound.id} is defined neither here nor in nexapod/limits.py"


# --- walking ---------------------------------------------------------------------------------------------------------
def lines_of(paths: Iterable[Path]) -> Iterator[tuple[Path, int, str]]:
    for path in paths:
        try:
            content = text_of(path)
        except UnicodeDecodeError:
            continue  # not text
        for number, line in enumerate(content.splitlines(), 1):
            yield path, number, line


def calls(tree: ast.AST, within: tuple[ast.AST, ...] = ()) -> Iterator[tuple[ast.Call, tuple[ast.AST, ...]]]:
    """Every call with the nodes of its own function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, within
        inner = () if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else (*within, node)
        yield from calls(node, inner)


def called(call: ast.Call) -> str:
    """The dotted name of what is called, without type arguments."""
    function = call.func.value if isinstance(call.func, ast.Subscript) else call.func
    return ast.unparse(function)


def test_the_rooms_are_the_ones_on_disk() -> None:
    none_of(f"{room} is missing" for room in ROOMS if not (ROOT / room / "__init__.py").exists())
