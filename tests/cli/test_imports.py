"""What a command may load on the way to an answer: a person waits for every import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.standin import JOB, Standin

HEAVY = ("trio", "libp2p", "nacl", "plyvel", "docker", "starlette", "daemon", "dht", "gossip", "ledger", "runtime",
         "bootstrap", "rich")  # fmt: skip


@pytest.mark.parametrize(
    "words", [["status"], ["publish", "job.json"], ["ledger", "balance"], ["job", "list"], ["results", "ls", "c0ffee"]]
)
def test_an_answer_needs_no_mesh_library(standin: Standin, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"job_id": "j", "image": "x:1"}')
    standin.answers |= {
        "GET /status": {"state": "running", "healthy": True},
        "POST /submit-job": (201, {"job": JOB, "job_id": "j", "tasks": 1, "replicas": 2}),
        "GET /v1/ledger/balances": {"balances": [], "provisional": False, "minted_micro": {}},
        "GET /v1/jobs": {"jobs": []},
        "GET /v1/jobs/c0ffee/results": {"job": JOB, "job_id": "j", "tasks": []},
    }
    program = f"import sys; from nexapod.cli.main import run; code = run({words!r}); "
    program += f"print(code, *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "0"
