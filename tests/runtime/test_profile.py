"""What follows from a hardware profile."""

import pytest

from nexapod.encoding import decode, encode
from nexapod.messages import Profile as Advertised
from runtime.profile import Gpu, Profile, advertised, numeric_class, tier

GIB = 1 << 30


def profile(cores: int = 8, ram: int = 16 * GIB, gpus: tuple[Gpu, ...] = ()) -> Profile:
    return Profile(cores, ram, 100 * GIB, 10**9, "x86_64", "x86-64-v3", gpus)


def gpu(vram: int, compute: str = "sm89-550.1") -> Gpu:
    return Gpu("nvidia", "a card", vram, compute)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (profile(), 0),
        (profile(gpus=(gpu(2 * GIB),)), 0),
        (profile(gpus=(gpu(8 * GIB),)), 1),
        (profile(gpus=(gpu(24 * GIB), gpu(24 * GIB))), 1),
        (profile(gpus=(gpu(24 * GIB),) * 4), 2),
        (profile(gpus=(gpu(80 * GIB),)), 2),
        (profile(cores=128, ram=512 * GIB), 2),
        (profile(cores=128), 0),
    ],
)
def test_tiers(machine: Profile, expected: int) -> None:
    assert tier(machine) == expected


def test_numeric_classes_name_what_decides_the_last_digit() -> None:
    assert numeric_class(profile()) == "x86-64-v3"
    both = profile(gpus=(gpu(GIB, "sm90-1"), gpu(GIB, "sm89-1"), gpu(GIB, "sm90-1")))
    assert numeric_class(both) == "x86-64-v3+sm89-1+sm90-1"
    assert len(numeric_class(profile(gpus=tuple(gpu(GIB, f"sm{n}-{n}") for n in range(40))))) <= 64


def test_an_advertised_profile_can_be_sent() -> None:
    sent = advertised(profile(gpus=(Gpu("nvidia", "x" * 100, GIB, "sm90-1"),)))
    assert decode(encode(sent), Advertised, size_max=4096) == sent
