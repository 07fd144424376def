"""The ledger from the command line, with a daemon and from the home alone."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nexapod.errors import Exit
from tests.cli.conftest import Run
from tests.cli.standin import Standin

BALANCES: dict[str, Any] = {
    "balances": [{"account": "ab" * 32, "name": "inn", "colour": "cd" * 32, "issuer": "aare",
                  "balance_micro": 1_500_000, "earned_micro": 2_000_000}],
    "provisional": True,
    "minted_micro": {"cd": 2_000_000},
}  # fmt: skip
SOUND = {"ok": True, "events": 3, "feeds": 1, "verdicts": 0, "state_root": "ab", "frontier_root": "cd",
         "provisional": False, "faults": [], "refuted": []}  # fmt: skip


def test_a_provisional_balance_is_called_that(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /v1/ledger/balances"] = BALANCES
    code, out, _ = nexapod("ledger", "balance")
    assert code == 0
    assert "1.5" in out
    assert "minted 2 credits, held 1.5" in out
    for output in ("table", "json", "jsonl", "csv"):
        assert "provisional" in nexapod("ledger", "balance", "inn", "-o", output)[2]
    assert standin.asked[-1][1] == {"account": "inn"}
    standin.answers["GET /status"] = {"state": "running", "ledger": {"provisional": True}}
    assert "(provisional)" in nexapod("status")[1]


def test_a_ledger_that_is_not_sound_exits_6(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /v1/ledger/verify"] = SOUND
    assert nexapod("ledger", "verify")[0] == 0
    standin.answers["GET /v1/ledger/verify"] = SOUND | {"ok": False, "faults": ["event 7 of inn is not signed"]}
    code, out, err = nexapod("ledger", "verify", "-o", "json")
    assert code == Exit.DISPUTED
    assert json.loads(out)["events"] == 3
    assert "event 7 of inn is not signed" in err


def test_offline_beside_a_running_daemon_is_explained(nexapod: Run, standin: Standin) -> None:
    code, _, err = nexapod("ledger", "verify", "--offline")
    assert code == Exit.FAILURE
    assert "leave --offline out" in err


def test_log_show_forks(nexapod: Run, standin: Standin) -> None:
    event = {"id": "ab" * 32, "feed": "cd" * 32, "name": "inn", "seq": 3, "kind": "settle", "ts_ms": 1,
             "certified": True, "text": "settles task 0"}  # fmt: skip
    standin.answers["GET /v1/ledger/log"] = {"events": [event]}
    standin.answers["GET /v1/ledger/events/ab12"] = event | {"data": {"x": [1]}, "signed": True, "faults": []}
    standin.answers["GET /v1/ledger/forks"] = {"forks": []}
    assert "settles task 0" in nexapod("ledger", "log", "--job", "fold", "--kind", "settle", "-n", "5")[1]
    assert standin.asked[-1][1] == {"job": "fold", "kind": "settle", "limit": "5"}
    assert '{"x": [1]}' in nexapod("ledger", "show", "ab12")[1]
    assert nexapod("ledger", "forks") == (0, "", "no fork is known\n")


def test_without_a_daemon_the_home_answers(nexapod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(document: dict[str, Any]) -> Any:
        return lambda home, *rest, **named: asked.append((*rest, *named.items())) or document

    shown = {"id": "ab", "signed": True}
    functions = {"log": {"events": []}, "show": shown, "balances": BALANCES, "verify": SOUND, "forks": {"forks": []}}
    offline = ModuleType("daemon.offline")
    offline.__dict__.update(SimpleNamespace(**{name: answer(one) for name, one in functions.items()}).__dict__)
    monkeypatch.setitem(sys.modules, "daemon.offline", offline)
    code, _, err = nexapod("ledger", "balance")
    assert code == Exit.NO_DAEMON
    assert "or add --offline" in err
    for words in (["log", "--feed", "f", "--after", "2"], ["show", "ab"], ["balance", "inn"], ["verify"], ["forks"]):
        assert nexapod("ledger", *words, "--offline")[0] == 0
    assert asked == [(("feed", "f"), ("after", 2), ("limit", 50)), ("ab",), ("inn",), (), ()]
