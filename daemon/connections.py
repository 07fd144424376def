"""Who we want to be connected to: dial, dial again, notice the dead.

Knows addresses, failures and seconds. Must never know what a peer is good for: whoever learns of a peer says whether
it must be kept. The deciding part (`Dialer`) has no clock and no network; `Connections` is the task around it.
"""

import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import trio

from daemon.blame import Bans
from daemon.host import Mesh
from nexapod.errors import Unavailable
from nexapod.limits import ADDRESSES_MAX, PEERS_MAX

if TYPE_CHECKING:  # the stubs the type checker reads do not know trio.TaskStatus
    from trio_typing import TaskStatus

PeerKey: TypeAlias = bytes
KNOWN_MAX = 1024  # peers remembered; when full, the one that failed most makes room, never one that must be kept
WANTED = 32  # connections we look for ourselves; peers that must be kept come on top
FORGET_AFTER = 8  # failures in a row (about two minutes) after which a peer nobody wants kept is forgotten
BACKOFF_FIRST_S = 1.0  # wait after the first failed dial; doubles
BACKOFF_LAST_S = 60.0
RECONNECT_S = 0.1  # wait before dialling a peer that was connected a moment ago, plus up to RECONNECT_SPREAD_S
RECONNECT_SPREAD_S = 0.8
DIALS_AT_ONCE = 8
DIAL_S = 20.0  # all addresses of one peer
TICK_S = 0.25  # how soon a lost peer is noticed
PING_EVERY_S = 15.0
PING_S = 10.0  # no answer within this is a miss
MISSES_MAX = 2

log = logging.getLogger("nexapod.connections")


@dataclass(slots=True)
class _Known:
    addresses: tuple[str, ...]
    keep: bool
    next_at: float
    failures: int = 0
    dialling: bool = False
    away_until: float = -math.inf


class Dialer:
    """Decides whom to dial when. Time and jitter (0 to 1) are arguments."""

    def __init__(self) -> None:
        self._known: dict[PeerKey, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: PeerKey) -> bool:
        return key in self._known

    def learn(self, key: PeerKey, addresses: Sequence[str], keep: bool, now: float) -> bool:
        """Remember a peer, or more of its addresses (new ones are tried first). False: the table is full."""
        peer = self._known.get(key)
        if peer is None:
            if not addresses or (len(self._known) >= KNOWN_MAX and not self._make_room(keep)):
                return False
            self._known[key] = _Known(tuple(dict.fromkeys(addresses))[:ADDRESSES_MAX], keep, now)
            return True
        merged = tuple(dict.fromkeys((*addresses, *peer.addresses)))[:ADDRESSES_MAX]
        if set(merged) != set(peer.addresses):
            peer.failures, peer.next_at = 0, min(peer.next_at, now)
        peer.addresses, peer.keep = merged, peer.keep or keep
        return True

    def _make_room(self, keep: bool) -> bool:
        """Forget the stranger that failed most; for a stranger only one that failed at all."""
        strangers = [(peer.failures, key) for key, peer in self._known.items() if not peer.keep and not peer.dialling]
        if not strangers:
            return False
        failures, worst = max(strangers)
        if not keep and not failures:
            return False
        del self._known[worst]
        return True

    def forget(self, key: PeerKey) -> None:
        """Dial this peer no more."""
        self._known.pop(key, None)

    def send_away(self, key: PeerKey, until: float) -> None:
        """Forget this peer, or if it must be kept, do not dial it before then."""
        peer = self._known.get(key)
        if peer is not None and peer.keep:
            peer.away_until = until
        else:
            self.forget(key)

    def due(self, connected: frozenset[PeerKey], now: float) -> list[tuple[PeerKey, tuple[str, ...]]]:
        """Whom to dial now, most wanted first; each must be answered with `succeeded` or `failed`."""
        dialling = sum(peer.dialling for peer in self._known.values())
        room = min(PEERS_MAX - len(connected) - dialling, DIALS_AT_ONCE - dialling)
        wanted = WANTED - len(connected) - dialling
        out: list[tuple[PeerKey, tuple[str, ...]]] = []
        for key in sorted(self._waiting(connected), key=self._rank):
            peer = self._known[key]
            if max(peer.next_at, peer.away_until) > now or len(out) >= room or (not peer.keep and len(out) >= wanted):
                continue
            peer.dialling = True
            out.append((key, peer.addresses))
        return out

    def _waiting(self, connected: frozenset[PeerKey]) -> list[PeerKey]:
        return [key for key, peer in self._known.items() if key not in connected and not peer.dialling]

    def _rank(self, key: PeerKey) -> tuple[bool, int, float, PeerKey]:
        peer = self._known[key]
        return not peer.keep, peer.failures, peer.next_at, key

    def succeeded(self, key: PeerKey) -> None:
        """The dial ended with a connection."""
        if (peer := self._known.get(key)) is not None:
            peer.dialling, peer.failures = False, 0

    def failed(self, key: PeerKey, now: float, jitter: float) -> None:
        """The dial ended without; the next one comes later, twice as late each time."""
        peer = self._known.get(key)
        if peer is None:
            return
        peer.dialling, peer.failures = False, peer.failures + 1
        if peer.failures >= FORGET_AFTER and not peer.keep:
            del self._known[key]
            return
        wait = min(BACKOFF_FIRST_S * 2.0 ** min(peer.failures - 1, 10), BACKOFF_LAST_S)
        peer.next_at = now + wait * (0.5 + jitter / 2)

    def lost(self, key: PeerKey, now: float, jitter: float) -> None:
        """A connection ended: the first try to get it back comes within a second."""
        if (peer := self._known.get(key)) is not None and not peer.dialling:
            peer.failures, peer.next_at = 0, now + RECONNECT_S + RECONNECT_SPREAD_S * jitter


