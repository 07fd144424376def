"""Hostile image names never become a request. The engine here is a socket that writes down every request it gets."""

import json
import socketserver
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from runtime.docker import DockerEngine

DIGEST = "ab" * 32
HOSTILE = [
    "", " ", "a b", " a", "a ", "a\tb", "a\nb", "a\n", "a\r\nHost: x", "a\0b", "a\x7f", "a\x1b[2J",
    ".", "..", "../..", "../../etc/passwd", "../containers/json", "a/../../containers/json", "a/./b", "/a", "//a",
    "a//b", "a/", "a/..", "..%2f..%2fcontainers%2fjson", "%2e%2e/%2e%2e", "a%2f..%2fb", "a%00", "a%0d%0a",
    "a?x=1", "a/json?all=1", "../containers/json?x=", "a#fragment", "a;b", "a&b=c", "a$(id)", "a`id`", "a|b",
    "a\\..\\b", "A", "User/Image", "image:tag:tag", "a:", ":tag", "a:-x", "a:" + "t" * 129, "a:..", "a:../../x", "a: x",
    "http://host/a", "unix:///var/run/docker.sock", "[::1]/a", "[::1]:5000/a", "[fe80::1%25eth0]/a", "::1/a", "host:/a",
    "host.x:port/a", "host.x:999999/a", "-host.x/a", "host..x/a", "user@host.x/a", "a@", "a@@",
    "a@sha256:", "a@sha256:" + DIGEST[:-1], "a@sha256:" + DIGEST.upper(), "a@sha256:" + DIGEST + "0",
    "a@md5:" + "ab" * 16, "a@sha512:" + "ab" * 64, "a@sha256:" + DIGEST + "@sha256:" + DIGEST, "@sha256:" + DIGEST,
    "a@sha256:../../" + DIGEST[:58], "a@sha256:" + DIGEST + "/../x", "a" * 256, "a" * 100_000, "a/" * 5_000 + "a",
    "é", "ａ", "а", "a\u200bb", "\u202ea", "a\u2024\u2024/b", "ı", "\ud800", "-a", "a-", "_a", "a_", "a..b", "a.-b",
    "a___b",
]  # fmt: skip


class Recording(socketserver.ThreadingUnixStreamServer):
    """An engine that knows no image, and remembers what it was asked."""

    daemon_threads = True
    asked: list[str]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Recording)
        self.server.asked.append(self.path)
        known = self.path.endswith("/version")
        body = json.dumps({"Version": "0", "ApiVersion": "1.41", "Arch": "amd64"} if known else {"message": "no"})
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_DELETE = do_PUT = do_HEAD = do_GET

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with Recording(str(tmp_path / "d.sock"), _Answer) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
async def engine(recording: Recording, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    made = DockerEngine(node="n", scratch=tmp_path / "scratch", host=f"unix://{tmp_path}/d.sock")
    assert (await made.probe()).ready
    recording.asked.clear()
    yield made
    await made.aclose()


async def test_no_hostile_name_becomes_a_request(engine: DockerEngine, recording: Recording) -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) > 80
    for name in HOSTILE:
        assert await engine.image_digest(name) is None, name
        assert await engine.pull(name, bytes(32)) != "", name
        assert recording.asked == [], f"{name[:80]!r} reached the engine"


@pytest.mark.parametrize(
    ("name", "inspected", "pulled"),
    [
        ("busybox", "/images/busybox:latest/json", "fromImage=busybox"),
        ("host.x:5000/a/b:1", "/images/host.x:5000/a/b:1/json", "fromImage=host.x%3A5000%2Fa%2Fb"),
        (f"a@sha256:{DIGEST}", f"/images/a%40sha256:{DIGEST}/json", f"tag=sha256%3A{DIGEST}"),
    ],
)
async def test_an_honest_name_becomes_one_request_as_it_stands(
    engine: DockerEngine, recording: Recording, name: str, inspected: str, pulled: str
) -> None:
    assert await engine.image_digest(name) is None
    assert [path.partition("/images")[2] for path in recording.asked] == [inspected.removeprefix("/images")]
    recording.asked.clear()
    assert await engine.pull(name, bytes(32)) != ""
    assert [path.partition("?")[0] for path in recording.asked] == ["/v1.41/images/create"]
    assert pulled in recording.asked[0]
