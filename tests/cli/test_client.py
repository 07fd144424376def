"""The way to the daemon, when something else is at its end: every nonsense becomes one error with a next step."""

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nexapod.cli.client import Api, DaemonDown, Refusal, part, rows, segment, texts
from nexapod.errors import Exit, LocalError
from nexapod.home import find_home
from tests.cli.conftest import Run
from tests.cli.standin import Standin, answering, drip, serving, until_gone

HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"state": "running"'
SHORT_S = 0.2


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s"


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


UNREADABLE = {
    "no JSON": http(b"<html>hello</html>"),
    "nothing": http(b""),
    "a list": http(b"[]"),
    "not UTF-8": http(b'{"a": "\xff"}'),
    "a number that is none": http(b'{"a": NaN}'),
    "too deep": http(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "too many digits": http(b'{"a": ' + b"9" * 10_000 + b"}"),
    "moved": http(b'{"a": 1}', "302 Found"),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n{}",
}
BROKEN = {
    "no answer": b"",
    "half a document": HALF,
    "half a refusal": HALF.replace(b"200 OK", b"409 Conflict"),
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_that_is_none_is_called_unreadable(place: Path, answer: bytes) -> None:
    with answering(place, answer), pytest.raises(LocalError, match="answer cannot be read") as told:
        Api(place).get("/status")
    assert told.value.next_step == "are both of the same version?"
    assert not isinstance(told.value, DaemonDown)


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_ends_half_way_is_not_taken_for_one(place: Path, answer: bytes) -> None:
    with answering(place, answer):
        with pytest.raises(DaemonDown, match="broke off") as told:
            Api(place, start="nexapod --home x daemon start").get("/status")
        assert told.value.exit_code == Exit.NO_DAEMON
        assert told.value.next_step == "start it again: nexapod --home x daemon start"
        with pytest.raises(DaemonDown):
            Api(place).post("/submit-job", {"a": 1})
        with pytest.raises(DaemonDown):
            Api(place).download("/file", lambda _: None)


def test_an_answer_that_is_too_large_is_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexapod.cli.client.ANSWER_BYTES_MAX", 1000)
    fits, large = json.dumps({"a": "x" * 900}).encode(), json.dumps({"a": "x" * 1000}).encode()
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b" " * 1024 + b"\r\n"
    for number, (answer, good) in enumerate([(http(fits), True), (http(large), False), (endless, False)]):
        here = place.with_name(f"s{number}")
        with answering(here, answer, then=until_gone):
            if good:
                assert len(Api(here).get("/x")["a"]) == 900
            else:
                with pytest.raises(LocalError, match="of at most 1000 bytes"):
                    Api(here).get("/x")


@pytest.mark.parametrize("then", [until_gone, drip], ids=["silent", "dripping"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nX: ", HALF], ids=["nothing", "a header", "a body"])
def test_an_answer_that_never_comes_has_a_deadline(
    place: Path, begun: bytes, then: Callable[[socket.socket], object]
) -> None:
    with answering(place, begun, then=then):
        with pytest.raises(LocalError, match="did not answer within") as told:
            Api(place).get("/status", timeout_s=SHORT_S, secret="x")
        assert (told.value.why, told.value.next_step) == ("/status", "try again, or see: nexapod daemon logs")


def test_a_download_may_take_long_but_not_be_silent(place: Path) -> None:
    got: list[bytes] = []
    with answering(place, HALF, then=until_gone), pytest.raises(LocalError, match=r"did not answer within 0\.2 s"):
        Api(place).download("/file", got.append, timeout_s=SHORT_S)
    assert b"".join(got) == b'{"state": "running"'


def test_nothing_there_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "none", "No such file"),
        (tmp_path / "file", "Connection refused"),
        (tmp_path / ("x" * 108), "AF_UNIX path too long"),
        (Path("a\0b"), "No such file"),
    ):
        with pytest.raises(DaemonDown, match="the daemon is not running") as told:
            Api(path).get("/status")
        assert reason in told.value.why
        assert told.value.next_step == "start it: nexapod daemon start"
        assert not Api(path).alive()


def test_a_home_with_a_long_name_has_a_socket_all_the_same(
    nexapod: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    with tempfile.TemporaryDirectory(prefix="nxp") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        home = find_home(str(deep), {})
        assert len(os.fsencode(home.natural_socket)) > 107
        with serving(Standin(home)) as standin:
            standin.answers["GET /status"] = {"state": "running", "healthy": True}
            code, out, _ = nexapod("--home", str(deep), "status")
    assert (code, out.startswith("Running")) == (0, True)


def test_a_daemon_with_too_many_questions_is_not_called_dead(place: Path) -> None:
    waiting = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(place))
        server.listen(0)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(place))
        except BlockingIOError:
            with pytest.raises(LocalError, match="takes no more questions") as told:
                Api(place).get("/status")
            assert told.value.exit_code == Exit.FAILURE
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (404, {}, Exit.NOT_FOUND),
        (409, {"what": "no"}, Exit.REFUSED),
        (500, None, Exit.FAILURE),
        (409, {"exit_code": 6}, Exit.DISPUTED),
        (409, {"exit_code": 0}, Exit.FAILURE),
        (409, {"exit_code": 99}, Exit.FAILURE),
        (409, {"exit_code": [1]}, Exit.FAILURE),
        (422, {"faults": {"path": "x"}}, Exit.USAGE),
        (422, {"faults": [1, {"path": "x"}]}, Exit.USAGE),
    ],
)
def test_a_refusal_is_never_a_success(standin: Standin, status: int, error: object, code: Exit) -> None:
    standin.answers["GET /x"] = (status, {"error": error})
    with pytest.raises(Refusal) as told:
        Api(standin.home.socket()).get("/x")
    assert told.value.exit_code is code
    assert told.value.what
    assert all(isinstance(fault, dict) for fault in told.value.faults)


