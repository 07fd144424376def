"""A daemon that can be hurt from outside, and whose tasks need no containers; everything else is the real daemon.

SIGUSR1 makes a service of its network host raise, as a bug in the library would. A stream of FRAIL_PROTOCOL makes a
handler raise. Tasks take a moment, so that a host can die while they run. Silent peers are noticed sooner.
"""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from daemon import app, connections, host
from daemon.main import main
from runtime.memory import MemoryEngine
from runtime.task import TaskSpec
from tests.daemon.standing import IMAGE

FRAIL_PROTOCOL = "/frail/1"
TASK_S = float(os.environ.get("NEXAPOD_TEST_TASK_S", "0"))

make_mesh = host.Mesh.__init__


def slow_program(spec: TaskSpec, inputs: Any) -> dict[str, bytes]:
    return {"task.txt": b"%d of %d\n" % (spec.index, spec.count)}


class SlowEngine(MemoryEngine):
    """As the test engine, but a task takes TASK_S."""

    async def run(self, *args: Any) -> Any:
        began = time.monotonic()
        outcome = await super().run(*args)
        await trio.sleep(began + TASK_S - time.monotonic() if TASK_S else 0)
        return outcome


async def broken_handler(stream: Any) -> None:
    await stream.read(1)
    raise KeyError("a bug in a handler")


@asynccontextmanager
async def frail(library_host: Any) -> AsyncIterator[None]:
    library_host.set_stream_handler(FRAIL_PROTOCOL, broken_handler)

    async def die_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            async for _ in signals:
                raise RuntimeError("a service of the library died")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die_on_signal)
        yield
        nursery.cancel_scope.cancel()


def make_frail_mesh(self: Any, seed: bytes, listen: Any, riders: Any = (), announce: Any = ()) -> None:
    make_mesh(self, seed, listen, [*riders, frail], announce)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the host stands
    host.Mesh.__init__ = make_frail_mesh  # type: ignore[method-assign]
    connections.PING_EVERY_S, connections.PING_S = 0.5, 0.5
    app.DockerEngine = lambda **_: SlowEngine({IMAGE: slow_program}, name="docker")  # type: ignore[assignment,misc]
    main()
