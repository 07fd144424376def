"""Adverts as records: where they belong, which are refused, which is newer, and the coarse buckets."""

import msgspec
import pytest

from dht import advert as adverts
from nexapod.events import sign_note
from nexapod.hashing import Tag
from nexapod.identity import Key
from nexapod.limits import ADVERT_BYTES_MAX
from nexapod.messages import Advert, Gpu, Profile

NETID = b"\7" * 32
KEY = Key.from_seed(b"\1" * 32)
GIB = 2**30


def make(seq: int = 1, key: Key = KEY, netid: bytes = NETID, gpus: tuple[Gpu, ...] = (), ram: int = 8 * GIB) -> bytes:
    profile = Profile(4, ram, 100 * GIB, 10**9, "x86-avx2", gpus)
    advert = Advert(KEY.public, b"\5" * 32, seq, 3_600_000, "node", (), ("docker", "process"), 1, 4, profile)
    return sign_note(key, Tag.ADVERT, netid, advert)


def test_an_advert_is_valid_under_its_own_key_only() -> None:
    name = adverts.record_key(NETID, KEY.public)
    assert adverts.fault(name, make(), NETID) is None
    other = adverts.record_key(NETID, Key.from_seed(b"\2" * 32).public)
    assert adverts.fault(other, make(), NETID) == "the advert belongs under another key"


def test_record_keys_fit_what_the_library_looks_up() -> None:
    assert len(adverts.record_key(NETID, KEY.public)) <= 50
    assert len(adverts.bucket_key(NETID, "gpu=nvidia")) == 34


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"rubbish",
        bytes(ADVERT_BYTES_MAX + 1),
        make(key=Key.from_seed(b"\2" * 32)),
        make(netid=b"\x08" * 32),
        make() + b"\0",
        make()[:-1] + b"\0",
    ],
)
def test_hostile_values_are_refused_with_a_reason(value: bytes) -> None:
    assert adverts.fault(adverts.record_key(NETID, KEY.public), value, NETID)


def test_the_highest_seq_wins_and_rubbish_never() -> None:
    values = [make(1), b"rubbish", make(3), make(2), make(3)]
    assert adverts.newest(values, NETID) == 2
    assert adverts.newest([b"rubbish", make(0)], NETID) == 1


def test_a_node_stands_in_few_coarse_buckets_and_is_found_in_them() -> None:
    gpus = (Gpu("NVIDIA", "H200", 141 * GIB), Gpu("nvidia", "H200", 141 * GIB))
    advert = adverts.open_advert(make(gpus=gpus, ram=20 * GIB), NETID)
    labels = adverts.labels_of(advert)
    assert labels == ("engine=docker", "engine=process", "gpu=nvidia", "gpu=any", "ram=4", "tier=1")
    assert set(labels) & set(adverts.labels_for("docker", 16 * GIB, "nvidia"))
    assert set(labels) & set(adverts.labels_for("docker", 16 * GIB))
    many = msgspec.structs.replace(advert, engines=tuple(f"e{number}" for number in range(8)))
    assert len(adverts.labels_of(many)) <= adverts.LABELS_MAX


@pytest.mark.parametrize(("ram", "step"), [(0, 0), (GIB, 0), (2 * GIB, 1), (5 * GIB, 2), (2**63 - 1, 11)])
def test_memory_is_counted_in_powers_of_two(ram: int, step: int) -> None:
    assert f"ram={step}" in adverts.labels_of(adverts.open_advert(make(ram=ram), NETID))
