"""The API over its socket, on a standing mesh: every route of docs/api.md, and every way to be refused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from msgspec.structs import replace

from daemon import publishing
from daemon.local.api import BODY_BYTES_MAX, make_api
from daemon.local.desk import Desk
from nexapod.cli.client import Api, Refusal, _UnixConnection
from nexapod.config import load_config
from nexapod.errors import Exit
from nexapod.home import find_home
from nexapod.identity import Key
from nexapod.messages import Gpu, Vouch
from tests.daemon.standing import (
    PATIENCE_S,
    PROFILE,
    Lab,
    Standing,
    eventually,
    job_of,
    lab_of,
    program,
    seed_job,
    signed_advert,
)
from tests.ledger.scribe import Scribe, everything
from tests.sources import ROOT

RARE = "nexapod/rare:1"  # an image that only the publisher's engine holds
OVER = ("settled", "failed", "disputed", "cancelled")


class Meeting(NamedTuple):
    """Four nodes; the first has a settled job, one that nobody can run, and the proof of a fork."""

    lab: Lab
    folder: Path
    settled: str
    stuck: str

    @property
    def apis(self) -> list[Api]:
        return self.lab.apis

    def publish(self, **changes: Any) -> str:
        body = {"descriptor": job_of(**changes), "base": str(self.folder)}
        return str(self.apis[0].post("/submit-job", body)["job"])

    def follow(self, job: str) -> str:
        """The state of a job of the first node once it is over."""
        after, answer = 0, {"over": False}
        while not answer["over"]:
            answer = self.apis[0].get(f"/v1/jobs/{job}/events", after=after, wait_s=20)
            after = answer["next"]
        return str(answer["state"])


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meeting]:
    folder = tmp_path_factory.mktemp("lab")
    folder.joinpath("a.txt").write_bytes(b"abc")
    with pytest.MonkeyPatch.context() as patch, lab_of(folder, 4) as lab:
        patch.setattr(publishing, "LOOK_S", 0.2)
        lab.nodes[0].engine.programs[RARE] = program
        lab.within(fork, lab.nodes[0])
        lab.within(meet_a_gpu, lab.nodes[3])
        made = Meeting(lab, folder, "", "")
        settled = made.publish(label="sum", input_files=["a.txt"])
        stuck = made.publish(label="stuck", image=RARE)
        assert made.follow(settled) == "settled"
        yield made._replace(settled=settled, stuck=stuck)


async def fork(node: Standing) -> None:
    author = Scribe("forks", node.parts.node.netid)
    author.write(Vouch(node.feed, "one"))
    other = author.rewrite(1, Vouch(node.feed, "other"))
    await node.parts.loop.ingest([event.raw for event in (*everything(author), other)])


async def meet_a_gpu(node: Standing) -> None:
    profile = replace(PROFILE, gpus=(Gpu("nvidia", "card", 8 * 2**30),))
    node.parts.neighbours.learn(signed_advert(Key.from_seed(bytes(32)), node.parts.node.netid, profile=profile))


class Row(NamedTuple):
    """One row of the table in docs/api.md."""

    method: str
    path: str
    keys: frozenset[str]


def documented() -> list[Row]:
    text = (ROOT / "docs/api.md").read_text()
    rows = re.findall(r"^\| (GET|POST) (\S+) \|.*\| ?([^|]*) \|$", text, re.MULTILINE)
    keys = [frozenset(re.findall(r'"(\w+)"', answer)) for _, _, answer in rows]
    return [Row(method, path.partition("?")[0], found) for (method, path, _), found in zip(rows, keys, strict=True)]


def keys_in(document: Any) -> set[str]:
    """All keys of a document, however deep."""
    if isinstance(document, dict):
        return set(document) | {key for value in document.values() for key in keys_in(value)}
    return {key for value in document for key in keys_in(value)} if isinstance(document, list) else set()


def refusal(asked: Any, *args: Any, **query: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        asked(*args, **query)
    return caught.value


def raw(api: Api, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Status and document of a request the client would not send."""
    connection = _UnixConnection(api.path, PATIENCE_S)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


