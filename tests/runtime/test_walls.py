"""The walls of the box, tried by real containers that want out. Which line each test holds: sandbox_lines.py."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime import docker as adapter
from runtime import sandbox
from runtime.blobs import BlobStore
from runtime.docker import DockerEngine
from runtime.task import Broke, Finished, InputFile, Reason, TaskSpec
from tests.engine import busybox_image
from tests.runtime.boxes import broke, finished

pytestmark = pytest.mark.docker

MIB = 1 << 20
TaskMaker = Callable[..., TaskSpec]


async def said(sh: Any, script: str, **changes: Any) -> list[str]:
    """What a script that must end well wrote, by lines."""
    outcome = finished(await sh(script, **changes))
    assert outcome.exit_code == 0, outcome.log
    return list(outcome.log.decode().splitlines())


# --- who it is --------------------------------------------------------------------------------------------------------


async def test_it_is_nobody(sh: Any) -> None:
    assert await said(sh, "id -u; id -g; id -G; cat /proc/1/status | grep -E '^(Uid|Gid)' | tr -s '\\t' ' '") == [
        "65534", "65534", "65534", "Uid: 65534 65534 65534 65534", "Gid: 65534 65534 65534 65534",
    ]  # fmt: skip


async def test_there_is_no_capability(sh: Any) -> None:
    script = """
    grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status
    touch /tmp/x; for try in 'chown 0:0 /tmp/x' 'mknod /tmp/n c 1 3' 'mknod /tmp/b b 8 0' 'ping -c 1 -W 1 1.1.1.1' \
      'hostname other' 'mount -t proc x /tmp' 'nice -n -5 true' 'chroot / true' 'dmesg' \
      'kill -9 1' 'swapoff -a' 'ip link set lo down' 'sysctl -w kernel.panic=1' 'insmod /x' 'umount /proc'; do
      ($try) >/dev/null 2>&1 && [ "$try" != 'kill -9 1' ] && echo "did $try"; done; cat /proc/1/comm >/dev/null"""
    lines = await said(sh, script)
    assert [line.split() for line in lines] == [
        [f"Cap{kind}:", "0" * 16] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")
    ]


async def test_no_device_of_the_host_is_there(sh: Any) -> None:
    known = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"}
    found = await said(sh, "ls /dev; find / -xdev -type b 2>/dev/null; true")
    assert set(found) <= known | {"urandom", "zero"}


async def test_no_door_to_an_engine_is_there(sh: Any) -> None:
    script = (
        "find / -type s -not -path '/proc/*' 2>/dev/null; cat /proc/net/unix | tail -n +2; ls /run /var/run 2>&1; true"
    )
    assert [line for line in await said(sh, script) if "No such file" not in line] == []


# --- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["net", "ipc", "pid", "uts", "mnt"])
async def test_every_namespace_is_its_own(sh: Any, api: Any, image: bytes, kind: str) -> None:
    outside = api.create_container(
        f"sha256:{image.hex()}",
        ["readlink", f"/proc/1/ns/{kind}"],
        host_config=api.create_host_config(
            network_mode="host", ipc_mode="host", pid_mode="host", uts_mode="host", cap_add=["SYS_PTRACE"]
        ),
    )
    api.start(outside)
    api.wait(outside)
    host = api.logs(outside).decode().strip()
    api.remove_container(outside)
    assert host.startswith(f"{kind}:["), host
    assert await said(sh, f"readlink /proc/self/ns/{kind}") != [host]


async def test_there_is_no_network_of_any_family(sh: Any) -> None:
    script = """
    tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
    tail -n +2 /proc/net/route; grep -v ' lo$' /proc/net/if_inet6 /proc/net/ipv6_route
    for host in 1.1.1.1 169.254.169.254 10.0.2.2 172.17.0.1 192.168.0.1; do
      nc -w 1 $host 80 </dev/null 2>/dev/null && echo "tcp $host"
      (echo x | nc -u -w 1 $host 53) 2>/dev/null && echo "udp $host"
      ping -c 1 -W 1 $host >/dev/null 2>&1 && echo "icmp $host"; done
    for host in 2606:4700:4700::1111 fe80::1 ff02::1; do
      nc -w 1 $host 80 </dev/null 2>/dev/null && echo "tcp $host"
      ping6 -c 1 -W 1 $host >/dev/null 2>&1 && echo "icmp $host"; done
    nslookup example.com >/dev/null 2>&1 && echo dns; true"""
    assert await said(sh, script) == ["lo"]


# --- files ------------------------------------------------------------------------------------------------------------


async def test_what_can_be_written_is_for_data_only(sh: Any) -> None:
    lines = await said(sh, "grep -E ' (/tmp|/dev/shm|/out) ' /proc/mounts", disk_bytes=5 * MIB, ram_bytes=64 * MIB)
    found = {line.split()[1]: set(line.split()[3].split(",")) for line in lines}
    assert found.keys() == {"/tmp", "/dev/shm", "/out"}
    for path, options in found.items():
        assert {"nosuid", "nodev", "noexec"} <= options, path
    for path in ("/tmp", "/dev/shm"):
        assert "size=32768k" in found[path], found[path]
        assert {"nr_inodes=65536", "nr_inodes=64k"} & found[path], found[path]
    assert "size=5120k" in found["/out"], found["/out"]
    assert {"nr_inodes=8192", "nr_inodes=8k"} & found["/out"], found["/out"]


@pytest.mark.parametrize("path", ["/tmp", "/dev/shm"])
async def test_scratch_is_full_at_its_size(sh: Any, path: str) -> None:
    # More than the half of the memory that is scratch, less than all of it.
    script = f"dd if=/dev/zero of={path}/x bs=64k count=700 2>/dev/null; wc -c < {path}/x"
    assert await said(sh, script, ram_bytes=64 * MIB, disk_bytes=8 * MIB) == [str(32 * MIB)]


async def test_scratch_is_full_at_its_count(sh: Any) -> None:
    script = "cd /tmp; i=0; while [ $i -lt 70000 ]; do echo -n 2>/dev/null > $i || break; i=$((i+1)); done; echo $i"
    lines = await said(sh, script, ram_bytes=256 * MIB)
    assert 60_000 < int(lines[-1]) < sandbox.TMP_INODES_MAX


async def test_outputs_belong_to_nobody(sh: Any) -> None:
    assert await said(sh, "stat -c '%a %u %g' /out") == ["700 65534 65534"]


async def test_an_image_cannot_plant_outputs(
    docker_engine: DockerEngine, api: Any, blobs: BlobStore, task: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_turn(*steps: Callable[[], None]) -> None:
        for step in steps:  # the volume is there and empty when the task's container is made: the engine would fill it
            await docker_engine._call(step)

    monkeypatch.setattr(docker_engine, "_both", in_turn)
    digest = busybox_image(api, "nexapod-test:planted", {"out/planted": b"not computed"})
    outcome = await docker_engine.run(task(image_digest=digest, command=("/bin/true",)), {}, blobs, lambda state: None)
    assert finished(outcome).files == ()


async def test_inputs_cannot_be_written_even_by_their_owner(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = blobs.put(b"41")
    whole = adapter.stage

    def careless(inputs: Mapping[str, Path], folder: Path) -> None:
        whole(inputs, folder)
        os.chown(folder, 65534, 65534)
        folder.chmod(0o777)

    monkeypatch.setattr(adapter, "stage", careless)
    script = "touch /in/new && echo new; rm -f /in/x && echo gone; mv /in/x /in/y && echo moved; "
    script += "grep ' /in ' /proc/self/mountinfo"
    spec = task(image_digest=image, command=("/bin/sh", "-c", script), inputs=(InputFile("x", sha, 2),))
    log = finished(await docker_engine.run(spec, {"x": blobs.path(sha)}, blobs, lambda state: None)).log.decode()
    (line,) = [line for line in log.splitlines() if not line.startswith(("touch:", "rm:", "mv:"))]
    mount = line.split(" - ")[0].split()
    assert "ro" in mount[5].split(",")
    assert not [field for field in mount[6:] if field.startswith(("shared:", "master:"))], "it propagates"


async def test_the_kernel_shows_no_more_than_it_must(sh: Any) -> None:
    script = """
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do
      [ -e $f ] && { [ -c $f ] || echo "$f is open"; }; done
    for d in /proc/acpi /proc/scsi /sys/firmware; do [ -d $d ] && [ -n "$(ls -A $d)" ] && echo "$d is open"; done
    for d in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
      [ -e $d ] && { grep -qE "^[^ ]+ $d proc ro[, ]" /proc/mounts || echo "$d can be written"; }; done
    grep -qE '^sysfs /sys sysfs ro[, ]' /proc/mounts || echo '/sys can be written'
    for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /proc/1/oom_score_adj; do
      echo 0 2>/dev/null > $f && [ $f != /proc/1/oom_score_adj ] && echo "wrote $f"; done 2>/dev/null; true"""
    assert await said(sh, script) == []


# --- how much ---------------------------------------------------------------------------------------------------------


async def test_processes_are_counted(sh: Any) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do sleep 30 & i=$((i+1)); echo $i; done"
    outcome = finished(await sh(script))
    count = [int(line) for line in outcome.log.split() if line.isdigit()][-1]
    assert sandbox.PIDS_MAX - 20 < count < sandbox.PIDS_MAX
    assert outcome.exit_code != 0


async def test_there_is_no_swap(sh: Any) -> None:
    script = """
    cd /sys/fs/cgroup; if [ -e memory/memory.limit_in_bytes ]; then
      cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes; else cat memory.max memory.swap.max; fi"""
    lines = await said(sh, script, ram_bytes=64 * MIB, disk_bytes=8 * MIB)
    assert lines in ([str(72 * MIB)] * 2, [str(72 * MIB), "0"])


async def test_processors_are_rationed_in_fact(sh: Any) -> None:
    script = "burn() { while :; do :; done; }; burn & burn & sleep 1.5; kill %1 %2; wait; "
    script += "cat /proc/$$/stat | cut -d' ' -f16,17"
    user, system = map(int, (await said(sh, script, cpus_milli=100))[-1].split())
    assert 0 < user + system < 45, "hundredths of a second: 0.1 processors for 1.5 seconds are 15"


async def test_the_dead_do_not_pile_up(sh: Any) -> None:
    script = """
    ( i=0; while [ $i -lt 20 ]; do ( true & ) ; i=$((i+1)); done; sleep 0.5
      cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z' > /out/dead ) &
    exec sleep 1.2"""
    outcome = finished(await sh(script))
    assert [file.size for file in outcome.files] == [2]
    first, *_ = await said(sh, "cat /proc/1/comm")
    assert "init" in first


async def test_it_runs_once(sh: Any, blobs: BlobStore) -> None:
    outcome = finished(await sh("echo run >> /out/runs; sleep 0.2; exit 1"))
    assert blobs.read(outcome.files[0].sha256) == b"run\n"
    assert outcome.exit_code == 1
    assert outcome.log == b""


async def test_what_an_image_would_run_beside_the_task_does_not_run(
    docker_engine: DockerEngine, api: Any, blobs: BlobStore, task: TaskMaker
) -> None:
    check = 'HEALTHCHECK --interval=50ms --timeout=1s CMD ["/bin/sh", "-c", "echo beside > /out/beside"]'
    digest = busybox_image(api, "nexapod-test:health", changes=(check,))
    assert api.inspect_image("nexapod-test:health")["Config"]["Healthcheck"]
    spec = task(image_digest=digest, command=("/bin/sleep", "0.6"))
    assert finished(await docker_engine.run(spec, {}, blobs, lambda state: None)).files == ()


async def test_open_files_are_counted(sh: Any, x86: None) -> None:
    outcome = finished(await sh("/calls/open_without_end"))
    assert outcome.exit_code == (sandbox.FILES_OPEN_MAX - 3) // 256
    many = "i=0; while [ $i -lt 3 ]; do /calls/open_without_end & i=$((i+1)); done; wait; echo still here"
    assert (await said(sh, many))[-1] == "still here"


async def test_limits_cannot_be_raised(sh: Any) -> None:
    script = """
    for limit in n u p c l; do (ulimit -H$limit unlimited && echo "raised $limit") 2>/dev/null; done
    grep -E 'open files|processes|core|locked' /proc/self/limits | tr -s ' '"""
    assert [line.rstrip() for line in await said(sh, script)] == [
        "Max core file size 0 0 bytes",
        f"Max processes {sandbox.PROCESSES_MAX} {sandbox.PROCESSES_MAX} processes",
        f"Max open files {sandbox.FILES_OPEN_MAX} {sandbox.FILES_OPEN_MAX} files",
        "Max locked memory 65536 65536 bytes",
    ]


async def test_a_crash_leaves_no_core(sh: Any) -> None:
    script = "cd /tmp; ulimit -c unlimited; (sh -c 'kill -SEGV $$') 2>/dev/null; ls -A /tmp; "
    lines = await said(sh, script + "grep 'core file' /proc/self/limits 2>&1")
    lines = [line for line in lines if "fault" not in line]  # said by the shell, at any moment
    assert lines[-1].split() == ["Max", "core", "file", "size", "0", "0", "bytes"]
    assert not [line for line in lines if line.startswith("core")]


async def test_a_file_cannot_pretend_to_be_huge(sh: Any) -> None:
    script = "for d in /tmp /dev/shm /out; do truncate -s 100G $d/x && echo huge; done; stat -c %s /tmp/x; rm /out/x"
    lines = await said(sh, script)  # among them what the shell says of the signal, at any moment
    assert "0" in lines
    assert "huge" not in lines


async def test_memory_cannot_be_locked(sh: Any, x86: None) -> None:
    assert await said(sh, "/calls/mlockall; echo $?") == ["12"]


async def test_a_log_flood_fills_no_disk(
    docker_engine: DockerEngine, api: Any, sh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(api.info()["DockerRootDir"])
    if not await trio.Path(root).exists():
        pytest.skip("the folder of the engine cannot be seen from here")
    sizes: list[int] = []
    collect = docker_engine._collect

    def measured(spec: TaskSpec, blobs: BlobStore, box: Any) -> Any:
        folder = root / "containers" / api.inspect_container(box.job)["Id"]
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*log*") if path.is_file()))
        return collect(spec, blobs, box)

    monkeypatch.setattr(docker_engine, "_collect", measured)
    assert finished(await sh("yes 0123456789abcdef | head -c 20m; echo the end")).log.endswith(b"the end\n")
    assert 0 < sizes[0] <= 2 * sandbox.LOG_BYTES_MAX + 64 * 1024


async def test_one_endless_line_is_a_log_as_any_other(sh: Any) -> None:
    outcome = finished(
        await sh("head -c 8m /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/urandom; printf 'the end'")
    )
    assert outcome.log.endswith(b"the end")
    assert len(outcome.log) <= adapter.LOG_TAIL_BYTES


# --- how long ---------------------------------------------------------------------------------------------------------


async def test_nothing_survives_the_end_of_a_task(sh: Any, api: Any) -> None:
    daemon = "setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.1; done' &"
    daemons = f"i=0; while [ $i -lt 20 ]; do {daemon} i=$((i+1)); done;"
    assert finished(await sh(f"{daemons} exit 0")).exit_code == 0
    begun = trio.current_time()
    broke(await sh(f"trap '' TERM; {daemons} while :; do sleep 1; done", run_ms=500), Reason.TIMED_OUT)
    assert trio.current_time() - begun < 10


async def test_a_program_that_stops_itself_is_stopped_in_time(sh: Any) -> None:
    broke(await sh("kill -STOP $$; echo awake", run_ms=500), Reason.TIMED_OUT)


@pytest.mark.parametrize(
    "script",
    [
        "bomb() { bomb | bomb & }; bomb; sleep 1",
        "while :; do mkdir d 2>/dev/null; (exec sh -c 'while :; do :; done') & done",
        "i=0; while :; do head -c 1m /dev/zero > /dev/shm/$i; i=$((i+1)); done",
        "tail -f /dev/zero",
        "cat /dev/urandom; cat /dev/zero > /out/x; while :; do cat /dev/zero > /tmp/x; done",
    ],
)  # fmt: skip
async def test_a_bomb_hurts_nobody_else(sh: Any, script: str) -> None:
    outcome = await sh(script, run_ms=1_000, ram_bytes=32 * MIB)
    assert isinstance(outcome, Finished | Broke)
    assert await said(sh, "echo well") == ["well"]
