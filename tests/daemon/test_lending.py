"""What is lent of a machine, when a node takes no work, and when its advert is signed anew."""

import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.step import Now
from daemon.lending import GB, RENEW_MS, Lending, OwnAdvert, lent, slots_of
from dht.advert import open_advert
from nexapod.config import Config, load_config
from nexapod.hashing import blob_id
from nexapod.home import find_home
from nexapod.identity import Key
from nexapod.limits import ADDRESSES_MAX, ADVERT_VALID_MS
from runtime.engine import EngineInfo
from runtime.profile import Gpu, Profile

MACHINE = Profile(
    cores=8, ram_bytes=32 * GB, disk_bytes=500 * GB, flops=8_000, arch="x86_64", dispatch="x86-64-v3",
    gpus=(Gpu("nvidia", "card", 8 * 2**30, "sm86-550"),),
)  # fmt: skip
READY, DOWN = EngineInfo("docker", "20", ready=True), EngineInfo("other", "", ready=False, why="it does not answer")
NETID, KEY = blob_id(b"net"), Key.from_seed(bytes(32))


def config_of(tmp_path: Path, **settings: Any) -> Config:
    return load_config(find_home(str(tmp_path), {}), {}, settings)


def test_shares_are_kept_back_and_speed_goes_with_the_cores(tmp_path: Path) -> None:
    part = lent(MACHINE, config_of(tmp_path, cpus_percent=50, ram_percent=25, disk_gb=20))
    assert (part.cores, part.flops, part.ram_bytes, part.disk_bytes) == (4, 4_000, 8 * GB, 20 * GB)
    assert part.gpus == MACHINE.gpus


@pytest.mark.parametrize(("cores", "percent", "expected"), [(8, 100, 8), (8, 99, 7), (8, 1, 1), (1, 50, 1), (3, 34, 1)])
def test_whole_cores_are_lent_and_at_least_one(tmp_path: Path, cores: int, percent: int, expected: int) -> None:
    part = lent(replace(MACHINE, cores=cores), config_of(tmp_path, cpus_percent=percent))
    assert part.cores == expected


def test_a_small_disk_is_not_lent_beyond_its_size(tmp_path: Path) -> None:
    assert lent(replace(MACHINE, disk_bytes=5 * GB), config_of(tmp_path, disk_gb=20)).disk_bytes == 5 * GB


def test_slots_are_the_owners_word_or_one_for_each_core(tmp_path: Path) -> None:
    assert slots_of(MACHINE, config_of(tmp_path)) == 8
    assert slots_of(MACHINE, config_of(tmp_path, slots=3)) == 3
    assert slots_of(MACHINE, config_of(tmp_path, slots=3, work=False)) == 0


def test_capacity_says_what_may_be_promised(tmp_path: Path) -> None:
    lending = Lending(config_of(tmp_path), MACHINE, (READY, DOWN))
    capacity = lending.capacity(0.0)
    assert lending.ready() == ("docker",)
    assert capacity.engines == {"docker"}
    assert (capacity.slots, capacity.cores, capacity.tier) == (8, 8, 1)
    assert capacity.gpus == (("nvidia", 8 * 2**30),)
    assert capacity.numeric_class == "x86-64-v3+sm86-550"
    assert (capacity.willing, capacity.why_not) == (True, "")


def test_every_reason_to_take_no_work_has_words(tmp_path: Path) -> None:
    lending = Lending(config_of(tmp_path), MACHINE, (READY,), paused_until=10.0)
    assert lending.is_paused(9.9)
    assert lending.why_not(9.9) == "paused by its owner"
    assert not lending.is_paused(10.0)
    assert lending.why_not(10.0) == ""
    lending.paused_until = math.inf
    assert not lending.capacity(1e12).willing
    lending.stopping = True
    assert "about to stop" in lending.why_not(0.0)
    idle = Lending(config_of(tmp_path, work=False), MACHINE, (READY,))
    assert "switched off" in idle.why_not(0.0)
    assert idle.capacity(0.0).slots == 0


# --- the own advert ---------------------------------------------------------------------------------------------------
def advert_of(lending: Lending, own: OwnAdvert, wall_ms: int, addresses: list[str] | None = None, **more: Any) -> bytes:
    return own.raw(lending, addresses or [], Now(mono_ms=wall_ms, wall_ms=wall_ms), **more)


def test_an_advert_is_signed_once_and_again_when_it_changed(tmp_path: Path) -> None:
    lending, own = Lending(config_of(tmp_path, name="lab"), MACHINE, (READY,)), OwnAdvert(KEY, NETID, blob_id(b"feed"))
    first = advert_of(lending, own, 1_000)
    found = open_advert(first, NETID)
    assert (found.key, found.feed, found.name) == (KEY.public, blob_id(b"feed"), "lab")
    assert (found.seq, found.valid_ms, found.slots) == (1_000, ADVERT_VALID_MS, 8)
    assert advert_of(lending, own, 2_000) == first
    moved = open_advert(advert_of(lending, own, 3_000, ["/ip4/127.0.0.1/tcp/1"]), NETID)
    assert (moved.seq, moved.addresses) == (3_000, ("/ip4/127.0.0.1/tcp/1",))


def test_an_old_advert_is_signed_anew(tmp_path: Path) -> None:
    lending, own = Lending(config_of(tmp_path), MACHINE), OwnAdvert(KEY, NETID, blob_id(b"feed"))
    first = advert_of(lending, own, 1_000)
    assert advert_of(lending, own, 1_000 + RENEW_MS) == first
    assert open_advert(advert_of(lending, own, 1_001 + RENEW_MS), NETID).seq == 1_001 + RENEW_MS
    assert RENEW_MS * 2 < ADVERT_VALID_MS


def test_seq_rises_also_when_the_wall_clock_goes_back(tmp_path: Path) -> None:
    lending, own = Lending(config_of(tmp_path), MACHINE), OwnAdvert(KEY, NETID, blob_id(b"feed"))
    advert_of(lending, own, 5_000)
    assert [open_advert(advert_of(lending, own, 100, anew=True), NETID).seq for _ in range(3)] == [5_001, 5_002, 5_003]


def test_a_paused_node_advertises_no_slots(tmp_path: Path) -> None:
    lending, own = Lending(config_of(tmp_path), MACHINE, (READY,), paused_until=9.0), OwnAdvert(KEY, NETID, bytes(32))
    assert open_advert(advert_of(lending, own, 1_000), NETID).slots == 0
    assert open_advert(advert_of(lending, own, 9_000), NETID).slots == 8


def test_more_addresses_than_an_advert_holds_are_cut(tmp_path: Path) -> None:
    own = OwnAdvert(KEY, NETID, bytes(32))
    many = [f"/ip4/127.0.0.1/tcp/{port}" for port in range(1, ADDRESSES_MAX + 9)]
    raw = advert_of(Lending(config_of(tmp_path), MACHINE), own, 1, many)
    assert open_advert(raw, NETID).addresses == tuple(many[:ADDRESSES_MAX])
