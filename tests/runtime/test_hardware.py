"""This machine, looked at and measured; other machines, from what their tools print."""

from pathlib import Path

import pytest

from runtime.hardware import _dispatch, core_flops, parse_smi, probe, usable_cores
from runtime.profile import Gpu, advertised

V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def test_this_machine_has_something_to_lend(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found.cores == usable_cores() >= 1
    assert found.ram_bytes > 1 << 26
    assert found.disk_bytes > 0
    assert found.arch
    assert advertised(found).numeric_class


def test_the_yardstick_is_of_the_right_order() -> None:
    # Compiled scalar code on any processor of the last twenty years; interpreted code or a wrong count would be
    # outside.
    assert 2 * 10**7 < core_flops() < 10**11


@pytest.mark.parametrize(
    ("flags", "level"),
    [(set(), 1), (V2, 2), (V3, 3), (V4, 4), (V4 - {"fma"}, 2), (V3 - {"popcnt"}, 1)],
)
def test_dispatch_levels_are_complete_or_not_reached(flags: set[str], level: int) -> None:
    assert _dispatch("x86_64", frozenset(flags)) == f"x86-64-v{level}"


def test_dispatch_elsewhere_is_the_architecture() -> None:
    assert _dispatch("aarch64", frozenset({"sve"})) == "aarch64-sve"
    assert _dispatch("riscv64", frozenset()) == "riscv64"


def test_the_command_is_read_line_by_line() -> None:
    table = "0, NVIDIA GeForce RTX 4090, 24564, 8.9, 550.54.14\nnonsense\n1, X, [N/A], 8.9, 1\n"
    table += "2, H, 81559, 9.0, 550.54.14\n"
    assert parse_smi(table) == (
        Gpu("nvidia", "NVIDIA GeForce RTX 4090", 24564 << 20, "sm89-550.54.14"),
        Gpu("nvidia", "H", 81559 << 20, "sm90-550.54.14"),
    )
