"""Gossip among real hosts on loopback: bursts, strangers, silence."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.pubsub import pubsub
from libp2p.pubsub.pb import rpc_pb2

from daemon.host import Mesh, open_host
from gossip import service
from gossip.authors import AUTHOR_AT_ONCE
from gossip.batch import MESSAGE_BYTES_MAX, MESSAGES_MAX, encode_batch
from gossip.pubsub import Line
from gossip.service import Gossip, Received
from nexapod.encoding import encode
from nexapod.events import make_genesis, open_event
from nexapod.identity import Key, next_key_digest, peer_id
from nexapod.limits import GOSSIP_BYTES_MAX

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE_S = 20
NETID, OTHER_NETID = b"\7" * 32, b"\x08" * 32


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
    ours, theirs, also_ours = Gossip(NETID), Gossip(OTHER_NETID), Gossip(NETID)
    async with chain(theirs, ours, also_ours):
        theirs.publish("events", b"from elsewhere")
        also_ours.publish("events", b"from here")
        assert [received.payload for received in await hear(ours)] == [b"from here"]


def topic_name(netid: bytes, topic: str = "events") -> str:
    return f"/nexapod/{netid.hex()[:16]}/{topic}"


class Rude(Gossip):
    """Somebody on the network who says what it likes, and hears as we do."""

    def __init__(self, netid: bytes) -> None:
        super().__init__(netid)
        self.netid = netid
        self.line: Any = None
        self.heard: list[bytes] = []

    def ride(self, host: Any) -> Any:
        self.line = Line(host, tuple(self._names), lambda *_: True)
        return self.line.running(lambda topic, author, data: self.heard.append(data))

    async def say(self, name: str, *batches: bytes) -> None:
        for data in batches:
            await self.line.publish(name, data)

    async def probe(self, *listeners: Gossip) -> None:
        """Say hello until everybody hears: the mesh has formed."""
        with trio.fail_after(PATIENCE_S):
            while not all(listener.counts["received"] for listener in listeners):
                await self.say(topic_name(self.netid), encode_batch([b"hello"]))
                await trio.sleep(0.05)
        for listener in listeners:
            while listener.counts["received"]:
                with trio.fail_after(PATIENCE_S):
                    await listener.received.receive()
                listener.counts["received"] -= 1


async def until_heard(gossip: Gossip, payload: bytes) -> list[bytes]:
    """Everything heard up to this payload, it included."""
    heard = []
    with trio.fail_after(PATIENCE_S):
        while not heard or heard[-1] != payload:
            heard.append((await gossip.received.receive()).payload)
    return heard


async def test_junk_is_counted_once_and_passed_on_to_nobody() -> None:
    rude, ours, third = Rude(NETID), Gossip(NETID), Gossip(NETID)
    async with chain(rude, ours, third):
        await rude.probe(ours, third)
        name = topic_name(NETID)
        junk = [b"", b"\xff rubbish", encode([]), encode([b""]), encode(["text"]), encode([b"x"]) + b"\0"]
        junk += [bytes(GOSSIP_BYTES_MAX), encode([b"x" * (MESSAGE_BYTES_MAX + 1)]), encode([b"x"] * (MESSAGES_MAX + 1))]
        await rude.say(name, *junk, bytes(GOSSIP_BYTES_MAX + 1), encode_batch([b"the end"]))
        for listener in (ours, third):
            assert set(await until_heard(listener, b"the end")) <= {b"hello", b"the end"}
        assert ours.counts["not a batch"] == len(junk)
        assert third.counts["not a batch"] == 0


async def test_who_talks_too_much_is_cut_off_and_the_others_are_heard() -> None:
    rude, ours, friend = Rude(NETID), Gossip(NETID), Gossip(NETID)
    async with chain(rude, ours, friend):
        await rude.probe(ours, friend)
        flood = 2 * int(AUTHOR_AT_ONCE.batches)
        for number in range(flood):
            await rude.say(topic_name(NETID, "claims"), encode_batch([b"%d" % number]))
        with trio.fail_after(PATIENCE_S):
            while not ours.counts["refused"]:  # noqa: ASYNC110 - the library delivers
                await trio.sleep(0.01)
        friend.publish("events", b"may I?")
        assert await until_heard(ours, b"may I?")
        assert ours.counts["received"] < flood


async def test_an_author_with_another_kind_of_key_is_not_even_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signature of a hostile RSA key keeps us busy for 30 ms, and costs its author nothing."""
    heard: list[bytes] = []
    checked: list[Any] = []
    monkeypatch.setattr(pubsub, "signature_validator", checked.append)
    lines: list[Line] = []

    def ride(host: Any) -> Any:
        lines.append(Line(host, ["t"], lambda *_: True))
        return lines[-1].running(lambda topic, author, data: heard.append(data))

    async with open_host(bytes([1]) * 32, LOOPBACK, [ride]) as host:
        forwarder = ID.from_base58(peer_id(Key.from_seed(bytes([2]) * 32).public))
        for author in (b"", b"\x12\x20" + bytes(32), bytes(200_000), b"\x00\x25\x08\x02\x12\x21\x02" + bytes(32)):
            message = rpc_pb2.Message(
                from_id=author, seqno=b"1", data=b"x", topicIDs=["t"], signature=b"s", key=b"\xff"
            )
            await lines[0]._pubsub.push_msg(forwarder, message)
        assert not checked
        own = rpc_pb2.Message(from_id=ID.from_base58(peer_id(host.key)).to_bytes(), seqno=b"2", topicIDs=["t"])
        await lines[0]._pubsub.push_msg(forwarder, own)
        assert checked, "the way itself works"
    assert heard == []