# --- the table --------------------------------------------------------------------------------------------------------
def test_the_routes_are_those_of_the_documentation(tmp_path: Path) -> None:
    home = find_home(str(tmp_path), {})
    words = {"{job}": "JOB", "{task:int}": "TASK", "{path:path}": "PATH", "{id}": "ID"}
    served = []
    for route in make_api(Desk(home, load_config(home, {}, {}))).routes:
        path, methods = route.path, route.methods  # type: ignore[attr-defined]
        for parameter, word in words.items():
            path = path.replace(parameter, word)
        served += [(method, path) for method in methods if method != "HEAD"]
    assert sorted(served) == sorted((row.method, row.path) for row in documented())


@pytest.mark.parametrize("row", [row for row in documented() if row.method == "GET"], ids=lambda row: row.path)
def test_every_question_is_answered_with_the_keys_of_the_documentation(meeting: Meeting, row: Row) -> None:
    if row.path.endswith("/PATH"):
        return  # not a document: see the results below
    # What a publisher's own node cannot tell, one that declined or ran something tells.
    job = meeting.stuck if row.path == "/v1/node/why" else meeting.settled
    path = row.path.replace("JOB", job).replace("ID", meeting.settled)
    answers = [api.get(path) for api in meeting.apis]
    assert row.keys <= {key for answer in answers for key in keys_in(answer)}


def test_the_status_has_the_keys_of_the_documentation(meeting: Meeting) -> None:
    text = (ROOT / "docs/api.md").read_text()
    block = text.partition("`/status`:\n")[2].partition("\n`state`")[0].replace('"<colour>"', "")
    status = meeting.apis[0].get("/status")
    expected = set(re.findall(r'"(\w+)":', block))
    assert expected <= keys_in(status)
    assert status["ledger"] == meeting.apis[0].get("/v1/ledger") or status["ledger"]["events"] > 0
    assert (status["state"], status["network"], status["name"], status["peers"]) == ("running", "lab", "node0", 3)
    assert status["healthy"], status["why"]


def test_publishing_answers_as_documented(meeting: Meeting) -> None:
    row = next(row for row in documented() if row.path == "/submit-job")
    body = {"descriptor": job_of("another", tasks=2), "base": str(meeting.folder), "dry_run": True}
    dry = meeting.apis[0].post("/submit-job", body)
    assert "job" not in dry
    assert (dry["tasks"], dry["replicas"], dry["price_micro"], dry["lock_micro"], dry["unmet"]) == (
        2, 2, 1_000_000, 8_000_000, [],
    )  # fmt: skip
    status, document = raw(meeting.apis[0], "POST", "/submit-job", json.dumps(body | {"dry_run": False}).encode())
    assert status == 201
    assert row.keys - {"unmet", "code", "detail"} == document.keys()
    assert document["holders"] == 2
    assert meeting.follow(document["job"]) == "settled"


# --- a job's results --------------------------------------------------------------------------------------------------
def test_results_come_from_a_node_that_neither_published_nor_ran_the_job(meeting: Meeting) -> None:
    rows = meeting.apis[0].get(f"/v1/jobs/{meeting.settled}/executions")["executions"]
    ran = {row["name"] for row in rows}
    assert len(ran) == 2
    (outsider,) = {"node1", "node2", "node3"} - ran
    api = meeting.apis[int(outsider[-1])]
    assert api.get(f"/v1/jobs/{meeting.settled}/logs")["logs"] == []
    (task,) = api.get(f"/v1/jobs/{meeting.settled}/results")["tasks"]
    assert task["root"] == rows[0]["root"]
    assert [(file["path"], file["size"]) for file in task["files"]] == [("back/a.txt", 3), ("task.txt", 7)]
    got = bytearray()
    api.download(f"/v1/jobs/{meeting.settled}/results/0/back/a.txt", got.extend)
    assert bytes(got) == b"cba"
    assert refusal(api.get, f"/v1/jobs/{meeting.settled}/results/0/nothing").exit_code == Exit.NOT_FOUND
    assert refusal(api.get, f"/v1/jobs/{meeting.settled}/results/7/task.txt").exit_code == Exit.NOT_FOUND
    assert refusal(api.get, f"/v1/jobs/{meeting.stuck}/results/0/task.txt").exit_code == Exit.NOT_FOUND
    assert api.get(f"/v1/jobs/{meeting.stuck}/results")["tasks"] == []


