"""An honest peer in a process of its own, so that what it measures is the node under attack and not the attackers.

It introduces itself with its own key like any node, answers what a node is asked, and asks all the time what the walk
of a job asks: is somebody there, a claim for the owner's core, an assignment that the worker's core answers. Steered
by lines of JSON on standard input, each answered by one.
"""

import json
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import trio

from daemon.host import Mesh, open_host
from nexapod.encoding import encode
from nexapod.errors import Unavailable
from nexapod.events import make_genesis, open_event, sign_note
from nexapod.hashing import Tag, blob_id
from nexapod.identity import Key, next_key_digest
from nexapod.limits import CLAIM_VALID_MS, LEASE_MS, REPLY_BYTES_MAX
from nexapod.messages import (
    Ask,
    AskAssign,
    AskClaim,
    AskFrontier,
    AskHello,
    AskPing,
    Assignment,
    Claim,
    FrontierReply,
    HelloReply,
    Refused,
    Reply,
)
from tests.daemon.standing import LOOPBACK, Stranger

ASK_EVERY_S = 0.025
ASK_S = 5.0  # no answer within this counts as a failure
DIAL_S = 3.0


class Honest:
    """One introduced peer that measures, and a second host that dials like somebody new."""

    def __init__(self, netid: bytes, victim: bytes, address: str, mesh: Mesh, newcomer: Mesh) -> None:
        key = Key.from_seed(mesh._seed)
        genesis = make_genesis(key, netid, next_key_digest(Key.fresh().public))
        self.peer = Stranger(netid, key, mesh, genesis=genesis.raw, feed=genesis.feed, answers=self.answer)
        self.victim, self.address, self.newcomer = victim, address, newcomer
        self.latencies: list[float] = []
        self.failed, self.victim_feed = 0, b""
        mesh.serve_requests(self.peer.answer)

    async def answer(self, key: bytes, ask: Ask) -> Reply:
        return FrontierReply((), False) if isinstance(ask, AskFrontier) else Refused("unavailable", "")

    async def introduce(self) -> None:
        await self.peer.mesh.connect(self.victim, [self.address])
        reply = await self.peer.ask(self.victim, AskHello(self.peer.netid, self.peer.genesis, self.peer.advert()))
        assert isinstance(reply, HelloReply), reply
        self.victim_feed = open_event(reply.genesis, self.peer.netid).feed

    def questions(self) -> Iterator[bytes]:
        """A ping, a claim, an assignment, and again."""
        key, netid, own = self.peer.key, self.peer.netid, self.peer.feed
        for number in count(1):
            yield encode(AskPing())
            claim = Claim(own, "x86-64-v3", 1, number, CLAIM_VALID_MS, None)
            yield encode(AskClaim(sign_note(key, Tag.CLAIM, netid, claim)))
            lent = Assignment(own, self.victim_feed, blob_id(b"an offer"), 0, LEASE_MS, (0,))
            yield encode(AskAssign(sign_note(key, Tag.ASSIGNMENT, netid, lent)))

    async def keep_asking(self) -> None:
        """One question after the other; whoever lost its connection comes back, as a node does."""
        for question in self.questions():
            began = trio.current_time()
            try:
                with trio.fail_after(ASK_S):
                    if self.victim not in self.peer.mesh.connected():
                        await self.introduce()
                    await self.peer.mesh.request(self.victim, question, reply_max=REPLY_BYTES_MAX)
            except (Unavailable, trio.TooSlowError):
                self.failed += 1
            else:
                self.latencies.append(trio.current_time() - began)
            await trio.sleep_until(began + ASK_EVERY_S)

    async def dial(self, count: int) -> int:
        """Come and go so many times; how often it took at most DIAL_S."""
        quick = 0
        for _ in range(count):
            with trio.move_on_after(DIAL_S):
                try:
                    await self.newcomer.connect(self.victim, [self.address])
                    await self.newcomer.ping(self.victim)
                    quick += 1
                except Unavailable:
                    pass
            await self.newcomer.disconnect(self.victim)
        return quick

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "begin":
                self.latencies, self.failed = [], 0
                return {}
            case "report":
                connected = self.victim in self.peer.mesh.connected()
                return {"latencies": self.latencies, "failed": self.failed, "connected": connected}
            case "dial":
                return {"quick": await self.dial(order["count"])}
        raise ValueError(order)


async def main(netid: str, victim: str, address: str) -> None:
    seeds = Key.fresh().seed, Key.fresh().seed
    async with open_host(seeds[0], LOOPBACK) as mesh, open_host(seeds[1], LOOPBACK) as newcomer:
        honest = Honest(bytes.fromhex(netid), bytes.fromhex(victim), address, mesh, newcomer)
        await honest.introduce()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(honest.keep_asking)
            print(json.dumps({"key": mesh.key.hex(), "feed": honest.peer.feed.hex()}), flush=True)
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                print(json.dumps(await honest.obey(json.loads(line))), flush=True)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
