"""Every line of the box, as it is asked of the engine. test_docker.py shows that the walls hold."""

from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from runtime.sandbox import Mounted, Unfit, holder_container, labels_of, memory_bytes, out_volume, task_container
from runtime.task import TaskSpec

MIB = 1 << 20
TaskMaker = Callable[..., TaskSpec]
MOUNTED = Mounted("sha256:00", "volume-1", "/scratch/in", {"nexapod.node": "n"})


def host_of(config: dict[str, object]) -> dict[str, Any]:
    return cast("dict[str, Any]", config["HostConfig"])


@pytest.mark.parametrize("which", ["task", "holder"])
def test_the_walls(task: TaskMaker, which: str) -> None:
    config = task_container(task(), MOUNTED) if which == "task" else holder_container("sha256:01", "volume-1", {})
    host = host_of(config)
    assert config["User"] == "65534:65534"
    assert config["NetworkDisabled"] is True
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host
    assert "Binds" not in host
    assert "Devices" not in host
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert host["SecurityOpt"][1].startswith('seccomp={"defaultAction":"SCMP_ACT_ERRNO"')
    assert host["IpcMode"] == "none"
    assert host["PidsLimit"] > 0
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["RestartPolicy"] == {"Name": "no"}
    out = host["Mounts"][0]
    assert (out["Target"], out["VolumeOptions"]) == ("/out", {"NoCopy": True})


def test_the_limits_of_a_task(task: TaskMaker) -> None:
    host = host_of(task_container(task(cpus_milli=1500, ram_bytes=100 * MIB, disk_bytes=10 * MIB), MOUNTED))
    assert host["NanoCpus"] == 1_500_000_000
    assert host["Memory"] == 110 * MIB
    assert host["Init"] is True
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]}["core"] == 0
    assert host["LogConfig"]["Type"] == "local"
    for options in host["Tmpfs"].values():
        assert {"nosuid", "nodev", "noexec", f"size={50 * MIB}"} <= set(options.split(","))
    bind = host["Mounts"][1]
    assert (bind["Source"], bind["Target"], bind["ReadOnly"]) == ("/scratch/in", "/in", True)
    assert bind["BindOptions"] == {"Propagation": "rprivate"}
    assert "DeviceRequests" not in host


def test_nothing_is_ever_zero_because_zero_means_unlimited(task: TaskMaker) -> None:
    spec = task(cpus_milli=0, ram_bytes=0, disk_bytes=0)
    host = host_of(task_container(spec, MOUNTED))
    assert host["NanoCpus"] > 0
    assert host["Memory"] == memory_bytes(spec) > 0
    assert "size=0" not in out_volume(spec)["o"] + "".join(host["Tmpfs"].values())


def test_the_quota_of_the_outputs(task: TaskMaker) -> None:
    options = out_volume(task(disk_bytes=5 * MIB))
    assert options["type"] == "tmpfs"
    assert {f"size={5 * MIB}", "nr_inodes=8192", "uid=65534", "nosuid", "nodev", "noexec"} <= set(
        options["o"].split(",")
    )


def test_a_command_replaces_all_the_image_says(task: TaskMaker) -> None:
    config = task_container(task(command=("a", "b")), MOUNTED)
    assert (config["Entrypoint"], config["Cmd"]) == (["a", "b"], [])
    assert "Entrypoint" not in task_container(task(), MOUNTED)


def test_gpus_are_asked_for_by_number(task: TaskMaker) -> None:
    assert host_of(task_container(task(gpus=2), MOUNTED))["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]


def test_volumes_of_the_image_are_covered(task: TaskMaker) -> None:
    host = host_of(
        task_container(task(), msgspec.structs.replace(MOUNTED, image_volumes=("/data", "/out/", "/var/db")))
    )
    assert set(host["Tmpfs"]) == {"/tmp", "/dev/shm", "/data", "/var/db"}


@pytest.mark.parametrize(
    "volumes",
    [
        ("/proc",),
        ("/sys/fs",),
        ("/in/x",),
        ("/out/x",),
        ("relative",),
        ("/",),
        ("/a/../b",),
        ("/a:b\n",),
        tuple(f"/{n}" for n in range(9)),
    ],
)
def test_volumes_that_cannot_be_covered(task: TaskMaker, volumes: tuple[str, ...]) -> None:
    with pytest.raises(Unfit):
        task_container(task(), msgspec.structs.replace(MOUNTED, image_volumes=volumes))


def test_labels_tell_nodes_and_runs_apart(task: TaskMaker) -> None:
    labels = labels_of("home-1", task(offer=b"\x01" * 32, index=4), "token")
    assert labels == {
        "nexapod.node": "home-1", "nexapod.run": "token", "nexapod.offer": "01" * 32, "nexapod.task": "4",
    }  # fmt: skip


def test_replicas_on_two_machines_differ_only_in_what_no_task_sees(task: TaskMaker) -> None:
    here = task_container(task(), MOUNTED)
    there = task_container(task(), Mounted("sha256:00", "volume-2", "/elsewhere", {"nexapod.node": "m"}))
    for config in (here, there):
        config.pop("Labels")
        for mount in host_of(config)["Mounts"]:
            mount.pop("Source")
    assert here == there
