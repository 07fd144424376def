"""What the doctor says of keys, disks, clocks and ports, each as good and as bad as it comes."""

import itertools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexapod.cli import doctor_machine as machine
from nexapod.cli.doctor_machine import GB
from nexapod.config import Config, load_config
from nexapod.home import Home, find_home

Programs = Callable[[str, str], None]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with keys, as init makes it."""
    home = find_home(str(tmp_path / "home"), {})
    home.make_folders()
    for path in (home.key_file, home.next_key_file):
        path.write_text("a key")
        path.chmod(0o600)
    return home


@pytest.fixture
def config(home: Home) -> Config:
    return load_config(home, {})


def test_the_libraries_want_one_of_two_pythons() -> None:
    assert [machine.python((3, minor, 1)).result for minor in (10, 11, 12, 13)] == ["fail", "ok", "ok", "fail"]
    assert machine.python((3, 13, 0)).fix == "uv tool install --python 3.12 nexapod"


def test_keys_are_for_their_owner_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.key(home, "nexapod") == ("ok", str(home.key_file), "")
    home.next_key_file.chmod(0o640)
    found = machine.key(home, "nexapod")
    assert (found.result, found.fix) == ("fail", f"chmod 600 {home.next_key_file}")
    home.next_key_file.unlink()
    home.key_file.chmod(0o602)
    assert machine.key(home, "nexapod").fix == f"chmod 600 {home.key_file}"
    home.key_file.chmod(0o600)
    home.key_file.write_text("")
    assert "is not a key" in machine.key(home, "nexapod").detail
    owner = home.key_file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert machine.key(home, "nexapod").fix == f"chown {owner + 1} {home.key_file}"
    home.key_file.unlink()
    assert machine.key(home, "nexapod --home x") == ("fail", f"{home.key_file} is missing", "nexapod --home x init")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_whoever_can_write_to_the_folder_can_change_the_key(home: Home, mode: int) -> None:
    home.config.chmod(mode)
    found = machine.key(home, "nexapod")
    assert (found.result, found.fix) == ("fail", f"chmod go-w {home.config}")


def test_a_folder_further_up_is_a_warning_unless_it_is_sticky(home: Home) -> None:
    home.config.parent.chmod(0o757)
    found = machine.key(home, "nexapod")
    assert (found.result, found.fix) == ("warn", f"chmod o-w {home.config.parent}")
    home.config.parent.chmod(0o1777)
    assert machine.key(home, "nexapod").result == "ok"


def test_a_node_writes_to_its_folders(home: Home, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert machine.folders(home).result == "ok"
    assert machine.folders(find_home(str(tmp_path / "not/made/yet"), {})).result == "ok"
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left behind, nothing is made
    (tmp_path / "file").touch()
    found = machine.folders(replace(home, run=tmp_path / "file/run"))
    assert (found.result, found.detail) == ("fail", f"{tmp_path}/file/run cannot be written: Not a directory")


def test_room_in_bytes_and_in_files() -> None:
    def result(free: float, inodes: int | None, wanted: float = 20) -> str:
        return machine.free_room(int(free * GB), inodes, int(wanted * GB), "/x").result

    assert [result(50, 10**6), result(50, None), result(20, 10**5)] == ["ok"] * 3
    assert [result(19, 10**6), result(50, 99_999), result(1, None)] == ["warn"] * 3
    assert [result(0.9, None), result(50, 999), result(0, 0, 0)] == ["fail"] * 3
    assert "disk_gb = 7" in machine.free_room(7 * GB, None, 20 * GB, "/x").fix
    assert machine.free_room(50 * GB, 5, 0, "/x").detail == "5 inodes free in /x"


def test_this_disk_is_looked_at(home: Home, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.disk(home, config)
    assert f"GB free in {home.data}" in found.detail
    seen = os.statvfs(home.data)
    few = os.statvfs_result((seen.f_bsize, 4096, 10**9, 10**8, 10**8, 10**6, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    assert machine.disk(home, config).detail == f"10 inodes free in {home.data}"
    without = os.statvfs_result((seen.f_bsize, 4096, 10**9, 10**8, 10**8, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: without)
    assert machine.disk(home, config) == ("ok", f"410 GB free in {home.data}", "")


def test_clocks_run_and_tell_a_time_that_can_be_true(home: Home, programs: Programs) -> None:
    assert machine.clock(home).result == "ok"
    now = time.time()
    os.utime(home.key_file, (now + 7200, now + 7200))
    assert "2.0 hours behind files on this disk" in machine.clock(home).detail
    for year, result in ((1970, "fail"), (2024, "fail"), (2026, "ok"), (2099, "ok"), (2150, "fail")):
        assert machine.plausible(time.mktime((year, 6, 1, 0, 0, 0, 0, 0, 0)), 0.0, "").result == result
    assert machine.plausible(now, now, "yes").detail.endswith(", kept right by NTP")
    assert machine.plausible(now, now, "no")[::2] == ("warn", "timedatectl set-ntp true")


def test_a_clock_that_stands_still(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.runs(iter(itertools.chain([7] * 1000, [8])).__next__)
    monkeypatch.setattr(machine, "CLOCK_LOOKS", 1000)
    assert not machine.runs(lambda: 7)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7)
    assert machine.clock(home) == ("fail", "the monotonic clock stands still", "restart the machine")


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo NTPSynchronized=yes", "yes"),
        ("echo NTPSynchronized=no", "no"),
        ("echo NTPSynchronized=maybe", ""),
        ("echo Failed to connect to bus >&2; exit 1", ""),
        ("echo NTPSynchronized=yes; exit 1", ""),
        (r"printf '\377\000'", ""),
    ],
)
def test_systemd_is_asked_of_ntp(programs: Programs, script: str, answer: str) -> None:
    assert machine.synchronized() == ""
    programs("timedatectl", script)
    assert machine.synchronized() == answer


def test_a_command_that_hangs_is_left(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COMMAND_S", 0.2)
    programs("timedatectl", "read line < /proc/self/fd/1 || while :; do :; done")
    assert machine.synchronized() == ""
    programs("nvidia-smi", "while :; do :; done")
    assert machine.gpus()[1] == (
        "warn",
        "nvidia-smi fails: no answer within 0 s",
        "install the driver again, or restart",
    )


def test_gpus_are_those_the_driver_names(programs: Programs) -> None:
    assert machine.gpus() == ([], ("ok", "no NVIDIA GPU (there is no nvidia-smi)", ""))
    programs("nvidia-smi", '[ "$1" = --query-gpu=name ] && printf "NVIDIA H100\\nNVIDIA A2\\n"')
    assert machine.gpus() == (["NVIDIA H100", "NVIDIA A2"], ("ok", "NVIDIA H100, NVIDIA A2", ""))
    programs("nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert machine.gpus()[1].detail == "nvidia-smi fails: NVIDIA-SMI has failed"
    programs("nvidia-smi", "")
    assert machine.gpus() == ([], ("ok", "no NVIDIA GPU", ""))


def listen(config: Config, *addresses: str) -> Config:
    return replace(config, listen=addresses)


def test_ports_that_are_free_taken_or_none(home: Home, config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        found = machine.ports(home, listen(config, here), None)
        assert (found.result, found.detail) == ("fail", f"{here}: Address already in use")
        assert "ss -ltnp" in found.fix
    assert machine.ports(home, listen(config, here), None) == ("ok", f"free: {here}", "")
    assert machine.ports(home, listen(config, "/ip4/127.0.0.1/tcp/0"), None).result == "warn"
    assert machine.ports(home, None, None).result == "warn"
    for wrong in ("/ip4/127.0.0.1/tcp/99999", "/ip4/999.1.1.1/tcp/1", "/ip4/example.org/tcp/1", "/ip6/x/tcp/1"):
        assert machine.ports(home, listen(config, wrong), None).result == "fail"
    assert machine.in_the_way("/dns4/example.org/tcp/1") == ""


def test_a_daemon_that_listens_elsewhere(home: Home, config: Config) -> None:
    def found(*addresses: Any) -> tuple[str, str, str]:
        return machine.ports(home, listen(config, "/ip4/0.0.0.0/tcp/4001"), {"addresses": list(addresses)})

    assert found("/ip4/192.0.2.7/tcp/4001/p2p/12D", 7)[0] == "ok"
    assert found() == ("ok", "the daemon listens nowhere yet", "")
    assert found("/ip4/192.0.2.7/tcp/4002/p2p/12D")[::2] == ("warn", "nexapod daemon restart")
    assert found(None, "", "x", "/", "/ip4", "/ip4/1/tcp/x")[0] == "warn"


def test_who_could_reach_this_node(home: Home, config: Config) -> None:
    def result(*addresses: str, told: object = None) -> str:
        status = None if told is None else {"addresses": told}
        return machine.reach(home, listen(config, *addresses), status).result

    assert result("/ip4/127.0.0.1/tcp/1") == result("/ip4/127.9.9.9/tcp/1", "/ip6/::1/tcp/1") == "warn"
    assert result("/dns/localhost/tcp/1") == "warn"
    assert result("/ip4/127.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1") == result("/ip6/::/tcp/1") == "ok"
    assert result("/ip4/0.0.0.0/tcp/1", told=["/ip4/127.0.0.1/tcp/1"]) == "warn"
    assert result("/ip4/127.0.0.1/tcp/1", told=["/ip4/192.0.2.7/tcp/1"]) == "ok"
    assert result("/ip4/nonsense/tcp/1", told="x") == "ok"
    assert machine.reach(home, None, None) == ("ok", "not known", "")
    assert 'listen = ["/ip4/0.0.0.0/tcp/4001"]' in machine.reach(home, listen(config, "/ip4/127.0.0.1/tcp/1"), None).fix
