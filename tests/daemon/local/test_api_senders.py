"""Who may ask the local API: on every path and method, the node's owner and no web page."""

import os
import socket
import stat
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from daemon.local.api import make_api
from daemon.local.desk import Desk
from daemon.local.server import serve_local
from nexapod.cli.client import _UnixConnection
from nexapod.config import load_config
from nexapod.home import Home, find_home

FORGED = (
    {"Origin": "https://example.org"},
    {"Host": "example.org"},
    {"Origin": "null"},
    {"Host": "localhost.example.org"},
)


def status_of(home: Home, method: str, path: str, headers: dict[str, str]) -> int:
    connection = _UnixConnection(home.socket(), 10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def every_route() -> list[tuple[str, str]]:
    home = find_home("/nonexistent", {})
    api = make_api(Desk(home, load_config(home, {})))
    return [(method, route.path) for route in api.routes for method in route.methods]  # type: ignore[attr-defined]


async def test_no_web_page_is_served_on_any_route(tmp_path: Path) -> None:
    home = find_home(str(tmp_path), {})
    home.make_folders()
    routes = [(method, path) for method, path in every_route() if method != "HEAD"]
    assert len(routes) > 25
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_local, make_api(Desk(home, load_config(home, {}))), home)
        for method, path in routes:
            path = (
                path.replace("{task:int}", "0").replace("{path:path}", "x").replace("{job}", "j").replace("{id}", "i")
            )
            for headers in FORGED:
                status = await trio.to_thread.run_sync(status_of, home, method, quote(path), headers)
                assert status == 409, f"{method} {path} with {headers} answered {status}"
        assert await trio.to_thread.run_sync(status_of, home, "GET", "/livez", {}) == 200
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_nobody_else_can_open_the_socket(tmp_path: Path) -> None:
    home = find_home(str(tmp_path), {})
    home.make_folders()
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(home.natural_socket)!r})"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_local, make_api(Desk(home, load_config(home, {}))), home)
        assert stat.S_IMODE(home.socket().stat().st_mode) == 0o600
        for folder in (home.run, *home.run.parents):  # let others in as far as the node's own folder
            if folder.is_relative_to(tmp_path.parent.parent) and folder != home.run:
                folder.chmod(0o755)
        for mode in (0o700, 0o755):  # the socket's own mode holds, too
            home.run.chmod(mode)
            other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", connect]
            done = await trio.run_process(other, capture_stderr=True, check=False)
            assert b"PermissionError" in done.stderr
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(str(home.natural_socket))
        nursery.cancel_scope.cancel()
