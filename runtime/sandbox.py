"""From a task to the exact container it runs in.

Knows the words of the container engines' REST interface and every limit of the box. Must never talk to an engine. Each
line has a test with a real container that tries to break it.
"""

from collections.abc import Iterable

import msgspec

from runtime.environment import environment
from runtime.holder import PROGRAM
from runtime.outputs import ENTRIES_MAX, fault_of_path
from runtime.seccomp import profile
from runtime.task import TaskSpec

USER = "65534:65534"  # nobody: owns nothing on the host
HOSTNAME = "nexapod"  # the same everywhere, or replicas would differ
OUT, IN = "/out", "/in"

PIDS_MAX = 512  # threads count; enough for one maths library too eager, too few for a fork bomb to matter
FILES_OPEN_MAX = 4_096
PROCESSES_MAX = 65_536  # counts all tasks of the host's nobody together: the limit that bites is PIDS_MAX
TMP_INODES_MAX = 65_536
LOG_BYTES_MAX = 256 * 1024  # kept twice over by the engine; a flood only turns the page
HOLDER_BYTES = 32 << 20

# Zero means "no limit" to an engine, so nothing may come near it.
_RAM_BYTES_MIN = 32 << 20
_DISK_BYTES_MIN = 1 << 20
_CPUS_MILLI_MIN = 10
IMAGE_VOLUMES_MAX = 8

# An engine that stops, or a person, ends a task at once: what it would do with a notice is no result anyway.
_STOP_SIGNAL = "SIGKILL"

Config = dict[str, object]


class Mounted(msgspec.Struct, frozen=True):
    """What this machine adds to a task: names and folders that no replica shares and no task can see.

    `image` is what the engine knows the verified image by, `image_volumes` are the folders the image declares as
    volumes.
    """

    image: str
    volume: str
    inputs: str
    labels: dict[str, str]
    image_volumes: tuple[str, ...] = ()


class Unfit(ValueError):
    """No safe box can be made for this image; the message says why."""


def labels_of(node: str, spec: TaskSpec, token: str) -> dict[str, str]:
    """Labels by which a node finds its own containers and volumes again, and a person sees what they are for."""
    return {
        "nexapod.node": node,
        "nexapod.run": token,
        "nexapod.offer": spec.offer.hex(),
        "nexapod.task": str(spec.index),
    }


def memory_bytes(spec: TaskSpec) -> int:
    """Memory of the host a task may fill: its own and its outputs, which lie in memory until they are collected."""
    return max(spec.limits.ram_bytes, _RAM_BYTES_MIN) + _disk_bytes(spec)


def task_container(spec: TaskSpec, mounted: Mounted) -> Config:
    """The body of "create container" for a task.

    Raises:
        Unfit: the image declares volumes that cannot be covered.
    """
    config: Config = {
        "Image": mounted.image,
        "Hostname": HOSTNAME,
        "User": USER,
        "NetworkDisabled": True,
        "AttachStdout": False,
        "AttachStderr": False,
        "Env": [f"{name}={value}" for name, value in environment(spec).items()],
        "Labels": mounted.labels,
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would run beside the task
        "StopSignal": _STOP_SIGNAL,
        "HostConfig": _task_host(spec, mounted),
    }
    if spec.command:
        config["Entrypoint"] = list(spec.command)
        config["Cmd"] = []
    return config


def _task_host(spec: TaskSpec, mounted: Mounted) -> Config:
    memory = memory_bytes(spec)
    tmp = _tmp_bytes(spec)
    host = _box(memory, PIDS_MAX) | {
        "NanoCpus": max(spec.limits.cpus_milli, _CPUS_MILLI_MIN) * 1_000_000,
        "Init": True,  # reaps orphans and passes signals on, so that a task cannot pile up the dead
        "Tmpfs": {
            "/tmp": _tmpfs(tmp),
            "/dev/shm": _tmpfs(tmp),  # for semaphores and arrays shared between processes of the task
            **{path: _tmpfs(tmp) for path in _covered(mounted.image_volumes)},
        },
        "Mounts": [
            _out_mount(mounted.volume),
            {
                "Type": "bind",
                "Source": mounted.inputs,
                "Target": IN,
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            },
        ],
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": str(LOG_BYTES_MAX), "max-file": "2", "compress": "false"},
        },
        "Ulimits": [
            _ulimit("nofile", FILES_OPEN_MAX),
            _ulimit("nproc", PROCESSES_MAX),
            _ulimit("core", 0),
            _ulimit("fsize", max(_disk_bytes(spec), tmp) + 4096),  # a full disk says so before this one strikes
            _ulimit("memlock", 65_536),
        ],
    }
    if spec.limits.gpus:
        host["DeviceRequests"] = [{"Count": spec.limits.gpus, "Capabilities": [["gpu"]]}]
    return host


def holder_container(image: str, volume: str, labels: dict[str, str]) -> Config:
    """The body of "create container" for what keeps the outputs alive: our own program, nothing of the task's."""
    return {
        "Image": image,
        "Hostname": HOSTNAME,
        "User": USER,
        "NetworkDisabled": True,
        "Entrypoint": [PROGRAM],
        "Cmd": [],
        "Labels": labels,
        "StopSignal": _STOP_SIGNAL,
        "HostConfig": _box(HOLDER_BYTES, 4) | {"Mounts": [_out_mount(volume)], "LogConfig": {"Type": "none"}},
    }


def out_volume(spec: TaskSpec) -> dict[str, str]:
    """Options of the local volume driver: a piece of memory of fixed size and number of files, for nobody to run."""
    return {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"size={_disk_bytes(spec)},nr_inodes={ENTRIES_MAX},uid=65534,gid=65534,mode=0700,nosuid,nodev,noexec",
    }


def _box(memory: int, pids: int) -> Config:
    """The walls, the same for a task and for its holder."""
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={profile()}"],
        "IpcMode": "none",
        "PidsLimit": pids,
        "Memory": memory,
        "MemorySwap": memory,  # equal: no swap
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
    }


def _out_mount(volume: str) -> Config:
    # NoCopy: otherwise the engine fills an empty volume from the image, and gives it that folder's owner.
    return {"Type": "volume", "Source": volume, "Target": OUT, "VolumeOptions": {"NoCopy": True}}


def _covered(volumes: Iterable[str]) -> tuple[str, ...]:
    """Folders an image declares as volumes would be plain folders of the host's disk without a quota: cover them."""
    covered = tuple(path for path in volumes if path.rstrip("/") not in (OUT, IN, "/tmp", "/dev/shm"))
    if len(covered) > IMAGE_VOLUMES_MAX:
        raise Unfit(f"the image declares more than {IMAGE_VOLUMES_MAX} volumes")
    for path in covered:
        inner = path.strip("/")
        top = inner.partition("/")[0]
        if not path.startswith("/") or fault_of_path(inner) or top in ("in", "out", "proc", "sys", "dev", "sbin"):
            raise Unfit(f"the image declares {path[:80]!r} a volume")
    return covered


def _disk_bytes(spec: TaskSpec) -> int:
    return max(spec.limits.disk_bytes, _DISK_BYTES_MIN)


def _tmp_bytes(spec: TaskSpec) -> int:
    return max(spec.limits.ram_bytes, _RAM_BYTES_MIN) // 2


def _tmpfs(size: int) -> str:
    return f"rw,nosuid,nodev,noexec,mode=1777,size={size},nr_inodes={TMP_INODES_MAX}"


def _ulimit(name: str, value: int) -> Config:
    return {"Name": name, "Soft": value, "Hard": value}
