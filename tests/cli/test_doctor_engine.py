"""Engines that are old, open or talk nonsense, over a real socket; what a node must not trust is told with the fix."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexapod.cli.doctor_engine import Asked, engine_findings, judge
from nexapod.cli.finding import GRAVITY, Finding
from nexapod.config import load_config
from nexapod.errors import LocalError
from nexapod.home import find_home
from tests.cli.standin import ENGINE_INFO, ENGINE_VERSION, Standin, answering, until_gone

Programs = Callable[[str, str], None]
PODMAN: dict[str, Any] = {
    "Version": "4.9.4", "ApiVersion": "1.41", "Os": "linux", "Arch": "arm64",
    "Components": [{"Name": "Podman Engine", "Version": "4.9.4"}, {"Name": "Conmon", "Version": "2.1.10"},
                   {"Name": "OCI Runtime (crun)", "Version": "crun version 1.14.1\ncommit: de537a7"}],
}  # fmt: skip
# As this very answer came from Debian 12's docker.io.
DEBIAN: dict[str, Any] = {
    "Version": "20.10.24+dfsg1", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64",
    "Components": [{"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}}],
}  # fmt: skip


def asked(gpus: Iterable[str] = ()) -> dict[str, Finding]:
    return dict(engine_findings(None, list(gpus)))


def runc(version: str, commit: str = "") -> dict[str, Any]:
    return ENGINE_VERSION | {"Components": [{"Name": "runc", "Version": version, "Details": {"GitCommit": commit}}]}


def test_an_engine_with_all_that_a_node_needs(engine: Standin) -> None:
    found = asked()
    assert found == {
        "engine": ("ok", f"Docker 27.5.1 at {engine.home.socket()}", ""),
        "runc": ("ok", "1.2.8", ""),
        "limits": ("ok", "memory, swap, processes and processor time can be limited", ""),
        "cgroup": ("ok", "version 2, driver systemd", ""),
        "seccomp": ("ok", "system calls of jobs are filtered", ""),
    }
    assert [line for line, _ in engine.asked] == ["GET /version", "GET /info"]


@pytest.mark.parametrize(
    ("version", "commit", "result", "says"),
    [
        ("1.1.11", "v1.1.11-0-g4bccb38", "fail", "CVE-2024-21626"),
        ("1.0.3", "", "fail", "CVE-2024-21626"),
        ("1.1.5+ds1", "1.1.5+ds1-1+deb12u1", "warn", "unless your distribution has mended it"),
        ("1.1.7-0ubuntu1~22.04.1", "", "warn", "unless your distribution has mended it"),
        ("1.1.12", "", "warn", "CVE-2025-31133"),
        ("1.2.7", "", "warn", "CVE-2025-31133"),
        ("1.3.2", "", "warn", "older than 1.2.8 or 1.3.3"),
        ("1.2.8", "", "ok", "1.2.8"),
        ("1.3.3", "", "ok", "1.3.3"),
        ("1.4.0", "", "ok", "1.4.0"),
        ("2.0", "", "ok", "2.0"),
        ("unknown", "", "warn", "'unknown'"),
        ("", "", "warn", "''"),
    ],
)
def test_a_runtime_below_a_floor_is_named_with_the_reason(
    engine: Standin, version: str, commit: str, result: str, says: str
) -> None:
    engine.answers["GET /version"] = runc(version, commit)
    found = asked()["runc"]
    assert (found.result, says in found.detail) == (result, True), found
    assert bool(found.fix) is (result != "ok")


def test_how_a_runtime_is_updated_depends_on_where_it_came_from(engine: Standin) -> None:
    engine.answers["GET /version"] = DEBIAN
    assert asked()["runc"].fix == "apt-get update && apt-get install --only-upgrade runc"
    engine.answers["GET /version"] = runc("1.1.9", "1.1.9-1.el9")
    assert asked()["runc"].fix == "dnf upgrade runc"
    engine.answers["GET /version"] = runc("1.1.9", "v1.1.9-0-gccaecfc")
    assert "containerd.io" in asked()["runc"].fix


@pytest.mark.parametrize(
    ("change", "check", "result", "says"),
    [
        ({"PidsLimit": False}, "limits", "fail", "no limit of processes"),
        ({"MemoryLimit": False}, "limits", "fail", "no limit of memory"),
        ({"CpuCfsQuota": False}, "limits", "fail", "no limit of processor time"),
        ({"SwapLimit": False}, "limits", "warn", "no limit of swap"),
        ({"PidsLimit": None}, "limits", "warn", "does not say whether it has PidsLimit"),
        ({"PidsLimit": "yes", "MemoryLimit": False}, "limits", "fail", "no limit of memory: a job could take all"),
        ({"CgroupDriver": "none"}, "cgroup", "fail", "no limit of a job would hold"),
        ({"CgroupDriver": ""}, "cgroup", "warn", "does not say"),
        ({"CgroupDriver": "cgroupfs", "CgroupVersion": "1"}, "cgroup", "ok", "version 1, driver cgroupfs"),
        ({"CgroupVersion": None}, "cgroup", "ok", "driver systemd"),
        ({"SecurityOptions": None}, "seccomp", "fail", "no seccomp"),
        ({"SecurityOptions": ["name=apparmor"]}, "seccomp", "fail", "every system call"),
        ({"SecurityOptions": {"a": 1}}, "seccomp", "warn", "does not say"),
        ({"SecurityOptions": [1, ["seccomp"]]}, "seccomp", "fail", "no seccomp"),
    ],
)  # fmt: skip
def test_a_box_that_would_not_hold(engine: Standin, change: dict[str, Any], check: str, result: str, says: str) -> None:
    engine.answers["GET /info"] = ENGINE_INFO | change
    found = asked()
    assert (found[check].result, says in found[check].detail) == (result, True), found[check]
    assert all(one.result == "ok" for name, one in found.items() if name != check)


def test_what_to_do_about_limits_depends_on_who_runs_the_engine(engine: Standin) -> None:
    engine.answers["GET /info"] = ENGINE_INFO | {"MemoryLimit": False}
    assert "cgroup_enable=memory" in asked()["limits"].fix
    rootless = ENGINE_INFO["SecurityOptions"] + ["name=rootless"]
    engine.answers["GET /info"] = ENGINE_INFO | {"MemoryLimit": False, "SecurityOptions": rootless}
    assert "Delegate=cpu cpuset io memory pids" in asked()["limits"].fix
    assert asked()["engine"].detail.endswith(", rootless")


@pytest.mark.parametrize(
    ("change", "result", "says"),
    [
        ({"ApiVersion": "1.40", "Version": "19.03.15"}, "fail", "older than Docker 20.10"),
        ({"ApiVersion": "1.9"}, "fail", "(API 1.9)"),
        ({"ApiVersion": "1.41"}, "ok", "Docker 27.5.1"),
        ({"ApiVersion": "2.0"}, "ok", "Docker 27.5.1"),
        ({"ApiVersion": None}, "warn", "names no API version"),
        ({"Os": "windows"}, "fail", "runs windows containers"),
        ({"Arch": "riscv64"}, "fail", "riscv64 is not supported yet"),
    ],
)
def test_an_engine_that_cannot_run_tasks(engine: Standin, change: dict[str, Any], result: str, says: str) -> None:
    engine.answers["GET /version"] = ENGINE_VERSION | change
    found = asked()["engine"]
    assert (found.result, says in found.detail) == (result, True), found


def test_podman_and_debian_as_they_answer(engine: Standin) -> None:
    engine.answers["GET /version"] = PODMAN
    found = asked(["NVIDIA A2"])
    assert found["engine"].detail.startswith("Podman 4.9.4 at ")
    assert found["runc"] == ("ok", "crun 1.14.1", "")
    assert found["gpu"].fix == "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    engine.answers["GET /version"] = DEBIAN
    assert {one.result for one in asked().values()} == {"ok", "warn"}


def test_a_gpu_needs_the_engine_to_know_of_it(engine: Standin) -> None:
    found = asked(["NVIDIA H100", "NVIDIA H100"])["gpu"]
    assert found.result == "warn"
    assert found.detail == "NVIDIA H100, NVIDIA H100; the engine has no nvidia runtime, so no job gets it"
    assert "nvidia-ctk runtime configure --runtime=docker && systemctl restart docker" in found.fix
    for known in ({"Runtimes": {"nvidia": {}}}, {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}):
        engine.answers["GET /info"] = ENGINE_INFO | known
        assert asked(["NVIDIA H100"])["gpu"].result == "ok"
    assert "gpu" not in asked()


def test_an_engine_that_says_nothing_of_its_limits_is_not_trusted(engine: Standin) -> None:
    del engine.answers["GET /info"]
    found = asked()
    assert list(found) == ["engine", "runc", "limits"]
    assert found["limits"].result == "fail"
    assert "does not say what it can limit: there is no such thing" in found["limits"].detail


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"hello", b'{"Version": NaN}', b"[" * 100_000])
def test_something_else_behind_the_socket(engine: Standin, nonsense: bytes) -> None:
    engine.answers["GET /version"] = nonsense
    found = asked()
    assert list(found) == ["engine"]
    assert found["engine"].result == "fail"
    assert "the engine's answer cannot be read" in found["engine"].detail


def test_an_engine_that_hangs_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexapod.cli.doctor_engine.ENGINE_S", 0.2)
    place = tmp_path / "s"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
    with answering(place, b"", then=until_gone):
        assert "did not answer within 0.2 s" in asked()["engine"].detail
    with answering(place.with_name("t"), b"SSH-2.0\r\n"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
        assert "Connection refused" in asked()["engine"].detail
    for host, result, says in (
        ("tcp://192.0.2.1:2376", "warn", "is not a unix socket and was not asked"),
        ("ssh://you@example.org", "warn", "is not a unix socket"),
        (f"unix://{tmp_path}/none", "fail", "No such file or directory"),
        (f"unix://{tmp_path}/{'x' * 120}", "fail", "AF_UNIX path too long"),
        ("unix://", "fail", "no container engine answers"),
    ):
        monkeypatch.setenv("DOCKER_HOST", host)
        found = asked()["engine"]
        assert (found.result, says in found.detail, bool(found.fix)) == (result, True, True), found


def test_the_fix_is_for_what_is_installed(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert asked()["engine"].fix.startswith("install one: apt-get install docker.io")
    programs("podman", "")
    assert asked()["engine"].fix.startswith("systemctl --user start podman.socket")
    programs("dockerd", "")
    assert asked()["engine"].fix.startswith("systemctl start docker")
    monkeypatch.setattr("nexapod.cli.client._UnixConnection.connect", _denied)
    assert "sudo usermod -aG docker $USER" in asked()["engine"].fix


def _denied(_: object) -> None:
    raise PermissionError(13, "Permission denied")  # root, who may run these tests, is never denied


def test_a_node_without_tasks_needs_no_engine(tmp_path: Path, engine: Standin) -> None:
    home = find_home(str(tmp_path / "n"), {})
    for settings in ({"NEXAPOD_ENGINE": "none"}, {"NEXAPOD_WORK": "no"}):
        found = dict(engine_findings(load_config(home, settings), ["NVIDIA H100"]))
        assert found == {"engine": ("ok", "this node runs no tasks (settings engine, work)", "")}
    assert not engine.asked


NAMES = [*ENGINE_VERSION, *ENGINE_INFO, "Name", "Details", "GitCommit", "DiscoveredDevices", "ID", "runc", "nvidia"]
DOCUMENTS: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["runc", "1.1.5", "seccomp"]) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=6),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(NAMES), DOCUMENTS), st.dictionaries(st.sampled_from(NAMES), DOCUMENTS))
def test_no_answer_of_an_engine_breaks_the_doctor(version: dict[str, Any], info: dict[str, Any]) -> None:
    for told in (info, LocalError("x"), ENGINE_INFO | info):
        found = dict(judge(Asked("/s", ENGINE_VERSION | version, told), ["NVIDIA H100"]))
        assert all(one.result in GRAVITY and one.detail and len(one.detail) < 1000 for one in found.values())
        assert all(one.fix for one in found.values() if one.result == "fail")
