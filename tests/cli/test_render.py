"""What answers look like, whatever is in them."""

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nexapod.cli.render import (
    CELL_CHARS_MAX,
    Column,
    clipped,
    credits,
    fancy,
    gigabytes,
    joined,
    lines,
    plain,
    put_one,
    put_rows,
    short,
    yes,
)
from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import Standin
from tests.cli.terminal import on_terminal

Process = Callable[..., subprocess.Popen[str]]
COLUMNS = [Column("a", "A"), Column("b", "BB", credits)]
ROWS: list[dict[str, Any]] = [{"a": "x", "b": 1_500_000, "c": "more"}, {"a": "longer"}]
EVIL = "\x1b[2J\x9b31m\x07\u202e\u2028state  settled\rx\n state  settled\x85\x00\ud800[link=http://x]"
LISTS = [
    "addresses", "balances", "engines", "events", "executions", "faults", "files", "forks", "gpus", "jobs",
    "ledger", "logs", "minted_micro", "nodes", "peers", "reasons", "refuted", "task_list", "tasks", "why",
]  # fmt: skip
WORDS = [
    "account", "able", "amount_micro", "balance_micro", "certified", "class", "code", "created_ms", "detail",
    "ended", "feed", "flops", "healthy", "id", "issuer", "job", "job_id", "kind", "mine", "ms", "name",
    "netid", "next", "node", "ok", "paid_micro", "path", "peer", "permille", "provisional", "ram_bytes",
    "reason", "ready", "root", "seq", "sha256", "size", "state", "state_root", "step", "task", "text",
    "ts_ms", "version",
]  # fmt: skip
KEYS = LISTS + WORDS
SHAPES: dict[str, Any] = {
    "null": None, "number": -5, "large": 10**400, "float": 1e308, "true": True, "text": "x", "evil": EVIL, "list": [],
    "nulls": [None], "texts": ["x", EVIL], "object": {EVIL: 1}, "rows": [{}], "evil rows": [dict.fromkeys(KEYS, EVIL)],
    "null rows": [dict.fromkeys(KEYS)], "odd rows": [{key: {"x": [EVIL]} for key in KEYS}],
    "rows of rows": [{key: [{"path": EVIL, "code": EVIL, "detail": [EVIL]}, EVIL, None] for key in KEYS}],
}  # fmt: skip
ASKING = [
    "status", "peers", "id", "node list", "node show x", "node why", "job list", "job show fold", "job explain fold",
    "job events fold", "job executions fold", "job logs fold", "results ls fold", "results cat fold x", "ledger log",
    "ledger show ab", "ledger balance", "ledger verify", "ledger forks",
]  # fmt: skip


