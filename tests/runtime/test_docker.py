"""Real containers: what a task gets, what comes out, and what a hostile one cannot do."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.blobs import BlobStore
from runtime.docker import DockerEngine
from runtime.images import missing
from runtime.outputs import parse_manifest
from runtime.sandbox import PIDS_MAX
from runtime.service import Runner
from runtime.task import Broke, Finished, InputFile, Outcome, Reason, RunState, TaskSpec
from tests.engine import busybox_image
from tests.runtime.boxes import FORBIDDEN_CALLS, broke, finished

pytestmark = pytest.mark.docker

MIB = 1 << 20
TaskMaker = Callable[..., TaskSpec]


# --- an honest task ---------------------------------------------------------------------------------------------------


async def test_outputs_become_blobs_and_a_manifest(sh: Any, blobs: BlobStore) -> None:
    outcome = finished(await sh("echo result; mkdir /out/sub; printf abc > /out/sub/b; printf 1 > /out/a; exit 3"))
    assert outcome.exit_code == 3
    assert outcome.log == b"result\n"
    assert {file.path: blobs.read(file.sha256) for file in outcome.files} == {"a": b"1", "sub/b": b"abc"}
    assert parse_manifest(outcome.manifest) == (3, outcome.files)
    assert blobs.read(outcome.root) == outcome.manifest


async def test_the_same_task_twice_has_one_root(sh: Any) -> None:
    script = (
        "env | sort > /out/env; hostname > /out/host; id > /out/id; pwd > /out/pwd; cat /proc/1/limits > /out/limits"
    )
    first, second = finished(await sh(script)), finished(await sh(script))
    assert first.root == second.root


async def test_inputs_are_there_and_cannot_be_changed(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker
) -> None:
    content = b"41"
    sha = blobs.put(content)
    script = (
        "cat /in/data/x > /out/copy; echo no > /in/data/x; rm -f /in/data/x; touch /in/new; cat /in/data/x >> /out/copy"
    )
    spec = task(image_digest=image, command=("/bin/sh", "-c", script), inputs=(InputFile("data/x", sha, 2),))
    states: list[RunState] = []
    outcome = finished(await docker_engine.run(spec, {"data/x": blobs.path(sha)}, blobs, states.append))
    assert blobs.read(outcome.files[0].sha256) == b"4141"
    assert blobs.read(sha) == content
    assert states == [RunState.RUNNING, RunState.COLLECTING]


async def test_only_selected_files_count(sh: Any) -> None:
    script = "cd /out; touch a.dat b.log c.dat .progress; ln -s /etc/passwd elsewhere"
    outcome = finished(await sh(script, outputs=("*.dat",), volatile=("c.*",)))
    assert [file.path for file in outcome.files] == ["a.dat"]


async def test_a_command_that_is_not_there_is_the_programs_own_failure(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker
) -> None:
    outcome = await docker_engine.run(task(image_digest=image, command=("/nothing",)), {}, blobs, lambda state: None)
    assert finished(outcome).exit_code == 127


async def test_scratch_and_shared_memory_are_there(sh: Any) -> None:
    assert finished(await sh("echo x > /tmp/x && echo y > /dev/shm/y && cp /tmp/x /out/x")).exit_code == 0


# --- what is missing ----------------------------------------------------------------------------------------


async def test_an_unknown_image_is_missing(docker_engine: DockerEngine, blobs: BlobStore, task: TaskMaker) -> None:
    broke(await docker_engine.run(task(image_digest=bytes(32)), {}, blobs, lambda state: None), Reason.IMAGE_MISSING)


async def test_an_image_is_known_by_name_and_digest(docker_engine: DockerEngine, image: bytes) -> None:
    assert await docker_engine.image_digest("nexapod-test:1") == image
    assert await docker_engine.has_image(image)
    assert await docker_engine.image_digest("nexapod-test:2") is None
    assert not await docker_engine.has_image(bytes(32))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b", "", "UPPER/x", "../containers/json?x="])
async def test_a_hostile_name_never_reaches_the_engine(docker_engine: DockerEngine, name: str) -> None:
    assert await docker_engine.image_digest(name) is None
    assert await docker_engine.pull(name, bytes(32)) != ""


async def test_an_engine_that_is_not_there_says_so(tmp_path: Path, blobs: BlobStore, task: TaskMaker) -> None:
    absent = DockerEngine(node="x", scratch=tmp_path / "s", host=f"unix://{tmp_path}/none.sock", back_s=0.1)
    info = await absent.probe()
    await absent.aclose()
    assert not info.ready
    assert "none.sock" in info.why
    broke(await absent.run(task(), {}, blobs, lambda state: None), Reason.ENGINE_DOWN)


async def test_a_remote_engine_is_refused(tmp_path: Path) -> None:
    info = await DockerEngine(node="x", scratch=tmp_path / "s", host="tcp://192.0.2.1:2375").probe()
    assert "not on this machine" in info.why


async def test_a_gpu_that_is_not_there_breaks_the_task(sh: Any) -> None:
    broke(await sh("true", gpus=1), Reason.ENGINE_REFUSED)


async def test_an_image_travels_as_blobs(
    docker_engine: DockerEngine, api: Any, blobs: BlobStore, task: TaskMaker, tmp_path: Path
) -> None:
    digest = busybox_image(api, "nexapod-test:travels", {"mark": b"carried"})
    assert await docker_engine.export_image(digest, blobs) == ""
    api.remove_image(f"sha256:{digest.hex()}", force=True)
    assert not await docker_engine.has_image(digest)
    elsewhere = BlobStore(tmp_path / "elsewhere", quota_bytes=256 * MIB)
    while wanted := missing(digest, elsewhere):
        for sha in wanted:
            assert elsewhere.put(blobs.read(sha)) == sha
    spec = task(image_digest=digest, command=("/bin/cat", "/mark"))
    outcome = await Runner({"docker": docker_engine}, elsewhere, slots=1).run(spec)
    assert finished(outcome).log == b"carried"


async def test_an_image_with_a_part_missing_is_not_loaded(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore
) -> None:
    assert "not here" in await docker_engine.import_image(image, blobs)
    assert await docker_engine.export_image(bytes(32), blobs) != ""


# --- limits -------------------------------------------------------------------------------------------------


async def test_a_task_that_ignores_sigterm_is_stopped_in_time(sh: Any) -> None:
    begun = time.monotonic()
    outcome = broke(await sh("trap '' TERM INT HUP; echo begun; while :; do :; done", run_ms=700), Reason.TIMED_OUT)
    assert outcome.log == b"begun\n"
    assert time.monotonic() - begun < 10


async def test_cancellation_removes_the_container_before_it_returns(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker, api: Any
) -> None:
    running = trio.Event()
    offer = secrets.token_bytes(32)
    spec = task(image_digest=image, command=("/bin/sh", "-c", "sleep 1000"), run_ms=600_000, offer=offer)

    def report(state: RunState) -> None:
        if state == RunState.RUNNING:
            running.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(docker_engine.run, spec, {}, blobs, report)
        await running.wait()
        assert len(api.containers(filters={"label": "nexapod.offer=" + offer.hex()})) == 2
        nursery.cancel_scope.cancel()
    assert api.containers(all=True, filters={"label": "nexapod.offer=" + offer.hex()}) == []


async def test_a_fork_bomb_stays_in_its_box(sh: Any) -> None:
    outcome = await sh("bomb() { bomb | bomb & }; bomb; sleep 1; grep -c . /proc/loadavg > /out/alive", run_ms=5_000)
    # The shell may be among those who get no process; what counts is that it ends and nothing else suffers.
    assert isinstance(outcome, Finished | Broke)
    counting = "i=0; while [ $i -lt 2000 ]; do sleep 30 & i=$((i+1)); done; echo $i > /out/n"
    second = await sh(counting, run_ms=10_000)
    if isinstance(second, Finished):
        assert second.exit_code != 0, f"more than {PIDS_MAX} processes were let start"


async def test_a_memory_hog_is_out_of_memory(sh: Any) -> None:
    script = "head -c 200m /dev/zero | tail -c 200m > /dev/null"
    broke(await sh(script, ram_bytes=32 * MIB, disk_bytes=MIB), Reason.OUT_OF_MEMORY)


async def test_outputs_are_full_at_their_quota(sh: Any) -> None:
    script = "dd if=/dev/zero of=/out/fat bs=64k count=1000 2>/tmp/err; tail -1 /tmp/err; wc -c < /out/fat"
    outcome = finished(await sh(script, disk_bytes=2 * MIB))
    assert sum(file.size for file in outcome.files) <= 2 * MIB
    assert b"2097152" in outcome.log


async def test_outputs_are_full_at_their_count(sh: Any) -> None:
    script = "cd /out; i=0; while [ $i -lt 20000 ]; do echo -n 2>/dev/null > f$i || break; i=$((i+1)); done; ls | wc -l"
    outcome = broke(await sh(script), Reason.OUTPUTS_REFUSED)
    assert 0 < int(outcome.log.split()[-1]) < 20_000


async def test_a_log_flood_is_cut_to_its_tail(sh: Any) -> None:
    outcome = finished(await sh("yes 0123456789abcdef | head -c 20m; echo the end"))
    assert len(outcome.log) <= 64 * 1024
    assert outcome.log.endswith(b"the end\n")


async def test_processors_are_rationed(sh: Any) -> None:
    outcome = finished(
        await sh("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true", cpus_milli=250)
    )
    assert outcome.log.split()[0] == b"25000"


# --- walls --------------------------------------------------------------------------------------------------


async def test_there_is_no_network(sh: Any) -> None:
    script = (
        "ls /sys/class/net; for host in 1.1.1.1 10.0.2.2 172.17.0.1; do nc -w 2 $host 80 </dev/null 2>&1; done; true"
    )
    links, *answers = finished(await sh(script)).log.decode().splitlines()
    assert links == "lo"
    assert answers == ["nc: can't connect to remote host (1.1.1.1): Network is unreachable"] + [
        f"nc: can't connect to remote host ({host}): Network is unreachable" for host in ("10.0.2.2", "172.17.0.1")
    ]


async def test_the_root_file_system_cannot_be_written(sh: Any) -> None:
    places = "/x /bin/x /etc/x /world/x /dev/x /proc/sys/kernel/hostname"
    script = f"for f in {places}; do echo 1 > $f && echo wrote $f; done; true"
    assert b"wrote" not in finished(await sh(script)).log


async def test_setuid_gives_nothing(sh: Any) -> None:
    outcome = finished(
        await sh("ls -l /suid/busybox; /suid/busybox id -u; grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status")
    )
    lines = outcome.log.split()
    assert b"-rwsr-xr-x" in lines
    assert b"65534" in lines
    assert b"NoNewPrivs:\t1" in outcome.log
    assert outcome.log.count(b"0000000000000000") == 2


async def test_nothing_put_into_outputs_can_be_run(sh: Any) -> None:
    outcome = finished(
        await sh("for d in /out /tmp /dev/shm; do cp /bin/busybox $d/true; $d/true && echo ran; done; rm /out/true")
    )
    assert b"ran\n" not in outcome.log


async def test_devices_cannot_be_made(sh: Any) -> None:
    outcome = finished(await sh("mknod /tmp/disk b 254 0 && echo made; mount -t tmpfs x /tmp && echo mounted; true"))
    assert b"made\n" not in outcome.log
    assert b"mounted\n" not in outcome.log


async def test_forbidden_system_calls_are_refused(sh: Any, x86: None) -> None:
    """Each program exits with the error of its one call; 1 is EPERM, and most would say something else without a
    filter.
    """
    names = sorted(FORBIDDEN_CALLS)
    script = (
        "".join(f"/calls/{name}; echo {name} $?; " for name in names) + "/calls/clone3; echo $?; /calls/getpid; echo $?"
    )
    lines = finished(await sh(script)).log.decode().splitlines()
    assert lines[:-2] == [f"{name} 1" for name in names]
    assert lines[-2:] == ["38", "0"]


async def test_an_image_cannot_bring_its_own_disk(
    docker_engine: DockerEngine, api: Any, blobs: BlobStore, task: TaskMaker
) -> None:
    digest = busybox_image(api, "nexapod-test:volume", changes=("VOLUME /data",))
    script = "dd if=/dev/zero of=/data/fat bs=1M count=300 2>&1 | tail -1; wc -c < /data/fat"
    spec = task(image_digest=digest, command=("/bin/sh", "-c", script), ram_bytes=32 * MIB)
    outcome = await docker_engine.run(spec, {}, blobs, lambda state: None)
    assert isinstance(outcome, Broke) or int(outcome.log.split()[-1]) <= 16 * MIB
    hostile = busybox_image(api, "nexapod-test:hostile", changes=("VOLUME /proc/x",))
    broke(await docker_engine.run(task(image_digest=hostile), {}, blobs, lambda state: None), Reason.ENGINE_REFUSED)


# --- hostile outputs ----------------------------------------------------------------------------------------

HOSTILE = {
    "symlink": ("ln -s /etc/passwd /out/x", "symbolic link"),
    "hardlink": ("echo 1 > /out/a; ln /out/a /out/b", "hard link"),
    "fifo": ("mkfifo /out/x", "pipe"),
    "control": ("touch /out/$(printf 'a\\001b')", "not plain text"),
    "newline": ("touch \"$(printf '/out/a\\nb')\"", "not plain text"),
    "backslash": ("touch '/out/a\\b'", "backslash"),
    "not-utf8": ("touch /out/$(printf '\\377')", "UTF-8"),
    "deep": ("cd /out; i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done; true", "deep"),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
async def test_hostile_outputs_are_refused(sh: Any, blobs: BlobStore, kind: str) -> None:
    script, why = HOSTILE[kind]
    outcome = broke(await sh(script), Reason.OUTPUTS_REFUSED)
    assert why in outcome.detail
    assert blobs.total_bytes == 0


async def test_a_sparse_file_counts_as_what_it_pretends_to_be(sh: Any, blobs: BlobStore) -> None:
    script = "i=0; while [ $i -lt 8 ]; do dd if=/dev/zero of=/out/$i bs=1 count=1 seek=6M 2>/dev/null; i=$((i+1)); done"
    assert "bytes" in broke(await sh(script), Reason.OUTPUTS_REFUSED).detail
    assert blobs.total_bytes == 0


async def test_a_setuid_output_is_only_its_bytes(sh: Any, blobs: BlobStore) -> None:
    outcome = finished(await sh("cp /bin/busybox /out/x; chmod 6777 /out/x"))
    assert blobs.path(outcome.files[0].sha256).stat().st_mode & 0o7777 == 0o444


async def test_a_full_blob_store_is_our_problem_not_the_tasks(
    docker_engine: DockerEngine, image: bytes, task: TaskMaker, tmp_path: Path
) -> None:
    small = BlobStore(tmp_path / "small", quota_bytes=1000)
    spec = task(image_digest=image, command=("/bin/sh", "-c", "head -c 5000 /dev/zero > /out/x"))
    broke(await docker_engine.run(spec, {}, small, lambda state: None), Reason.NO_ROOM)
    assert small.total_bytes == 0


# --- housekeeping -------------------------------------------------------------------------------------------


async def test_leftovers_of_this_node_and_no_other_are_reaped(
    engine_host: str, api: Any, image: bytes, tmp_path: Path
) -> None:
    mine, other = (f"{name}-{secrets.token_hex(8)}" for name in ("mine", "other"))
    for labels in ({"nexapod.node": node, "nexapod.run": "x"} for node in (mine, other)):
        api.create_volume(f"left-{labels['nexapod.node']}", labels=labels)
        api.create_container("nexapod-test:1", ["sleep", "1000"], name=f"left-{labels['nexapod.node']}", labels=labels)
        api.start(f"left-{labels['nexapod.node']}")
    adapter = DockerEngine(node=mine, scratch=tmp_path / "scratch", host=engine_host)
    (tmp_path / "scratch" / "nexapod-00").mkdir(parents=True)
    assert await adapter.reap() == 3
    assert len(api.containers(filters={"label": f"nexapod.node={other}"})) == 1
    await adapter.aclose()
    neighbour = DockerEngine(node=other, scratch=tmp_path / "none", host=engine_host)
    assert await neighbour.reap() == 2
    await neighbour.aclose()


async def test_a_foreign_image_of_the_holders_name_is_not_run(
    docker_engine: DockerEngine, api: Any, sh: Any, image: bytes
) -> None:
    api.tag("nexapod-test:1", "nexapod-holder", "1", force=True)
    assert finished(await sh("touch /out/x")).files


async def test_an_engine_asked_to_run_before_it_was_probed(
    engine_host: str, image: bytes, blobs: BlobStore, task: TaskMaker, tmp_path: Path
) -> None:
    late = DockerEngine(node=secrets.token_hex(8), scratch=tmp_path / "scratch", host=engine_host)
    assert finished(await late.run(task(image_digest=image, command=("/bin/true",)), {}, blobs, lambda state: None))
    await late.aclose()


async def test_several_tasks_at_once_do_not_meet(
    docker_engine: DockerEngine, image: bytes, blobs: BlobStore, task: TaskMaker
) -> None:
    runner = Runner({"docker": docker_engine}, blobs, slots=3)
    outcomes: dict[int, Outcome] = {}

    async def one(index: int) -> None:
        script = "ls -A /out /tmp /in; echo $NEXAPOD_TASK_INDEX > /out/n"
        spec = task(image_digest=image, command=("/bin/sh", "-c", script), index=index, count=6)
        outcomes[index] = await runner.run(spec)

    async with trio.open_nursery() as nursery:
        for index in range(6):
            nursery.start_soon(one, index)
    for index, outcome in outcomes.items():
        assert blobs.read(finished(outcome).files[0].sha256) == f"{index}\n".encode()
        assert finished(outcome).log == b"/in:\n\n/out:\n\n/tmp:\n"


async def test_no_task_starts_before_something_holds_its_outputs(
    docker_engine: DockerEngine, sh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine forgets a volume in memory when the last container with it ends: a task shorter than its holder's
    # start would leave nothing, and an honest node would disagree with the others.
    steps: list[str] = []
    start = docker_engine._start_created

    def watched(name: str) -> None:
        steps.append(f"begin {name.rpartition('-')[2]}")
        start(name)
        steps.append(f"end {name.rpartition('-')[2]}")

    monkeypatch.setattr(docker_engine, "_start_created", watched)
    assert finished(await sh("echo kept > /out/a")).files[0].path == "a"
    assert steps == ["begin holder", "end holder", "begin task", "end task"]
