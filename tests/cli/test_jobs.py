"""Jobs from the command line: what is checked before the daemon is asked, what is told, and the exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from nexapod.cli.jobs import describe
from nexapod.errors import Exit, LocalError
from nexapod.job import parse
from tests.cli.conftest import Run
from tests.cli.standin import EVENTS, JOB, Standin

RECEIPT = {
    "job": JOB,
    "job_id": "fold",
    "tasks": 2,
    "replicas": 2,
    "price_micro": 10_000,
    "lock_micro": 0,
    "holders": 1,
}


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "job.json"
    path.parent.mkdir()
    path.write_text('{"job_id": "fold", "image": "x:1", "tasks": 2}')
    return path


def story_of(state: str, pages: int = 1) -> Any:
    """Events of a job that is over after so many pages."""
    asked = []

    def answer(query: dict[str, Any]) -> dict[str, Any]:
        asked.append(query)
        after = int(query["after"])
        return {"events": EVENTS[after : after + 2], "next": min(after + 2, 4), "state": state,
                "over": len(asked) > pages}  # fmt: skip

    return answer


def test_a_broken_file_is_told_whole_without_a_daemon(nexapod: Run, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"job_id": "fold", "imge": "x:1", "tasks": 0, "requirements": {"ram": 2}}')
    code, out, err = nexapod("publish", "job.json")
    assert (code, out) == (Exit.USAGE, "")
    assert "job.json: 4 faults, nothing was published" in err
    for told in ("imge", "did you mean image?", "tasks = 0", "requirements.ram", "docker_image: is missing"):
        assert told in err


def test_a_sound_file_without_a_daemon_says_what_to_type(nexapod: Run, job_file: Path, tmp_path: Path) -> None:
    code, out, err = nexapod("--home", str(tmp_path / "n"), "publish", str(job_file))
    assert (code, out) == (Exit.NO_DAEMON, "")
    assert f"start it: nexapod --home {tmp_path}/n daemon start" in err


def test_publish_sends_the_document_and_its_folder(nexapod: Run, standin: Standin, job_file: Path) -> None:
    standin.answers["POST /submit-job"] = (201, RECEIPT)
    code, out, err = nexapod("publish", "sub/job.json")
    assert (code, out) == (0, f"{JOB}\n")
    assert "2 tasks, 2 replicas, 0.01 credits a task, kept by 1 other node" in err
    sent = standin.asked[-1][1]
    assert sent == {"descriptor": json.loads(job_file.read_text()), "base": str(job_file.parent), "dry_run": False}


def test_a_dry_run_tells_the_price(nexapod: Run, standin: Standin, job_file: Path) -> None:
    standin.answers["POST /submit-job"] = {"job_id": "fold", "tasks": 2, "price_micro": 10_000, "lock_micro": 0}
    code, out, err = nexapod("publish", str(job_file), "--dry-run")
    assert code == 0
    assert "price of a task  0.01" in out
    assert "nothing was published" in err
    assert standin.asked[-1][1]["dry_run"] is True


def test_a_refusal_keeps_its_faults_and_exit_code(nexapod: Run, standin: Standin, job_file: Path) -> None:
    fault = {"path": "image", "value": "x:1", "reason": "no engine holds it", "suggestion": "y:1"}
    error = {"what": "it cannot run", "why": "", "next": "build it", "exit_code": 7, "faults": [fault]}
    standin.answers["POST /submit-job"] = (409, {"error": error})
    code, _, err = nexapod("publish", str(job_file))
    assert code == Exit.REFUSED
    assert "image = x:1: no engine holds it (did you mean y:1?)" in err
    assert "next: build it" in err


@pytest.mark.parametrize(
    ("state", "code"), [("settled", 0), ("failed", 5), ("cancelled", 5), ("disputed", 6), ("something", 1)]
)
def test_waiting_tells_the_story_and_how_it_ended(
    nexapod: Run, standin: Standin, job_file: Path, state: str, code: int
) -> None:
    standin.answers["POST /submit-job"] = (201, RECEIPT)
    standin.answers[f"GET /v1/jobs/{JOB}/events"] = story_of(state)
    standin.answers[f"GET /v1/jobs/{JOB}"] = {"state": state, "why": ["the disk is full"]}
    got, out, err = nexapod("publish", str(job_file), "--wait", "-o", "json")
    assert got == code
    assert json.loads(out) == RECEIPT | {"state": state}
    assert "offer                 aare         2 tasks, 2 replicas each" in err
    assert "close                 aare         settled" in err
    assert ("the disk is full" in err) is (state != "settled")


def test_waiting_ends_at_its_time_and_the_job_goes_on(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /v1/jobs/fold"] = {"job": JOB}
    standin.answers[f"GET /v1/jobs/{JOB}/events"] = story_of("running", pages=10**9)
    code, out, err = nexapod("job", "wait", "fold", "--timeout", "1")
    assert (code, out) == (Exit.TIMED_OUT, "")
    assert "it goes on" in err
    assert f"nexapod job wait {JOB[:12]}" in err


def test_run_publishes_waits_and_lists_what_came_out(nexapod: Run, standin: Standin, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    standin.answers["POST /submit-job"] = (201, RECEIPT)
    standin.answers[f"GET /v1/jobs/{JOB}/events"] = story_of("settled")
    files = [{"path": "x.txt", "size": 3, "sha256": "ab" * 32}]
    standin.answers[f"GET /v1/jobs/{JOB}/results"] = {
        "job": JOB,
        "job_id": "fold",
        "tasks": [{"task": 0, "files": files}],
    }
    code, out, err = nexapod("run", "x:1", "--tasks", "2", "--input", "a.csv", "--", "python3", "-c", "print(1)", "--x")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["0", "x.txt", "3", "ab" * 6]
    sent = next(body for line, body in standin.asked if line == "POST /submit-job")
    assert sent["descriptor"]["command"] == ["python3", "-c", "print(1)", "--x"]
    assert (sent["base"], sent["descriptor"]["input_files"]) == (str(tmp_path), ["a.csv"])


def test_flags_of_run_make_a_sound_descriptor(tmp_path: Path) -> None:
    for name in ("one/a b.txt", "two/c.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    flags = {"tasks": 3, "replicas": 3, "flops": 1e9, "cpus": 0.5, "ram_gb": 2.0}
    base, made = describe(
        "registry.org/group/tool:1.2@sha256:ab", ("a",), tmp_path, inputs=(Path("two/c.txt"),), **flags
    )
    checked = parse(made)
    assert (base, checked.job_id) == (tmp_path / "two", "run-tool-1.2")
    assert (checked.tasks, checked.replicas, checked.estimated_flops, checked.needs.cpus_milli) == (3, 3, 10**9, 500)
    base, made = describe("x", (), tmp_path, inputs=(Path("two/c.txt"), tmp_path / "one/a b.txt"))
    assert base == tmp_path
    assert [item["path"] for item in made["inputs"]] == ["c.txt", "a b.txt"]
    with pytest.raises(LocalError, match="is not a file"):
        describe("x", (), tmp_path, inputs=(Path("two"),))


def test_a_story_is_told_as_a_table_or_as_lines_of_json(nexapod: Run, standin: Standin) -> None:
    standin.answers["GET /v1/jobs/fold/events"] = {"events": EVENTS, "next": 4, "state": "settled", "over": True}
    assert len(nexapod("job", "events", "fold")[1].splitlines()) == 5
    assert "tasks 0-1" in nexapod("job", "events", "fold", "-f")[1]
    lines = nexapod("job", "events", "fold", "-f", "-o", "jsonl")[1].splitlines()
    assert [json.loads(line)["step"] for line in lines] == ["offer", "commit", "commit", "close"]
    assert nexapod("job", "events", "fold", "-f", "-o", "csv")[0] == Exit.USAGE


def test_text_of_strangers_cannot_write_to_the_terminal(nexapod: Run, standin: Standin) -> None:
    name, text = "\x1b[2J\x9b2J\ud800", "\x1b]0;pwned\x07"
    evil = {"n": 0, "ms": 1, "step": "refuse", "task": 0, "node": "b", "name": name, "text": text}
    standin.answers["GET /v1/jobs/fold/events"] = {"events": [evil], "next": 1, "state": "settled", "over": True}
    for flags in ([], ["-f"], ["-o", "json"], ["-o", "csv"]):
        assert not {"\x1b", "\x9b"} & set(nexapod("job", "events", "fold", *flags)[1])
    assert json.loads(nexapod("job", "events", "fold", "-o", "jsonl")[1]) == evil


def test_show_explain_executions_logs_cancel(nexapod: Run, standin: Standin) -> None:
    task = {"task": 0, "state": "failed", "why": "exit 3", "exit_code": 3, "paid_micro": 0, "root": ""}
    reasons = [{"code": "engine", "detail": "no docker"}]
    standin.answers |= {
        "GET /v1/jobs/fold": {"job": JOB, "job_id": "fold", "state": "failed", "why": ["x"], "task_list": [task]},
        "GET /v1/jobs/fold/explain": {
            "state": "queued", "why": ["no node"],
            "nodes": [{"node": "ab", "name": "inn", "able": False, "reasons": reasons}],
        },
        "GET /v1/jobs/fold/executions": {"executions": [{"task": 0, "state": "running", "permille": 250}]},
        "GET /v1/jobs/fold/logs": {"logs": [{"task": 0, "round": 0, "text": "hello\nworld\n"}]},
        "POST /v1/jobs/fold/cancel": {},
    }  # fmt: skip
    assert "exit 3" in nexapod("job", "show", "fold")[1]
    assert "engine: no docker" in nexapod("job", "explain", "fold")[1]
    assert "25 %" in nexapod("job", "executions", "fold")[1]
    assert nexapod("job", "logs", "fold")[1] == "hello\nworld\n"
    assert nexapod("job", "cancel", "fold")[0] == 0
    assert nexapod("job", "show", "a/../b")[0] == Exit.NOT_FOUND