def test_every_node_tells_the_same_of_a_settled_job(meeting: Meeting) -> None:
    def told(api: Api) -> dict[str, Any]:
        found = api.get(f"/v1/jobs/{meeting.settled}")
        return {key: found[key] for key in ("state", "ended", "owner", "paid_micro", "price_micro", "quorum")}

    for node in meeting.lab.nodes[1:]:  # certified events reach the others a moment later
        meeting.lab.within(until_closed, node, bytes.fromhex(meeting.settled))
    first, *others = map(told, meeting.apis)
    assert first["paid_micro"] == 2_000_000
    assert others == [first] * 3


async def until_closed(node: Standing, offer: bytes) -> None:
    offers = node.parts.ledger.replica.fold.offers
    await eventually(lambda: offer in offers and not offers[offer].open)


# --- waiting for a story ----------------------------------------------------------------------------------------------
def test_a_long_poll_returns_at_once_when_there_are_lines(meeting: Meeting) -> None:
    answer = meeting.apis[0].get(f"/v1/jobs/{meeting.settled}/events", wait_s=25, timeout_s=5.0)
    assert [line["n"] for line in answer["events"]] == list(range(answer["next"]))
    assert answer["over"]
    steps = {line["step"] for line in answer["events"]}
    assert {"offer", "assign", "commit", "seal", "open", "settle", "close"} <= steps
    # Over means over: nobody waits for a line that will not come.
    more = meeting.apis[0].get(f"/v1/jobs/{meeting.settled}/events", after=answer["next"], wait_s=25, timeout_s=5.0)
    assert (more["events"], more["next"], more["over"]) == ([], answer["next"], True)


def test_a_long_poll_waits_for_a_line_and_no_longer_than_asked(meeting: Meeting) -> None:
    api = meeting.apis[0]
    job = meeting.publish(label="waits", image=RARE)
    after = api.get(f"/v1/jobs/{job}/events")["next"]
    assert api.get(f"/v1/jobs/{job}/events", after=after)["events"] == []
    assert api.get(f"/v1/jobs/{job}/events", after=after, wait_s=1)["events"] == []

    async def cancel_while_somebody_waits() -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def wait() -> None:
            node = meeting.lab.nodes[0]
            found.update(await node.get(f"/v1/jobs/{job}/events", after=after, wait_s=20))

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await meeting.lab.nodes[0].post(f"/v1/jobs/{job}/cancel")
        return found

    answer = meeting.lab.within(cancel_while_somebody_waits)
    assert answer["events"][0]["n"] == after
    assert answer["events"][0]["step"] == "void"


def test_a_long_poll_of_anothers_job_wakes_when_the_ledger_grows(meeting: Meeting) -> None:
    job = meeting.publish(label="others", image=RARE)
    node = meeting.lab.nodes[1]

    async def until_known() -> None:
        await eventually(lambda: bytes.fromhex(job) in node.parts.core.worker.offers)

    meeting.lab.within(until_known)
    after = meeting.apis[1].get(f"/v1/jobs/{job}/events")["next"]
    meeting.apis[0].post(f"/v1/jobs/{job}/cancel")
    answer = meeting.apis[1].get(f"/v1/jobs/{job}/events", after=after, wait_s=20)
    assert answer["events"][0]["step"] in ("void", "close")


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_an_unknown_job_is_not_found(meeting: Meeting) -> None:
    for reference in ("0000", "nobody", meeting.settled[:3], "%2e%2e", "sum%2Fx"):
        for rest in ("", "/executions", "/events", "/explain", "/results", "/results/0/a", "/logs"):
            status, document = raw(meeting.apis[0], "GET", f"/v1/jobs/{reference}{rest}")
            assert status == 404, (reference, rest)
            assert document["error"]["exit_code"] == Exit.NOT_FOUND
    assert refusal(meeting.apis[0].post, "/v1/jobs/nobody/cancel").exit_code == Exit.NOT_FOUND


