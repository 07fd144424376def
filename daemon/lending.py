"""What this node lends: its measured hardware less what its owner keeps, as the core and the advert say it.

Knows settings, the measured profile and which engines answer. Must never measure or talk to anybody.
"""

from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from daemon.core.step import Capacity, Now
from nexapod.config import Config
from nexapod.encoding import as_text
from nexapod.events import sign_note
from nexapod.hashing import Tag
from nexapod.identity import Key
from nexapod.limits import ADDRESSES_MAX, ADVERT_VALID_MS, NAME_CHARS_MAX
from nexapod.messages import Advert
from runtime.engine import EngineInfo
from runtime.profile import Profile, advertised, numeric_class, tier

GB = 10**9
RENEW_MS = ADVERT_VALID_MS // 6  # an advert older than this is signed anew, whatever it says


def lent(profile: Profile, config: Config) -> Profile:
    """The profile less what the owner keeps: whole cores, memory and disk; speed goes with the cores."""
    cores = max(1, profile.cores * config.cpus_percent // 100)
    return replace(
        profile,
        cores=cores,
        ram_bytes=profile.ram_bytes * config.ram_percent // 100,
        disk_bytes=min(profile.disk_bytes, config.disk_gb * GB),
        flops=profile.flops * cores // max(1, profile.cores),
    )


def slots_of(profile: Profile, config: Config) -> int:
    """Tasks at a time: what the owner set, else one for each lent core."""
    if not config.work:
        return 0
    return config.slots or profile.cores


@dataclass
class Lending:
    """What is lent now.

    `paused_until` in monotonic seconds; inf: until resumed, 0 when not paused. `changed` is set by whoever changes it,
    and taken by whoever watches for its end.
    """

    config: Config
    machine: Profile  # what is there
    engines: tuple[EngineInfo, ...] = ()
    paused_until: float = 0.0
    stopping: bool = False
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def profile(self) -> Profile:
        """What is lent of what is there."""
        return lent(self.machine, self.config)

    def ready(self) -> tuple[str, ...]:
        """Names of the engines that can run tasks."""
        return tuple(info.name for info in self.engines if info.ready)

    def is_paused(self, now_s: float) -> bool:
        return self.paused_until > now_s

    def why_not(self, now_s: float) -> str:
        """Why this node takes no work; empty when it does."""
        if self.stopping:
            return "this node is about to stop"
        if not self.config.work:
            return "work is switched off in its settings"
        if self.is_paused(now_s):
            return "paused by its owner"
        return ""

    def capacity(self, now_s: float) -> Capacity:
        """What the core may promise."""
        why_not = self.why_not(now_s)
        return Capacity(
            slots=slots_of(self.profile, self.config),
            engines=frozenset(self.ready()),
            tier=tier(self.profile),
            cores=self.profile.cores,
            ram_bytes=self.profile.ram_bytes,
            disk_bytes=self.profile.disk_bytes,
            numeric_class=numeric_class(self.profile),
            gpus=tuple((gpu.vendor, gpu.vram_bytes) for gpu in self.profile.gpus),
            willing=not why_not,
            why_not=why_not,
        )


class OwnAdvert:
    """The own signed advert: signed anew when what it says has changed, or when it has become old."""

    def __init__(self, key: Key, netid: bytes, feed: bytes) -> None:
        self._key, self._netid, self._feed = key, netid, feed
        self._said: Advert | None = None
        self._raw = b""

    def raw(self, lending: Lending, addresses: list[str], moment: Now, *, anew: bool = False) -> bytes:
        """Bytes of the advert, with a higher seq when it has changed or `anew` asks for one.

        The wall clock makes the seq, so that it rises over restarts; it decides nothing else.
        """
        willing, wall_ms = not lending.why_not(moment.mono_ms / 1000), moment.wall_ms
        advert = Advert(
            key=self._key.public,
            feed=self._feed,
            seq=self._said.seq if self._said else 0,
            valid_ms=ADVERT_VALID_MS,
            name=as_text(lending.config.name, NAME_CHARS_MAX),  # whatever its owner typed
            addresses=tuple(addresses[:ADDRESSES_MAX]),
            engines=lending.ready(),
            tier=tier(lending.profile),
            slots=slots_of(lending.profile, lending.config) if willing else 0,
            profile=advertised(lending.profile),
        )
        if anew or advert != self._said or wall_ms - advert.seq > RENEW_MS:
            self._said = replace(advert, seq=max(wall_ms, advert.seq + 1))
            self._raw = sign_note(self._key, Tag.ADVERT, self._netid, self._said)
        return self._raw
