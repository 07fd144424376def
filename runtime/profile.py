"""What a machine has to lend, as numbers.

Knows the shape of a hardware profile and what follows from it. Must never look at a machine: that is hardware.py.
"""

import msgspec

from nexapod import messages
from nexapod.limits import GPUS_MAX, NAME_CHARS_MAX

_GIB = 1 << 30
_DATACENTER_VRAM = 40 * _GIB  # more than any consumer card of the same years
_DATACENTER_GPUS = 4
_DATACENTER_CORES, _DATACENTER_RAM = 64, 256 * _GIB
_USABLE_VRAM = 4 * _GIB  # less runs a desktop, not a simulation


class Gpu(msgspec.Struct, frozen=True):
    """One accelerator; `compute` is the architecture with what decides its arithmetic, like `sm90-550.54`."""

    vendor: str
    name: str
    vram_bytes: int
    compute: str


class Profile(msgspec.Struct, frozen=True):
    """Measured hardware.

    `flops`: operations per second of all cores together, by the yardstick of hardware.py. `arch`: processor family as
    the kernel calls it. `dispatch`: the instruction level libraries choose their code by.
    """

    cores: int
    ram_bytes: int
    disk_bytes: int
    flops: int
    arch: str
    dispatch: str
    gpus: tuple[Gpu, ...] = ()


def tier(profile: Profile) -> int:
    """0: processor only. 1: a consumer GPU. 2: a node of a cluster or data centre."""
    gpus = [gpu for gpu in profile.gpus if gpu.vram_bytes >= _USABLE_VRAM]
    if any(gpu.vram_bytes >= _DATACENTER_VRAM for gpu in gpus) or len(gpus) >= _DATACENTER_GPUS:
        return 2
    if profile.cores >= _DATACENTER_CORES and profile.ram_bytes >= _DATACENTER_RAM:
        return 2
    return 1 if gpus else 0


def numeric_class(profile: Profile) -> str:
    """Machines of one class may be expected to agree to the last bit; at most NAME_CHARS_MAX characters."""
    accelerators = sorted({gpu.compute for gpu in profile.gpus if gpu.compute})
    return "+".join([profile.dispatch or profile.arch, *accelerators])[:NAME_CHARS_MAX]


def advertised(profile: Profile) -> messages.Profile:
    """The profile as an advert carries it: the first GPUS_MAX accelerators, names in plain letters."""
    gpus = tuple(
        messages.Gpu(gpu.vendor, _plain(gpu.name)[:NAME_CHARS_MAX], gpu.vram_bytes) for gpu in profile.gpus[:GPUS_MAX]
    )
    return messages.Profile(
        profile.cores, profile.ram_bytes, profile.disk_bytes, profile.flops, numeric_class(profile), gpus
    )


def _plain(name: str) -> str:
    """A driver's name for a card, as adverts may carry it: printable ASCII."""
    return "".join(char for char in name if char.isascii() and char.isprintable())