def test_an_ambiguous_label_is_refused_with_the_candidates(meeting: Meeting) -> None:
    jobs = {meeting.publish(label="twin", image=RARE) for _ in range(2)}
    status, document = raw(meeting.apis[0], "GET", "/v1/jobs/twin")
    assert status == 400
    assert document["error"]["exit_code"] == Exit.USAGE
    assert set(re.findall(r"[0-9a-f]{64}", document["error"]["why"])) == jobs
    for job in jobs:
        assert meeting.apis[0].post(f"/v1/jobs/{job}/cancel") == {}
        assert refusal(meeting.apis[0].post, f"/v1/jobs/{job}/cancel").exit_code == Exit.REFUSED


def test_a_label_that_reads_like_the_id_of_another_job_takes_nothing_from_it(meeting: Meeting) -> None:
    job = meeting.publish(label=meeting.settled, image=RARE)
    assert meeting.apis[0].get(f"/v1/jobs/{meeting.settled}")["job"] == meeting.settled
    meeting.apis[0].post(f"/v1/jobs/{job}/cancel")


def test_nobody_takes_back_the_job_of_another(meeting: Meeting) -> None:
    error = refusal(meeting.apis[1].post, f"/v1/jobs/{meeting.stuck}/cancel")
    assert error.exit_code == Exit.REFUSED
    assert meeting.apis[0].get(f"/v1/jobs/{meeting.stuck}")["state"] == "queued"


def test_a_broken_descriptor_is_refused_with_every_fault(meeting: Meeting) -> None:
    body = {"descriptor": {"job_id": "a b", "tasks": 0, "imgae": "x"}, "base": "/"}
    status, document = raw(meeting.apis[0], "POST", "/submit-job", json.dumps(body).encode())
    assert status == 400
    assert document["error"]["exit_code"] == Exit.USAGE
    assert {"job_id", "tasks", "imgae"} <= {fault["path"] for fault in document["error"]["faults"]}


def test_the_clients_own_example_is_refused_with_every_reason(meeting: Meeting) -> None:
    body = {"descriptor": seed_job(), "base": str(meeting.folder)}
    status, document = raw(meeting.apis[0], "POST", "/submit-job", json.dumps(body).encode())
    assert status == 409
    assert document["error"]["exit_code"] == Exit.REFUSED
    told = [(fault["path"], f"{fault['value']} {fault['reason']}") for fault in document["error"]["faults"]]
    assert [path for path, _ in told].count("inputs") == 2
    for wanted in (("image", "nexapod/folding:latest"), ("inputs", "input1.fasta"), ("inputs", "params.json"),
                   ("verify.mode", "tolerance"), ("requirements", "gpu")):  # fmt: skip
        assert any(path == wanted[0] and wanted[1] in text for path, text in told), wanted


def test_a_body_that_is_none_is_refused(meeting: Meeting) -> None:
    api = meeting.apis[0]
    good = {"descriptor": job_of(), "base": str(meeting.folder)}
    bodies: list[Any] = [
        b"not json", b"\xff\xfe", b"[1]", b'"text"', b"7", b"[" * 100_000, b"{", b"null",
        {"descriptor": 7, "base": "/"},
        good | {"more": 1}, good | {"base": "relative"}, good | {"base": 7}, good | {"base": "/a\0b"}, {"base": "/"},
        {"descriptor": job_of()}, b" " * (BODY_BYTES_MAX + 1),
        b" " * (3 * BODY_BYTES_MAX),
    ]  # fmt: skip
    for body in bodies:
        assert raw(api, "POST", "/v1/jobs/nobody/cancel", b" " * 200_000)[0] == 404  # a body that nobody reads
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, document = raw(api, "POST", "/submit-job", sent)
        assert status == 400, body
        assert document["error"]["exit_code"] == Exit.USAGE
        assert document["error"]["what"]
    assert api.alive()