def test_a_refusal_that_is_no_json_or_very_long_is_still_one(place: Path, standin: Standin) -> None:
    with answering(place, http(b"<h1>", "503 Busy")), pytest.raises(Refusal, match="the engine refused") as told:
        Api(place, who="the engine").get("/x")
    assert told.value.exit_code is Exit.FAILURE
    standin.answers["GET /x"] = (400, {"error": {"what": "x" * 1_000_000, "why": ["y"], "next": None}})
    with pytest.raises(Refusal) as told:
        Api(standin.home.socket()).get("/x")
    assert len(told.value.what) == 20_000
    assert (told.value.why, told.value.next_step) == ("['y']", "")


def test_what_a_person_types_stays_one_part_of_a_path(nexapod: Run, standin: Standin) -> None:
    assert [segment(text) for text in ("a/../b", "ä b?c#d", "\udcff")] == ["a%2F..%2Fb", "%C3%A4%20b%3Fc%23d", "%3F"]
    code, _, err = nexapod("job", "show", "")
    assert (code, "a name is empty" in err) == (Exit.USAGE, True)
    assert nexapod("job", "show", "\udcff/x")[0] == Exit.NOT_FOUND
    assert nexapod("ledger", "log", "--feed", "\udcff")[0] == Exit.NOT_FOUND
    assert [line for line, _ in standin.asked] == ["GET /v1/jobs/?/x", "GET /v1/ledger/log"]


def test_parts_of_an_answer_have_their_shape() -> None:
    for nonsense in ({}, {"a": None}, {"a": 5}, {"a": "x"}, {"a": {"b": 1}}, {"a": [1, "x", None]}):
        assert rows(nonsense, "a") == []
    for nonsense in ({}, {"a": None}, {"a": 5}, {"a": "x"}, {"a": [1]}):
        assert part(nonsense, "a") == {}
    assert rows({"a": [1, {"b": 2}]}, "a") == [{"b": 2}]
    assert part({"a": {"b": 2}}, "a") == {"b": 2}
    assert (texts({"a": [1, "x"]}, "a"), texts({"a": "xy"}, "a")) == (["1", "x"], [])
