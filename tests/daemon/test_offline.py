"""Without a daemon the ledger says what it said with one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from bootstrap.setup import found_network
from daemon import offline
from ledger.witness import due
from nexapod.errors import Exit, LocalError
from nexapod.home import Home
from tests.daemon.standing import eventually, job_of, new_home, settled, standing_mesh, standing_node, until_equal

Said = dict[str, dict[str, Any]]


def without_names(document: Any) -> Any:
    """A document without what nodes call each other: that comes from their adverts, which no disk keeps."""
    if isinstance(document, dict):
        return {key: without_names(value) for key, value in document.items() if key not in ("name", "issuer")}
    return [without_names(item) for item in document] if isinstance(document, list) else document


async def live(folder: Path) -> tuple[Home, str, Said]:
    """A home after a settled job, the job, and what its daemon said before it was stopped."""
    async with standing_mesh(folder, 3) as nodes:
        node = nodes[1]
        job = (await node.post("/submit-job", {"descriptor": job_of(tasks=2), "base": str(folder)}))["job"]
        await settled(node, job)
        await until_equal(*nodes)
        await eventually(lambda: not due(nodes[0].parts.ledger.replica, nodes[0].feed))  # nothing more is coming
        await until_equal(*nodes)
        feed = nodes[2].feed.hex()
        said = {
            "log": await node.get("/v1/ledger/log"),
            "log limit": await node.get("/v1/ledger/log", limit=3),
            "log feed": await node.get("/v1/ledger/log", feed=feed[:8], after=0, limit=2),
            "log member": await node.get("/v1/ledger/log", feed="node0"),
            "log job": await node.get("/v1/ledger/log", job="sum"),
            "log kind": await node.get("/v1/ledger/log", job=job[:10], kind="commit"),
            "show": await node.get(f"/v1/ledger/events/{job[:12]}"),
            "balances": await node.get("/v1/ledger/balances"),
            "balance": await node.get("/v1/ledger/balances", account=feed),
            "verify": await node.get("/v1/ledger/verify"),
            "forks": await node.get("/v1/ledger/forks"),
            "feed": {"feed": feed},
        }
        return node.home, job, said


def test_the_ledger_says_the_same_with_and_without_a_daemon(tmp_path: Path) -> None:
    home, job, said = trio.run(live, tmp_path)
    feed = said["feed"]["feed"]
    found = {
        "log": offline.log(home),
        "log limit": offline.log(home, limit=3),
        "log feed": offline.log(home, feed=feed[:8], after=0, limit=2),
        "log member": offline.log(home, feed="node0"),
        "log job": offline.log(home, job="sum"),
        "log kind": offline.log(home, job=job[:10], kind="commit"),
        "show": offline.show(home, job[:12]),
        "balances": offline.balances(home),
        "balance": offline.balances(home, feed),
        "verify": offline.verify(home),
        "forks": offline.forks(home),
    }
    for question, answer in found.items():
        assert without_names(answer) == without_names(said[question]), question
        assert answer
    assert found["verify"]["ok"]
    assert {row["name"] for row in found["log member"]["events"]} == {"node0"}  # the manifest's word for it
    assert len(found["balance"]["balances"]) == 1
    wrong: list[tuple[Callable[[], object], Exit]] = [
        (lambda: offline.log(home, feed="nobody"), Exit.NOT_FOUND),
        (lambda: offline.log(home, job="nobody"), Exit.NOT_FOUND),
        (lambda: offline.log(home, job=job[:3]), Exit.NOT_FOUND),
        (lambda: offline.log(home, kind="nothing"), Exit.USAGE),
        (lambda: offline.show(home, job[:3]), Exit.NOT_FOUND),
        (lambda: offline.show(home, "zzzz"), Exit.NOT_FOUND),
        (lambda: offline.balances(home, "nobody"), Exit.NOT_FOUND),
    ]
    for ask, code in wrong:
        with pytest.raises(LocalError) as caught:
            ask()
        assert caught.value.exit_code == code
        assert caught.value.next_step


def test_a_home_without_a_ledger_says_so_and_begins_none(tmp_path: Path) -> None:
    home = new_home(tmp_path, "node")
    with pytest.raises(LocalError, match="no network") as caught:
        offline.balances(home)
    assert caught.value.exit_code == Exit.NOT_FOUND
    found_network(home, "lab", node_name="")
    with pytest.raises(LocalError, match="no ledger") as caught:
        offline.balances(home)
    assert caught.value.exit_code == Exit.NOT_FOUND
    assert not list(home.ledger_dir.iterdir())
    home.manifest_file.write_bytes(b"rubbish")
    with pytest.raises(LocalError, match="is damaged"):
        offline.verify(home)


async def test_while_a_daemon_runs_the_ledger_is_its_own(tmp_path: Path) -> None:
    async with standing_node(tmp_path) as node:
        with pytest.raises(LocalError) as caught:
            await trio.to_thread.run_sync(offline.forks, node.home)
        assert "use" in str(caught.value)
        assert await node.get("/v1/ledger/forks") == {"forks": []}