def test_numbers_and_paths_that_are_none_are_refused(meeting: Meeting) -> None:
    api, job = meeting.apis[0], meeting.settled
    for path in (
        f"/v1/jobs/{job}/events?after=-1", f"/v1/jobs/{job}/events?after=x", f"/v1/jobs/{job}/events?wait_s=1e3",
        f"/v1/jobs/{job}/logs?task=a", "/v1/ledger/log?limit=" + "9" * 30, "/v1/ledger/log?kind=nothing",
        "/v1/ledger/log?feed=node0&after=-2", "/v1/ledger/log?feed=node0&after=--1",
    ):  # fmt: skip
        assert raw(api, "GET", path)[0] == 400, path
    for method, path in (("GET", "/"), ("GET", "/v2"), ("GET", f"/v1/jobs/{job}/results/x/y"), ("GET", "/v1/jobs/")):
        status, document = raw(api, method, path)
        assert (status, document["error"]["exit_code"]) == (404, Exit.NOT_FOUND), path
    assert raw(api, "POST", "/status")[0] == 405
    assert raw(api, "GET", "/submit-job")[0] == 405


def test_an_address_that_is_none_is_refused(meeting: Meeting) -> None:
    own = meeting.apis[0].get("/status")["addresses"][0]
    for address in ("", "here", "/ip4/127.0.0.1/tcp/1", own):
        error = refusal(meeting.apis[0].post, "/v1/swarm/connect", {"address": address})
        assert error.exit_code == Exit.USAGE
    there = f"/ip4/127.0.0.1/tcp/1/p2p/{meeting.lab.nodes[1].parts.node.peer}"
    assert meeting.apis[0].post("/v1/swarm/connect", {"address": there}) == {}  # connected already, wherever it is


# --- the ledger -------------------------------------------------------------------------------------------------------
def test_the_log_is_of_one_feed_one_job_or_the_newest_of_all(meeting: Meeting) -> None:
    api = meeting.apis[0]
    first = api.get("/v1/ledger/log", feed="node0", limit=2)["events"]
    assert [(row["seq"], row["name"]) for row in first] == [(0, "node0"), (1, "node0")]
    assert [row["seq"] for row in api.get("/v1/ledger/log", feed="node0", after=0, limit=2)["events"]] == [1, 2]
    assert first == api.get("/v1/ledger/log", feed="node0", after=-1, limit=2)["events"]
    of_job = api.get("/v1/ledger/log", job=meeting.settled)["events"]
    assert of_job[0]["kind"] == "offer"
    assert {"offer", "commit", "seal", "settle", "close"} <= {row["kind"] for row in of_job}
    commits = api.get("/v1/ledger/log", job=meeting.settled, kind="commit")["events"]
    assert [row["kind"] for row in commits] == ["commit", "commit"]
    assert len(api.get("/v1/ledger/log", limit=5)["events"]) == 5
    assert api.get("/v1/ledger/log", limit=0)["events"] == []


def test_an_event_is_found_by_the_beginning_of_its_id(meeting: Meeting) -> None:
    api = meeting.apis[0]
    found = api.get(f"/v1/ledger/events/{meeting.settled[:16].upper()}")
    assert (found["id"], found["kind"], found["signed"]) == (meeting.settled, "offer", True)
    for prefix in ("", meeting.settled[:3], "zzzz", "0" * 64, "0" * 65):
        if prefix:
            assert refusal(api.get, f"/v1/ledger/events/{prefix}").exit_code == Exit.NOT_FOUND


def test_the_books_add_up_and_stand_a_check(meeting: Meeting) -> None:
    api = meeting.apis[3]
    document = api.get("/v1/ledger/balances")
    assert sum(row["balance_micro"] for row in document["balances"]) == sum(document["minted_micro"].values())
    assert {row["issuer"] for row in document["balances"]} == {"node0"}
    audit = api.get("/v1/ledger/verify")
    assert audit["ok"], audit["faults"]
    assert refusal(api.get, "/v1/ledger/balances", account="nobody").exit_code == Exit.NOT_FOUND
    assert api.get("/v1/ledger/balances", account="node0")["balances"] == []


def test_a_fork_is_told_by_every_node(meeting: Meeting) -> None:
    feed = Scribe("forks", meeting.lab.nodes[0].parts.node.netid).feed

    async def until_forked(node: Standing) -> None:
        await eventually(lambda: feed in node.parts.ledger.replica.forks)

    for node in meeting.lab.nodes:
        meeting.lab.within(until_forked, node)
    for api in meeting.apis:
        (fork,) = api.get("/v1/ledger/forks")["forks"]
        assert (fork["feed"], fork["seq"]) == (feed.hex(), 1)
