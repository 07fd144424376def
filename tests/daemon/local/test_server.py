"""The socket: whose it is, where it lies, and that it goes with the daemon."""

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from daemon.local import server
from daemon.local.server import serve_local
from nexapod.cli.client import Api
from nexapod.errors import LocalError
from nexapod.home import SOCKET_PATH_BYTES_MAX, Home, find_home


async def hello(request: Request) -> Response:
    return JSONResponse({"hello": request.url.path})


@asynccontextmanager
async def serving(home: Home) -> AsyncIterator[Api]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(serve_local, Starlette(routes=[Route("/{path:path}", hello)]), home)
        yield Api(home.socket())
        nursery.cancel_scope.cancel()


def home_of(folder: Path) -> Home:
    home = find_home(str(folder), {})
    home.make_folders()
    return home


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sockets have short names, and the place for those that have not."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


async def ask(api: Api) -> object:
    return await trio.to_thread.run_sync(api.get, "/x")


async def test_only_the_owner_can_open_the_socket(short: Path) -> None:
    home = home_of(short / "h")
    async with serving(home) as api:
        place = home.socket()
        assert await ask(api) == {"hello": "/x"}
        assert stat.S_ISSOCK(place.stat().st_mode)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert not place.exists()


async def test_the_socket_of_a_daemon_that_died_is_replaced(short: Path) -> None:
    home = home_of(short / "h")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.make_socket_place()))
    assert home.socket().exists()
    async with serving(home) as api:
        assert await ask(api) == {"hello": "/x"}


async def test_a_dangling_link_in_its_place_is_replaced_and_not_followed(short: Path) -> None:
    home = home_of(short / "h")
    home.make_socket_place().symlink_to(short / "elsewhere")
    async with serving(home) as api:
        assert await ask(api) == {"hello": "/x"}
        assert not home.socket().is_symlink()
    assert not (short / "elsewhere").exists()


async def test_a_home_with_a_long_path_has_its_socket_elsewhere(short: Path) -> None:
    home = home_of(short / ("long" * 30))
    assert len(str(home.natural_socket)) > SOCKET_PATH_BYTES_MAX
    async with serving(home) as api:
        place = home.socket()
        assert place != home.natural_socket
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert home.socket_record.read_text().strip() == str(place)
        assert await ask(api) == {"hello": "/x"}
    assert not place.exists()
    assert not home.socket_record.exists()


async def test_a_folder_others_can_enter_is_refused(short: Path) -> None:
    home = home_of(short / ("long" * 30))
    place = home.short_socket()
    place.parent.mkdir(mode=0o755)
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(home):
            pass
    assert caught.group_contains(LocalError, match="not ours alone")


async def test_a_folder_that_takes_no_socket_is_the_operators_error(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(short / "h")
    home.make_socket_place().mkdir()  # a folder in its place cannot be unlinked
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(home):
            pass
    assert caught.group_contains(LocalError, match="cannot be made")


async def test_it_ends_within_the_grace_while_an_answer_is_under_way(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE_S", 0.1)
    home, begun = home_of(short / "h"), trio.Event()

    async def never(request: Request) -> Response:
        begun.set()
        await trio.sleep_forever()
        return Response()

    with trio.fail_after(20):
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_local, Starlette(routes=[Route("/x", never)]), home)
                stream = await trio.open_unix_socket(str(home.socket()))
                await stream.send_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await begun.wait()
                nursery.cancel_scope.cancel()
            await stream.aclose()
            clients.cancel_scope.cancel()
    assert not home.socket().exists()
