"""What the pages say is so: links lead somewhere, commands exist, drawings and examples match the code."""

import ast
import importlib.util
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import click
import pytest

from daemon.core.states import WALK
from nexapod.cli.main import COMMANDS, nexapod
from nexapod.encoding import encode
from nexapod.events import make_event, make_genesis
from nexapod.hashing import blob_id, merkle_root
from nexapod.identity import Key, next_key_digest, peer_id
from nexapod.messages import DATA_OF_KIND, AskPing, Done, Kind, Pay
from runtime.outputs import manifest_of, result_root
from runtime.task import OutputFile
from tests.engine import engine_host
from tests.sources import ROOT, every_file, source_files, text_of, tree_of

PAGES = [path for path in every_file() if path.suffix == ".md" and path.parts[0] in ("README.md", "docs", "examples")]
COMMAND_PAGES = [path for path in every_file() if path.suffix == ".md" and path.parts[0] != "tests"]


# --- links -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_relative_links_lead_somewhere(page: Path) -> None:
    dead = [target for target in links(text_of(page)) if not leads_somewhere(page, target)]
    assert not dead


def links(page: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^()\s]+)\)", prose):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    goal = (ROOT / page.parent / name).resolve() if name else ROOT / page
    if not goal.exists() or not goal.is_relative_to(ROOT):
        return False
    return not anchor or goal.suffix != ".md" or anchor in anchors(goal.read_text(encoding="utf-8"))


def anchors(page: str) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, open_pages = {Path("README.md")}, [Path("README.md")]
    while open_pages:
        page = open_pages.pop()
        for target in links(text_of(page)):
            goal = (ROOT / page.parent / target.partition("#")[0]).resolve().relative_to(ROOT)
            if goal.suffix == ".md" and goal not in reached:
                reached.add(goal)
                open_pages.append(goal)
    assert not set(PAGES) - reached


# --- commands --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", COMMAND_PAGES, ids=str)
def test_commands_on_a_page_exist(page: Path) -> None:
    faults = [f"{line}: {why}" for line in commands_on(text_of(page)) if (why := fault_of_command(line))]
    assert not faults, "\n" + "\n".join(faults)


def test_next_steps_that_errors_name_exist() -> None:
    advice = re.compile(r"(?:run|see|next|start it|undo|try):? (nexapod [a-z].*)", re.IGNORECASE)
    said = {
        (str(path), line)
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in advice.findall(node.value)
    }
    faults = [f"{path}: {line}: {why}" for path, line in sorted(said) if (why := fault_of_command(line))]
    assert not faults, "\n" + "\n".join(faults)


def test_the_readme_names_every_command() -> None:
    page = text_of(Path("README.md"))
    assert [name for name in COMMANDS if not re.search(rf"`?nexapod [^\n]*?\b{name}\b", page)] == []


def commands_on(page: str) -> Iterator[str]:
    """Command lines in indented or fenced blocks, and in code within a sentence."""
    page = re.sub(r"`([^`]*)\n([^`]*)`", r"`\1 \2`", page)  # a command broken over two lines of prose
    for line in page.splitlines():
        plain = line.strip().removeprefix("$ ")
        if plain.startswith("nexapod ") and not line.startswith("nexapod "):
            yield plain
        elif line.startswith("nexapod "):
            yield line
        else:
            yield from re.findall(r"`(nexapod [^`]+)`", line)
            yield from re.findall(r"\$\((nexapod [^)]+)\)", line)


def fault_of_command(line: str) -> str:
    """What is wrong with a command line, empty when nothing is. Words in capitals stand for a person's own."""
    line = re.split(r"\s[|>#&…]|\s{3,}|[;`…]", line)[0]
    try:
        words = shlex.split(line.rstrip(" .,:;)"))[1:]
    except ValueError as error:
        return str(error)
    command: click.Command = nexapod
    context = click.Context(nexapod, info_name="nexapod")
    rest = iter(words)
    for word in rest:
        if word == "--":
            return ""
        if word.startswith("-"):
            name, _, value = word.partition("=")
            option = option_of(command, context, name)
            if option is None:
                return f"{command.name} has no option {name}"
            if not option.is_flag and not value:
                next(rest, "")
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return "" if word.isupper() else f"{command.name} has no command {word}"
            command, context = found, click.Context(found, info_name=word, parent=context)
    return ""


def option_of(command: click.Command, context: click.Context, name: str) -> click.Option | None:
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and name in (*parameter.opts, *parameter.secondary_opts, "-h"):
            return parameter
    return None


