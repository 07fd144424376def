"""The unix socket the local API is served on.

Knows Hypercorn and file modes. Must never know a path of the API. The socket has mode 0600 in a folder of mode 0700:
the kernel lets in the node's owner and nobody else.
"""

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import hypercorn.trio
import trio
from hypercorn.config import Config as HypercornConfig
from starlette.applications import Starlette

from nexapod.errors import LocalError
from nexapod.home import Home

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

BACKLOG = 64
GRACE_S = 1.0  # answers under way at the end may take this long
KEEP_ALIVE_S = 60


async def serve_local(
    api: Starlette, home: Home, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the API until cancelled; started once the socket takes connections. The socket's file goes with it.

    Raises:
        LocalError: the socket cannot be made.
    """
    place = home.make_socket_place()
    try:
        listener = _listen(str(place))
    except OSError as error:
        why = error.strerror or str(error)
        raise LocalError(f"the socket {place} cannot be made", why, "choose another --home") from None
    config = HypercornConfig()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog, config.errorlog = None, logging.getLogger("nexapod.api")
    config.graceful_timeout, config.shutdown_timeout = GRACE_S, GRACE_S
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.include_server_header = False
    asgi: Any = api
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(hypercorn.trio.serve, asgi, config)
            task_status.started()
    finally:
        place.unlink(missing_ok=True)
        home.socket_record.unlink(missing_ok=True)


def _listen(path: str) -> socket.socket:
    """A listening socket; whoever holds the home's lock may take the place of a daemon that died."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
