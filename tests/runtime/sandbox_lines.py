"""Every line of the box, and the test that breaks without it.

`SANDBOX` has a test for each line of what `task_container` and `out_volume` ask of the engine; `test_sandbox_lines.py`
sees that none is forgotten, and with NEXAPOD_SLOW=1 leaves out one after the other and sees the named test fail.

A line is named by its path: `HostConfig.Ulimits.core`, `HostConfig.Tmpfs./tmp.size`, `volume.o.nr_inodes`. Leaving it
out means to delete it; where the engine would do the same by itself, `OPPOSITE` says what it becomes instead.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime import docker
from runtime.sandbox import Config, Mounted
from runtime.task import TaskSpec

WALLS, REAL, ASKED = "test_walls.py", "test_docker.py", "test_sandbox.py"

SANDBOX = {
    "Hostname": f"{REAL}::test_the_same_task_twice_has_one_root",
    "User": f"{WALLS}::test_it_is_nobody",
    "Env": f"{REAL}::test_several_tasks_at_once_do_not_meet",
    "Labels": f"{REAL}::test_cancellation_removes_the_container_before_it_returns",
    "StopSignal": "test_engine_restart.py::test_an_engine_that_stops_need_not_wait_for_a_task",
    "Healthcheck": f"{WALLS}::test_what_an_image_would_run_beside_the_task_does_not_run",
    "Entrypoint": f"{ASKED}::test_a_command_replaces_all_the_image_says",
    "Cmd": f"{ASKED}::test_a_command_replaces_all_the_image_says",
    "NetworkDisabled": f"{ASKED}::test_the_walls[task]",  # the second lock of the same door
    "HostConfig.NetworkMode": f"{WALLS}::test_every_namespace_is_its_own[net]",
    "HostConfig.ReadonlyRootfs": f"{REAL}::test_the_root_file_system_cannot_be_written",
    "HostConfig.Privileged": f"{WALLS}::test_no_device_of_the_host_is_there",
    "HostConfig.CapDrop": f"{WALLS}::test_there_is_no_capability",
    "HostConfig.SecurityOpt.no-new-privileges": f"{REAL}::test_setuid_gives_nothing",
    "HostConfig.SecurityOpt.seccomp": f"{REAL}::test_forbidden_system_calls_are_refused",
    "HostConfig.IpcMode": f"{WALLS}::test_every_namespace_is_its_own[ipc]",
    "HostConfig.PidsLimit": f"{WALLS}::test_processes_are_counted",
    "HostConfig.Memory": f"{REAL}::test_a_memory_hog_is_out_of_memory",
    "HostConfig.MemorySwap": f"{WALLS}::test_there_is_no_swap",
    "HostConfig.RestartPolicy": f"{WALLS}::test_it_runs_once",
    "HostConfig.AutoRemove": f"{REAL}::test_outputs_become_blobs_and_a_manifest",
    "HostConfig.NanoCpus": f"{WALLS}::test_processors_are_rationed_in_fact",
    "HostConfig.Init": f"{WALLS}::test_the_dead_do_not_pile_up",
    "HostConfig.Tmpfs./tmp": f"{REAL}::test_scratch_and_shared_memory_are_there",
    "HostConfig.Tmpfs./tmp.nosuid": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "HostConfig.Tmpfs./tmp.nodev": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "HostConfig.Tmpfs./tmp.noexec": f"{REAL}::test_nothing_put_into_outputs_can_be_run",
    "HostConfig.Tmpfs./tmp.size": f"{WALLS}::test_scratch_is_full_at_its_size[/tmp]",
    "HostConfig.Tmpfs./tmp.nr_inodes": f"{WALLS}::test_scratch_is_full_at_its_count",
    "HostConfig.Tmpfs./dev/shm": f"{REAL}::test_scratch_and_shared_memory_are_there",
    "HostConfig.Tmpfs./dev/shm.nosuid": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "HostConfig.Tmpfs./dev/shm.nodev": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "HostConfig.Tmpfs./dev/shm.noexec": f"{REAL}::test_nothing_put_into_outputs_can_be_run",
    "HostConfig.Tmpfs./dev/shm.size": f"{WALLS}::test_scratch_is_full_at_its_size[/dev/shm]",
    "HostConfig.Tmpfs./dev/shm.nr_inodes": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "HostConfig.Tmpfs./data": f"{REAL}::test_an_image_cannot_bring_its_own_disk",
    "HostConfig.Mounts./out": f"{REAL}::test_outputs_become_blobs_and_a_manifest",
    "HostConfig.Mounts./out.VolumeOptions": f"{WALLS}::test_an_image_cannot_plant_outputs",
    "HostConfig.Mounts./in": f"{REAL}::test_inputs_are_there_and_cannot_be_changed",
    "HostConfig.Mounts./in.ReadOnly": f"{WALLS}::test_inputs_cannot_be_written_even_by_their_owner",
    "HostConfig.Mounts./in.BindOptions": f"{ASKED}::test_the_limits_of_a_task",  # what engines do without it, too
    "HostConfig.LogConfig": f"{WALLS}::test_a_log_flood_fills_no_disk",
    "HostConfig.LogConfig.Config.max-size": f"{WALLS}::test_a_log_flood_fills_no_disk",
    "HostConfig.LogConfig.Config.max-file": f"{WALLS}::test_a_log_flood_fills_no_disk",
    "HostConfig.Ulimits.nofile": f"{WALLS}::test_open_files_are_counted",
    "HostConfig.Ulimits.nproc": f"{WALLS}::test_limits_cannot_be_raised",
    "HostConfig.Ulimits.core": f"{WALLS}::test_a_crash_leaves_no_core",
    "HostConfig.Ulimits.fsize": f"{WALLS}::test_a_file_cannot_pretend_to_be_huge",
    "HostConfig.Ulimits.memlock": f"{WALLS}::test_memory_cannot_be_locked",
    "HostConfig.DeviceRequests": f"{REAL}::test_a_gpu_that_is_not_there_breaks_the_task",
    "HostConfig.MaskedPaths": f"{WALLS}::test_the_kernel_shows_no_more_than_it_must",  # the engine's own, unless told
    "HostConfig.ReadonlyPaths": f"{WALLS}::test_the_kernel_shows_no_more_than_it_must",
    "volume.type": f"{REAL}::test_outputs_are_full_at_their_quota",
    "volume.o.size": f"{REAL}::test_outputs_are_full_at_their_quota",
    "volume.o.nr_inodes": f"{REAL}::test_outputs_are_full_at_their_count",
    "volume.o.uid": f"{WALLS}::test_outputs_belong_to_nobody",
    "volume.o.gid": f"{WALLS}::test_outputs_belong_to_nobody",
    "volume.o.mode": f"{WALLS}::test_outputs_belong_to_nobody",
    "volume.o.nosuid": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "volume.o.nodev": f"{WALLS}::test_what_can_be_written_is_for_data_only",
    "volume.o.noexec": f"{REAL}::test_nothing_put_into_outputs_can_be_run",
}

NOT_A_GUARD = {
    "Image": "what is run",
    "AttachStdout": "nobody is attached in any case",
    "AttachStderr": "nobody is attached in any case",
    "HostConfig.Tmpfs./tmp.rw": "what engines do by themselves",
    "HostConfig.Tmpfs./tmp.mode": "what engines do by themselves",
    "HostConfig.Tmpfs./dev/shm.rw": "what engines do by themselves",
    "HostConfig.Tmpfs./dev/shm.mode": "what engines do by themselves",
    "HostConfig.LogConfig.Type": "with json-file the same limits hold",
    "HostConfig.LogConfig.Config.compress": "saves time only",
    "volume.device": "the kernel passes it over",
}
MOUNT_KEYS = {"Type", "Source", "Target"}  # which mount it is

_HOST_NETWORK = {"NetworkMode": "host"}
OPPOSITE: dict[str, Callable[[Any], None]] = {
    "HostConfig.NetworkMode": lambda body: body.update(
        NetworkDisabled=False, HostConfig=body["HostConfig"] | _HOST_NETWORK
    ),
    "HostConfig.Privileged": lambda body: body["HostConfig"].update(Privileged=True, SecurityOpt=[]),
    "HostConfig.RestartPolicy": lambda body: body["HostConfig"].update(RestartPolicy={"Name": "always"}),
    "HostConfig.AutoRemove": lambda body: body["HostConfig"].update(AutoRemove=True),
    "HostConfig.IpcMode": lambda body: body["HostConfig"].update(IpcMode="host"),
    "HostConfig.MaskedPaths": lambda body: body["HostConfig"].update(MaskedPaths=[]),
    "HostConfig.ReadonlyPaths": lambda body: body["HostConfig"].update(ReadonlyPaths=[]),
    "HostConfig.Ulimits.core": lambda body: _ulimit(body, "core")(Soft=-1, Hard=-1),
}
_OPTIONS = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}  # engines add the left ones to a tmpfs by themselves


def lines(body: Any, volume: dict[str, str]) -> Iterator[str]:
    """The names of all lines of a box."""
    yield from (key for key in body if key != "HostConfig")
    for key, value in body["HostConfig"].items():
        at = f"HostConfig.{key}"
        match key:
            case "Tmpfs":
                for path, options in value.items():
                    yield f"{at}.{path}"
                    yield from (f"{at}.{path}.{option.partition('=')[0]}" for option in options.split(","))
            case "SecurityOpt":
                yield from (f"{at}.{option.partition('=')[0]}" for option in value)
            case "Ulimits":
                yield from (f"{at}.{limit['Name']}" for limit in value)
            case "Mounts":
                for mount in value:
                    yield f"{at}.{mount['Target']}"
                    yield from (f"{at}.{mount['Target']}.{name}" for name in mount if name not in MOUNT_KEYS)
            case "LogConfig":
                yield from (at, f"{at}.Type", *(f"{at}.Config.{name}" for name in value["Config"]))
            case _:
                yield at
    yield from (f"volume.{key}" for key in volume if key != "o")
    yield from (f"volume.o.{option.partition('=')[0]}" for option in volume["o"].split(","))


def leave_out(line: str, patch: pytest.MonkeyPatch) -> None:
    """Make the adapter ask for boxes without a line."""
    whole, volume = docker.task_container, docker.out_volume

    def weaker(spec: TaskSpec, mounted: Mounted) -> Config:
        body: Any = whole(spec, mounted)
        (OPPOSITE.get(line) or (lambda body: _delete(body, line)))(body)
        return dict(body)

    def weaker_volume(spec: TaskSpec) -> dict[str, str]:
        options = volume(spec)
        key = line.removeprefix("volume.")
        if key == "type":  # a folder of the host's disk
            return {}
        options["o"] = _without(options["o"], key.removeprefix("o."))
        return options

    if line.startswith("volume."):
        patch.setattr(docker, "out_volume", weaker_volume)
    else:
        patch.setattr(docker, "task_container", weaker)
    from tests.runtime import test_sandbox

    patch.setattr(test_sandbox, "task_container", weaker)


def _delete(body: Any, line: str) -> None:
    keys = line.split(".")
    host = body["HostConfig"]
    match keys:
        case ["HostConfig", "Tmpfs", path]:
            host["Tmpfs"].pop(path, None)
        case ["HostConfig", "Tmpfs", path, option]:
            host["Tmpfs"][path] = _without(host["Tmpfs"][path], option)
        case ["HostConfig", "SecurityOpt", option]:
            host["SecurityOpt"] = [given for given in host["SecurityOpt"] if given.partition("=")[0] != option]
        case ["HostConfig", "Ulimits", name]:
            host["Ulimits"] = [limit for limit in host["Ulimits"] if limit["Name"] != name]
        case ["HostConfig", "Mounts", target]:
            host["Mounts"] = [mount for mount in host["Mounts"] if mount["Target"] != target]
        case ["HostConfig", "Mounts", target, key]:
            next(mount for mount in host["Mounts"] if mount["Target"] == target).pop(key)
        case _:
            for key in keys[:-1]:
                body = body[key]
            body.pop(keys[-1], None)


def _without(options: str, name: str) -> str:
    kept = [option for option in options.split(",") if option.partition("=")[0] != name]
    return ",".join([*kept, *([_OPTIONS[name]] if name in _OPTIONS else [])])


def _ulimit(body: Any, name: str) -> Callable[..., None]:
    found = next(limit for limit in body["HostConfig"]["Ulimits"] if limit["Name"] == name)
    return lambda **values: found.update(values)
