"""A peer in another process that is killed or frozen while we wait for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from daemon.host import open_host
from nexapod.errors import Unavailable

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PEER = """
import sys, trio
from daemon.host import open_host

async def main():
    async def hang(key, payload):
        await trio.sleep_forever()
    async with open_host(b"\\x09" * 32, ["/ip4/127.0.0.1/tcp/0"]) as mesh:
        mesh.serve_requests(hang)
        print(mesh.key.hex(), mesh.addresses()[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""

pytestmark = pytest.mark.process


@contextmanager
def peer_process() -> Iterator[tuple[subprocess.Popen[str], bytes, str]]:
    with subprocess.Popen([sys.executable, "-c", PEER], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as process:
        try:
            assert process.stdout is not None
            key, address = process.stdout.readline().split()
            yield process, bytes.fromhex(key), address
        finally:
            process.kill()


async def test_a_killed_peer_is_unavailable_at_once() -> None:
    with peer_process() as (process, key, address):
        async with open_host(bytes([1]) * 32, LOOPBACK) as one:
            with trio.fail_after(20):
                await one.connect(key, [address])
                async with trio.open_nursery() as nursery:

                    async def ask() -> None:
                        with pytest.raises(Unavailable):
                            await one.request(key, b"", reply_max=10)

                    nursery.start_soon(ask)
                    await one.ping(key)
                    process.kill()
                while one.connected():  # noqa: ASYNC110 - the library notices
                    await trio.sleep(0.01)


async def test_a_frozen_peer_costs_no_more_than_the_deadline() -> None:
    with peer_process() as (process, key, address):
        async with open_host(bytes([1]) * 32, LOOPBACK) as one:
            with trio.fail_after(20):
                await one.connect(key, [address])
                await one.ping(key)
                process.send_signal(signal.SIGSTOP)
                began = trio.current_time()
                for _ in range(5):
                    with trio.move_on_after(0.2) as scope:
                        await one.request(key, b"x" * 500_000, reply_max=10)
                    assert scope.cancelled_caught
                assert trio.current_time() - began < 8
                await one.disconnect(key)
                assert not one.connected()
                process.send_signal(signal.SIGCONT)
                while not one.connected():
                    try:
                        await one.connect(key, [address])
                    except Unavailable:
                        await trio.sleep(0.05)
                assert await one.ping(key) < 5
