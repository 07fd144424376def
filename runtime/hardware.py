"""Looks at this machine and measures it.

Knows psutil, NVIDIA's library and its command, and a stopwatch. Must never believe a setting: what is lent is what was
found. Blocking; `probe` takes about a tenth of a second, more where a GPU driver wakes up.
"""

import math
import os
import platform
import shutil
import subprocess
import time
import unicodedata
from pathlib import Path

import psutil
import pynvml

from runtime.profile import Gpu, Profile

_MEASURE_S = 0.06
_VECTOR = 4_096  # two vectors of this many numbers stay in the nearest cache
_SMI_S = 10
_SMI = ("index,name,memory.total,compute_cap,driver_version", 5)

# The levels of the x86-64 psABI: what a compiler or a library may count on.
_X86_LEVELS = (
    (4, "avx512f avx512bw avx512cd avx512dq avx512vl"),
    (3, "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    (2, "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
)


def probe(folder: Path) -> Profile:
    """The machine as it is now; `folder` says which disk counts."""
    cores = usable_cores()
    return Profile(
        cores=cores,
        ram_bytes=psutil.virtual_memory().total,
        disk_bytes=psutil.disk_usage(str(folder)).free,
        flops=core_flops() * cores,
        arch=platform.machine(),
        dispatch=_dispatch(platform.machine(), _cpu_flags()),
        gpus=_gpus(),
    )


def usable_cores() -> int:
    """Cores this process may run on; less than there are when somebody pinned it."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else psutil.cpu_count() or 1


def core_flops() -> int:
    """Operations per second of one core: the best of many distances between two vectors of double precision.

    A distance of n pairs is counted as 3n operations (subtract, multiply, add) in scalar C code, which does some more
    to keep the sum exact. So this is what plain compiled code gets, about a tenth of what a tuned vector library can;
    it compares machines, it does not advertise one.
    """
    left = [float(i % 97) for i in range(_VECTOR)]
    right = [float(i % 89) + 0.5 for i in range(_VECTOR)]
    best = math.inf
    end = time.perf_counter() + _MEASURE_S
    while (begun := time.perf_counter()) < end:
        for _ in range(4):
            math.dist(left, right)
        best = min(best, time.perf_counter() - begun)
    return int(4 * 3 * _VECTOR / best)


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())


def _dispatch(machine: str, flags: frozenset[str]) -> str:
    """`x86-64-v3` and the like; elsewhere the architecture, with its vector unit where it has a scalable one."""
    if machine in ("x86_64", "AMD64"):
        reached = 1
        for level, needed in reversed(_X86_LEVELS):
            if reached == level - 1 and flags.issuperset(needed.split()):
                reached = level
        return f"x86-64-v{reached}"
    return f"{machine}-sve" if "sve" in flags else machine


def _gpus() -> tuple[Gpu, ...]:
    """NVIDIA's library first, its command where the library fails; no GPU where both do."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _gpus_by_command()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return _gpus_by_command()
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = _text(pynvml.nvmlDeviceGetName(handle))
    return Gpu("nvidia", name, int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), f"sm{major}{minor}-{driver}")


def _gpus_by_command() -> tuple[Gpu, ...]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        done = subprocess.run(
            [command, f"--query-gpu={_SMI[0]}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=_SMI_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_smi(done.stdout)


def parse_smi(table: str) -> tuple[Gpu, ...]:
    """GPUs from the lines of nvidia-smi; lines that make no sense are left out."""
    gpus = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != _SMI[1] or not cells[2].isdigit():
            continue
        _, name, mebibytes, capability, driver = cells
        gpus.append(Gpu("nvidia", _text(name), int(mebibytes) << 20, f"sm{capability.replace('.', '')}-{driver}"))
    return tuple(gpus)


def _text(value: str | bytes) -> str:
    """A driver's text, fit for an advert: NFC, printable."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isprintable())