@dataclass(slots=True)
class _Pulse:
    next_at: float
    misses: int = 0
    seconds: float = math.nan


class Connections:
    """Keeps the Mesh connected to the peers it is told about, and hangs up on those that no longer answer."""

    def __init__(self, mesh: Mesh, jitter: Callable[[], float] = random.random) -> None:
        self._mesh, self._jitter = mesh, jitter
        self._dialer = Dialer()
        self._bans = Bans()
        mesh.refuses = self.refuses
        self._pulses: dict[PeerKey, _Pulse] = {}
        self._wake = trio.Event()

    def learn(self, key: PeerKey, addresses: Sequence[str], keep: bool = False) -> None:
        """A peer exists. `keep`: it stays connected and is never forgotten (seeds, witnesses, partners of a job)."""
        if (
            key != self._mesh.key
            and not self.refuses(key)
            and self._dialer.learn(key, addresses, keep, trio.current_time())
        ):
            self._wake.set()

    def forget(self, key: PeerKey) -> None:
        """Dial this peer no more; an open connection stays open."""
        self._dialer.forget(key)

    def refuses(self, key: PeerKey) -> bool:
        """Whether this peer was sent away and is not wanted back yet."""
        return self._bans.holds(key, trio.current_time())

    async def send_away(self, key: PeerKey) -> None:
        """Hang up on a peer and have nothing to do with it for a while, longer each time."""
        self._dialer.send_away(key, self._bans.add(key, trio.current_time()))
        await self._mesh.disconnect(key)

    def latency_s(self, key: PeerKey) -> float | None:
        """Seconds of the last answered ping to a connected peer."""
        pulse = self._pulses.get(key)
        return None if pulse is None or math.isnan(pulse.seconds) else pulse.seconds

    async def serve(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Dial and ping until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._wake = trio.Event()
                connected, now = self._mesh.connected(), trio.current_time()
                self._follow(connected, now)
                for key, addresses in self._dialer.due(connected, now):
                    nursery.start_soon(self._dial, key, addresses)
                for key, pulse in self._pulses.items():
                    if pulse.next_at <= now:
                        pulse.next_at = now + PING_EVERY_S
                        nursery.start_soon(self._ping, key, pulse)
                with trio.move_on_after(TICK_S):
                    await self._wake.wait()

    def _follow(self, connected: frozenset[PeerKey], now: float) -> None:
        for key in self._pulses.keys() - connected:
            del self._pulses[key]
            self._dialer.lost(key, now, self._jitter())
        for key in connected - self._pulses.keys():
            self._pulses[key] = _Pulse(now + PING_EVERY_S * self._jitter())  # spread, not all at once

    async def _dial(self, key: PeerKey, addresses: tuple[str, ...]) -> None:
        try:
            with trio.fail_after(DIAL_S):
                await self._mesh.connect(key, addresses)
        except (Unavailable, trio.TooSlowError) as error:
            log.debug("%s: %s", key.hex()[:12], error)
            self._dialer.failed(key, trio.current_time(), self._jitter())
        else:
            self._dialer.succeeded(key)

    async def _ping(self, key: PeerKey, pulse: _Pulse) -> None:
        try:
            with trio.fail_after(PING_S):
                pulse.seconds = await self._mesh.ping(key)
        except (Unavailable, trio.TooSlowError):
            pulse.misses += 1
            if pulse.misses >= MISSES_MAX:
                log.info("%s answers no more", key.hex()[:12])
                await self._mesh.disconnect(key)
        else:
            pulse.misses = 0