class _Always(dict[str, Any]):
    """The same answer to every question."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__({"GET /livez": {"ok": True}})
        self.always = answer

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, self.always)


def shaped(shape: Any) -> _Always:
    """An answer whose every key has this shape; words are not rows as well, which would only be long."""
    words = EVIL if isinstance(shape, list) else shape
    return _Always(dict.fromkeys(WORDS, words) | dict.fromkeys(LISTS, shape) | {"over": True})


def control(text: str) -> set[str]:
    return {char for char in text if not char.isprintable()} - {"\n"}


@pytest.mark.parametrize("line", ASKING)
@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv"])
def test_no_answer_breaks_a_command_or_writes_to_the_terminal(
    nexapod: Run, standin: Standin, line: str, output: str
) -> None:
    for name, shape in SHAPES.items():
        standin.answers = shaped(shape)
        code, out, err = nexapod(*line.split(), "-o", output)
        assert code in set(Exit), (name, code, err)
        assert "a fault in nexapod itself" not in err, (name, err)
        assert not control(out + err), (name, control(out + err), out, err)
        if output == "json" and out:
            json.loads(out)
        if output == "jsonl":
            assert all(isinstance(json.loads(one), dict) for one in out.splitlines())


@pytest.mark.parametrize("line", ["job wait fold", "job events fold -f", "job events fold -f -o jsonl"])
def test_no_story_writes_to_the_terminal(nexapod: Run, standin: Standin, line: str) -> None:
    for shape in SHAPES.values():
        standin.answers = shaped(shape)
        code, out, err = nexapod(*line.split())
        assert "a fault in nexapod itself" not in err, err
        assert not control(out + err)
        assert code in set(Exit)


def test_a_refusal_writes_nothing_to_the_terminal(nexapod: Run, standin: Standin) -> None:
    fault = {"path": EVIL, "value": EVIL, "reason": EVIL, "suggestion": EVIL}
    for faults in ([fault], []):
        error = {"what": EVIL, "why": EVIL, "next": EVIL, "exit_code": 7, "faults": faults}
        standin.answers["GET /v1/jobs"] = (409, {"error": error})
        code, out, err = nexapod("job", "list")
        assert (code, out) == (Exit.REFUSED, "")
        assert not control(err)


def test_no_text_can_pass_for_another_line(nexapod: Run, standin: Standin) -> None:
    forged = "x\nstate    settled\rstate    settled\u2028state    settled\n12:00:00  close"
    event = {"step": "commit", "task": 0, "name": forged, "text": forged, "ms": 1}
    standin.answers |= {
        "GET /v1/jobs/f": {"job": "ab", "job_id": forged, "state": "running", "why": [forged], "image": forged},
        "GET /v1/jobs/f/events": {"events": [event], "next": 1, "state": "settled", "over": True},
        "GET /status": {"state": forged, "healthy": True, "why": [forged], "engines": [{"name": forged}]},
        "GET /v1/nodes": {"nodes": [{"name": forged, "feed": "ab"}]},
        "GET /v1/ledger/events/ab": {"id": forged, forged: 1},
    }  # fmt: skip
    for words in ("job show f", "job events f", "job events f -f", "status", "node list", "node show ab", "doctor",
                  "ledger show ab", "job wait f"):  # fmt: skip
        _, out, err = nexapod(*words.split())
        for shown in (out + err).split("\n"):
            assert not shown.startswith(("state    settled", "12:00:00")), (words, out)


def test_a_very_long_text_does_not_make_every_line_long(nexapod: Run, standin: Standin) -> None:
    long = "x" * 300_000
    nodes = [{"name": name, "feed": "ab" * 32, "class": "c"} for name in ("inn", long, "aare")]
    standin.answers["GET /v1/nodes"] = {"nodes": nodes}
    out = nexapod("node", "list")[1]
    assert max(map(len, out.splitlines())) < CELL_CHARS_MAX + 200
    assert "x…" in out
    assert json.loads(nexapod("node", "list", "-o", "json")[1]) == nodes
    assert long in nexapod("node", "list", "-o", "csv")[1]
    assert clipped("abcd", 3) == "ab…"
    assert clipped("abc", 3) == "abc"


def test_a_table_on_a_terminal_takes_no_markup_from_anybody(standin: Standin) -> None:
    name = "[red]a[/red]\\[link=x]b:smile:\x1b[31m"
    standin.answers["GET /v1/peers"] = {"peers": [{"name": name, "feed": "ab", "address": "/ip4/x", "peer": "12D"}]}
    with on_terminal("peers") as terminal:
        assert terminal.end() == 0
        assert "[red]a[/red]\\[link=x]b:smile: [31m" in terminal.seen
        assert "\x1b[1mNAME" in terminal.seen  # the heading is bold: colours are on
        assert "\x1b[31m" not in terminal.seen
    with on_terminal("peers", NO_COLOR="1") as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen
    with on_terminal("peers", TERM="dumb") as terminal:
        terminal.end()
        assert "\x1b" not in terminal.seen


def test_the_same_rows_in_four_formats(capfd: pytest.CaptureFixture[str]) -> None:
    def shown(output: str, rows: list[dict[str, Any]] = ROWS) -> tuple[str, str]:
        put_rows(output, rows, COLUMNS, "none")
        return capfd.readouterr()

    assert shown("table") == ("A       BB\nx       1.5\nlonger\n", "")
    assert shown("csv") == ("a,b\nx,1500000\nlonger,\n", "")
    assert json.loads(shown("json")[0]) == ROWS
    assert [json.loads(line) for line in shown("jsonl")[0].splitlines()] == ROWS
    assert shown("table", []) == ("", "none\n")
    assert shown("json", []) == ("[]\n", "")
    assert shown("csv", []) == ("a,b\n", "")
    assert not fancy()


def test_one_thing_in_four_formats(capfd: pytest.CaptureFixture[str]) -> None:
    thing = {"a": "x\ny", "b": [1], "c": {"d": "\x1b"}}
    columns = [Column("a", "a"), Column("b", "long", joined), Column("missing", "missing"), Column("c\x1b", "c")]

    def shown(output: str) -> str:
        put_one(output, thing, columns)
        return capfd.readouterr().out

    assert shown("table") == "a        x\n         y\nlong     1\n"
    assert shown("csv") == "a,b,missing,c \nx y,[1],,\n"
    assert json.loads(shown("json")) == json.loads(shown("jsonl")) == thing
    put_one("table", {}, [])
    assert capfd.readouterr() == ("", "")


def test_values_as_a_person_reads_them() -> None:
    assert [credits(value) for value in (0, 1, -1_500_000, 10**12, "x", None, 1.5)] == [
        "0", "0.000001", "-1.5", "1000000", "0", "0", "0",
    ]  # fmt: skip
    assert [gigabytes(value) for value in (1_500_000_000, "x", None)] == ["1.5 GB", "", ""]
    assert [yes(1), yes(None), joined([1, "a"]), joined("b"), joined(None), short("ab" * 32), short(None)] == [
        "yes", "no", "1, a", "b", "", "ab" * 6, "",
    ]  # fmt: skip
    assert plain("a\tb\nc\u202ed\U000e0001é漢") == "a b c d é漢"
    assert lines("a\x1b\nb\u2028c") == "a \nb\nc"


def test_a_full_disk_is_told_and_no_traceback(standin: Standin, process: Process) -> None:
    standin.answers["GET /v1/jobs"] = {"jobs": [{"job": "ab" * 5000}]}
    with open("/dev/full", "wb") as full, process("job", "list", stdout=full) as running:
        _, err = running.communicate(timeout=60)
    assert running.returncode == Exit.FAILURE
    assert "No space left on device" in err
    assert "Traceback" not in err