@pytest.mark.docker
@pytest.mark.process
def test_the_five_minutes_by_hand_work_as_they_stand(tmp_path: Path) -> None:
    ports = iter(free_ports(3))
    lines = [
        line[4:] for line in section_of("README.md", "Five minutes by hand").splitlines() if line.startswith("    ")
    ]
    skipped = ("./quickstart", "export PATH", "eval", "scripts/engine", "rm ")  # the engine is the tests' own
    script = "\n".join(line for line in lines if not line.startswith(skipped))
    script = script.replace("$PWD/.run/", f"{tmp_path}/").replace(".run/", f"{tmp_path}/")
    script = re.sub(r"/tcp/\d+", lambda _: f"/tcp/{next(ports)}", script)
    homes = [tmp_path / "mesh" / name for name in ("ann", "ben", "cleo")]
    with engine_host() as host:
        environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "DOCKER_HOST": host}
        environment.pop("NEXAPOD_HOME", None)
        command = ["bash", "-euo", "pipefail", "-c", script]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
            )
        finally:
            for home in homes:
                subprocess.run(["nexapod", "--home", home, "daemon", "stop"], env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "weather").glob("*/state.csv"))) == 8
    for root in ("state_root", "frontier_root"):
        ann, ben = re.findall(rf"^{root} +(\w{{64}})$", done.stdout, re.MULTILINE)
        assert ann == ben


def section_of(page: str, title: str) -> str:
    _, _, rest = text_of(Path(page)).partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


# --- drawings and examples -------------------------------------------------------------------------------------------
def drawing_script() -> ModuleType:
    loader = SourceFileLoader("draw_states", str(ROOT / "scripts/draw-states"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_state_machines_are_drawn_as_they_are() -> None:
    page = text_of(Path("docs/architecture.md"))
    assert page == drawing_script().redrawn(page), "run: .venv/bin/python scripts/draw-states"


def test_every_section_an_error_names_is_a_page() -> None:
    named = {
        keyword.value.value
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "section" and isinstance(keyword.value, ast.Constant) and keyword.value.value
    }
    for section in sorted(named):
        page, _, heading = section.partition(": ")
        path = Path(f"docs/protocol/{page}.md")
        assert (ROOT / path).exists(), section
        assert not heading or heading in anchors(text_of(path)), section


def test_every_bound_a_page_names_exists() -> None:
    known = {
        target.id
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for outer in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(outer)
        if isinstance(target, ast.Name)
    }
    environment = re.compile(r"NEXAPOD_[A-Z_]+|LC_ALL|SOURCE_DATE_EPOCH|DOCKER_HOST")
    for page in PAGES:
        named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text_of(page)))
        assert {name for name in named - known if not environment.fullmatch(name)} == set(), page


def test_the_events_page_lists_every_kind_with_its_fields() -> None:
    page = text_of(Path("docs/protocol/events.md"))
    for kind, data in DATA_OF_KIND.items():
        row = re.search(rf"^\| {kind} \| {Kind(kind).name.lower()} \| ([^|]*) \|", page, re.MULTILINE)
        assert row, Kind(kind).name
        fields = re.sub(r"\[[^\]]*\]", "", row[1]).split(",")
        assert [field.strip() for field in fields] == list(data.__struct_fields__)


def test_the_examples_of_the_protocol_are_what_the_code_makes() -> None:
    pages = {path.stem: re.sub(r"\s+", "", text_of(path)) for path in PAGES if path.parent == Path("docs/protocol")}
    key, later, netid = Key.from_seed(bytes([1]) * 32), Key.from_seed(bytes([2]) * 32), bytes([7]) * 32
    digest = next_key_digest(later.public)
    genesis = make_genesis(key, netid, digest)
    for text in (key.public.hex(), peer_id(key.public), digest.hex(), genesis.id.hex()):
        assert text in pages["identity"]
    data = Pay(bytes([3]) * 32, genesis.feed, 1_500_000)
    payment = make_event(key, netid, feed=genesis.feed, seq=1, prev=genesis.id, ts=1_700_000_000_000, data=data)
    assert payment.id.hex() in pages["feeds"]
    assert f"({len(payment.raw)}bytes)" in pages["feeds"]
    assert encode((1, b"\n\v", "ok", None, True, (300,))).hex() in pages["encoding"]
    assert merkle_root([b"a", b"b", b"c"]).hex() in pages["encoding"]
    files = [OutputFile("state.csv", 5, blob_id(b"1,2,3")), OutputFile("summary.json", 2, blob_id(b"{}"))]
    assert result_root(manifest_of(0, files)).hex() in pages["results"]
    assert encode(AskPing()).hex() in pages["streams"]
    assert encode(Done()).hex() in pages["streams"]


def test_the_drawn_walk_is_the_walk_of_the_core() -> None:
    drawing = text_of(Path("docs/architecture.md")).partition("```mermaid\nsequenceDiagram")[2].partition("```")[0]
    said = re.findall(r"(?:->>\w+|Note over [\w,]+): (\w+)", drawing)
    steps = [word for word in said if word in WALK]
    assert tuple(dict.fromkeys(steps)) == WALK
    example = text_of(Path("docs/protocol/jobs.md")).partition("## ")[0]
    assert tuple(dict.fromkeys(re.findall(r"^    (\w+) ", example, re.MULTILINE))) == WALK