async def test_replay_across_networks_opens_nowhere() -> None:
    """Words of one network said again on another arrive as words, and are an event there for nobody."""
    key = Key.from_seed(b"\x05" * 32)
    genesis = make_genesis(key, OTHER_NETID, next_key_digest(key.public))
    rude, ours = Rude(NETID), Gossip(NETID)
    async with chain(rude, ours):
        await rude.probe(ours)
        await rude.say(topic_name(NETID), encode_batch([genesis.raw]))
        heard = (await until_heard(ours, genesis.raw))[-1]
    assert open_event(heard, OTHER_NETID).signed_by(key.public)
    here = open_event(heard, NETID)
    assert here.id != genesis.id
    assert not here.signed_by(key.public)


async def test_replay_of_a_signed_message_on_another_topic_is_refused() -> None:
    """Even the envelope of the library cannot be carried over: its signature covers the name of the topic."""
    theirs, ours = Rude(OTHER_NETID), Gossip(NETID)
    async with chain(theirs, ours):
        batch = encode_batch([b"said elsewhere"])
        said: list[Any] = []
        theirs.line._pubsub.push_msg = keep(theirs.line._pubsub.push_msg, said)
        await theirs.say(topic_name(OTHER_NETID), batch)
        replayed = rpc_pb2.Message()
        replayed.CopyFrom(said[0])
        replayed.topicIDs[:] = [topic_name(NETID)]
        lines: list[Line] = []
        heard: list[bytes] = []

        def ride(host: Any) -> Any:
            lines.append(Line(host, [topic_name(NETID), topic_name(OTHER_NETID)], lambda *_: True))
            return lines[-1].running(lambda topic, author, data: heard.append(data))

        async with open_host(bytes([9]) * 32, LOOPBACK, [ride]):
            forwarder = ID(said[0].from_id)
            await lines[0]._pubsub.push_msg(forwarder, replayed)
            await lines[0]._pubsub.push_msg(forwarder, said[0])
            with trio.fail_after(PATIENCE_S):
                while not heard:  # noqa: ASYNC110 - the library delivers
                    await trio.sleep(0.01)
    assert heard == [batch], "the message itself passes once, its copy under another topic never"


def keep(push: Any, said: list[Any]) -> Any:
    async def kept(forwarder: Any, message: Any) -> None:
        said.append(message)
        await push(forwarder, message)

    return kept


async def test_a_full_inbox_drops_the_newest_and_a_full_outbox_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "INBOX", 5)
    monkeypatch.setattr(service, "OUTBOX", 8)
    speaker, listener = Gossip(NETID), Gossip(NETID)
    async with chain(speaker, listener):
        for number in range(10):  # without a pause between them, so nothing goes out meanwhile
            speaker.publish("events", b"%d" % number)
        assert speaker.counts["dropped from the outbox"] == 2
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
