"""Gossip among real hosts on loopback: bursts, strangers, silence."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio

from daemon.host import Mesh, open_host
from gossip import service
from gossip.batch import MESSAGE_BYTES_MAX
from gossip.pubsub import Line
from gossip.service import Gossip, Received
from nexapod.limits import GOSSIP_BYTES_MAX

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 20
NETID = b"\7" * 32


@asynccontextmanager
async def chain(*gossips: Gossip) -> AsyncIterator[list[Mesh]]:
    """Hosts in a row, each connected to the next, with their gossip known to each other."""
    async with AsyncExitStack() as stack:
        hosts = []
        for number, gossip in enumerate(gossips):
            hosts.append(await stack.enter_async_context(open_host(bytes([number + 1]) * 32, LOOPBACK, [gossip.ride])))
        with trio.fail_after(PATIENCE_S):
            for left, right in pairwise(hosts):
                await left.connect(right.key, right.addresses())
        yield hosts


async def hear(gossip: Gossip, count: int = 1) -> list[Received]:
    with trio.fail_after(PATIENCE_S):
        return [await gossip.received.receive() for _ in range(count)]


async def test_a_burst_reaches_everybody_in_order_and_once() -> None:
    first, second, third = Gossip(NETID), Gossip(NETID), Gossip(NETID)
    async with chain(first, second, third) as hosts:
        first.publish("offers", b"are you there?")
        await hear(second)
        await hear(third)
        messages = [b"%d:" % number + bytes(300) for number in range(300)]
        for message in messages:
            first.publish("events", message)
        for listener in (second, third):
            heard = await hear(listener, 300)
            assert [received.payload for received in heard] == messages
            assert {(received.topic, received.author) for received in heard} == {("events", hosts[0].key)}
        assert first.counts["batches sent"] < 10
        third.publish("claims", b"last word")
        for listener in (first, second):
            assert await hear(listener) == [Received("claims", hosts[2].key, b"last word")]
        for gossip in (first, second, third):  # nobody hears itself or anything twice
            with pytest.raises(trio.WouldBlock):
                gossip.received.receive_nowait()


async def test_a_burst_that_nobody_batches_arrives_as_well() -> None:
    """The library's own queues would keep 32 messages and drop the rest in silence."""
    heard: list[bytes] = []
    lines: list[Line] = []

    def ride(host: Any) -> Any:
        lines.append(Line(host, ["t"], lambda *_: True))
        return lines[-1].running(lambda topic, author, data: heard.append(data))

    async with open_host(bytes([1]) * 32, LOOPBACK, [ride]) as one, open_host(bytes([2]) * 32, LOOPBACK, [ride]) as two:
        with trio.fail_after(PATIENCE_S):
            await one.connect(two.key, two.addresses())
            while not heard:
                await lines[0].publish("t", b"probe")
                await trio.sleep(0.05)
            heard.clear()
            for number in range(300):
                await lines[0].publish("t", b"%d" % number)
            while len([data for data in heard if data != b"probe"]) < 300:  # noqa: ASYNC110 - the library delivers
                await trio.sleep(0.01)


async def test_with_gossip_dropped_nothing_is_said_or_heard() -> None:
    mute, speaker, listener = Gossip(NETID, drop_all=True), Gossip(NETID), Gossip(NETID)
    async with chain(mute, speaker, listener):
        mute.publish("events", b"never said")
        speaker.publish("events", b"said")
        assert [received.payload for received in await hear(listener)] == [b"said"]
        with pytest.raises(trio.WouldBlock):
            mute.received.receive_nowait()
        assert mute.counts["dropped on purpose"] == 1


async def test_other_networks_are_not_heard() -> None:
    ours, theirs, also_ours = Gossip(NETID), Gossip(b"\x08" * 32), Gossip(NETID)
    async with chain(theirs, ours, also_ours):
        theirs.publish("events", b"from elsewhere")
        also_ours.publish("events", b"from here")
        assert [received.payload for received in await hear(ours)] == [b"from here"]


async def test_what_is_no_batch_is_counted_and_forgotten() -> None:
    ours = Gossip(NETID)
    name = f"/nexapod/{NETID.hex()[:16]}/events"
    lines: list[Line] = []

    class Rude(Gossip):
        def ride(self, host: object) -> object:  # type: ignore[override]
            lines.append(Line(host, [name], lambda *_: True))
            return lines[-1].running(lambda *_: None)

    async with chain(Rude(NETID), ours), trio.open_nursery() as nursery:

        async def shout() -> None:
            with trio.fail_after(PATIENCE_S):
                while not ours.counts["not a batch"]:
                    await lines[0].publish(name, b"\xff rubbish")
                    await lines[0].publish(name, bytes(GOSSIP_BYTES_MAX + 1))
                    await trio.sleep(0.05)

        nursery.start_soon(shout)
    assert ours.counts["received"] == 0


async def test_a_full_inbox_drops_the_newest_and_a_full_outbox_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "INBOX", 5)
    monkeypatch.setattr(service, "OUTBOX", 8)
    speaker, listener = Gossip(NETID), Gossip(NETID)
    for number in range(10):
        speaker.publish("events", b"%d" % number)
    assert speaker.counts["dropped from the outbox"] == 2
    async with chain(speaker, listener):
        with trio.fail_after(PATIENCE_S):
            while not listener.counts["dropped from the inbox"]:  # noqa: ASYNC110 - the library delivers
                await trio.sleep(0.01)
        heard = await hear(listener, 5)
    assert heard[0].payload == b"2"


def test_a_payload_too_long_is_the_callers_mistake() -> None:
    with pytest.raises(AssertionError):
        Gossip(NETID).publish("events", bytes(MESSAGE_BYTES_MAX + 1))
    with pytest.raises(KeyError):
        Gossip(NETID).publish("weather", b"x")
