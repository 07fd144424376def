"""A container engine for tests, and images made of nothing but this machine's own files.

An engine named by DOCKER_HOST is used as it is. Otherwise root with dockerd gets a private one in its own network
namespace and folder, stopped at the end. Without either, tests that need one are skipped, or fail where it is required.
"""

import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

_READY_S = 30


@contextmanager
def engine_host() -> Iterator[str]:
    """The address of an engine that answers, for as long as the context lasts."""
    if host := os.environ.get("DOCKER_HOST"):
        yield host
    elif _can_be_private():
        with private_engine() as engine:
            yield engine.host
    else:
        _none("set DOCKER_HOST, or run as root with dockerd installed")


def _can_be_private() -> bool:
    return os.geteuid() == 0 and all(map(shutil.which, ("dockerd", "unshare", "nsenter")))


def _none(remedy: str) -> None:
    if os.environ.get("CI") == "true" or os.environ.get("NEXAPOD_REQUIRE_DOCKER") == "1":
        pytest.fail(f"a container engine is required here: {remedy}")
    pytest.skip(f"no container engine: {remedy}")


@contextmanager
def private_engine(*options: str) -> Iterator["PrivateEngine"]:
    """An engine of the test's own, which may be killed and started again; nothing of it stays."""
    # A short path of its own: the name of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nxpd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        engine = PrivateEngine(folder, options)
        try:
            engine.start()
            yield engine
        finally:
            engine.end()


class PrivateEngine:
    """dockerd in a network, mount and process namespace of its own: it cannot touch the bridges of the engine that is
    already here, and when the namespaces end, the kernel ends every container and every mount with them.
    """

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self._folder, self._options = folder, options
        self.host = f"unix://{folder}/d.sock"
        self._process: subprocess.Popen[bytes] | None = None
        # The shell waits, so it reaps what an engine that was killed leaves to it.
        first = "mount -t proc proc /proc && ip link set lo up && { sleep infinity & wait; }"
        spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "slave"]
        self._spaces = subprocess.Popen(["unshare", *spaces, "sh", "-c", first])

    def start(self) -> None:
        """Start it, again or for the first time, and wait until it answers."""
        folder = self._folder
        command = ["nsenter", "-t", str(self._first_process()), "--net", "--mount", "--pid", "dockerd"]
        command += ["--bridge", "none", "--iptables=false", "--data-root", f"{folder}/data", *self._options]
        command += ["--exec-root", f"{folder}/exec", "-H", self.host, "--pidfile", f"{folder}/pid"]
        Path(folder, "d.sock").unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _until_ready(self.host, self._process, folder / "log")

    def kill(self) -> None:
        """kill -9 of dockerd and its containerd. Containers go on: each hangs on a process of its own."""
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End it as an operator does: it stops its containers first."""
        os.kill(self._pids()[0], signal.SIGTERM)
        self._wait()

    def freeze(self) -> None:
        """Let it take connections and answer none, until it is thawed."""
        os.kill(self._pids()[0], signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; nsenter has stopped as well, and takes dockerd along."""
        assert self._process is not None, "the engine runs"
        for pid in (self._process.pid, self._pids()[0]):
            os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        """End everything in its namespaces."""
        self._spaces.kill()  # --kill-child takes the first process of the namespaces along
        self._spaces.wait()
        self._wait()

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=60)
            self._process = None

    def _pids(self) -> list[int]:
        """dockerd, then its children."""
        assert self._process is not None, "the engine runs"
        (dockerd,) = _children(self._process.pid)
        return [dockerd, *_children(dockerd)]

    def _first_process(self) -> int:
        """The first process of the namespaces, once they are made ready: it has a child then that sleeps."""
        for _ in range(_READY_S * 10):
            for first in _children(self._spaces.pid):
                if any(_name(pid) == "sleep" for pid in _children(first)):
                    return first
            try:
                code = self._spaces.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"no namespaces for a private engine: unshare exited with {code}")
        pytest.fail("no namespaces for a private engine in time")


def _children(pid: int) -> list[int]:
    """The children a process has now; none when it is gone."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _until_ready(host: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until it answers. An engine says nothing when it is ready, so there is nothing to wait for but the answer."""
    for _ in range(_READY_S * 10):
        try:
            with socket.socket(socket.AF_UNIX) as door:  # the SDK leaks its socket where nobody listens
                door.connect(host.removeprefix("unix://"))
            docker.APIClient(base_url=host, version="auto", timeout=5).close()
            return
        except (DockerException, OSError):
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
    pytest.fail(f"the private engine did not start: {log.read_text()[-2000:]}")


def require_private_engine() -> None:
    """Skip, or fail where one is required, when this machine cannot run an engine of the test's own."""
    if not _can_be_private():
        _none("run as root with dockerd installed")


def busybox_image(api: Any, tag: str, extra: Mapping[str, bytes] | None = None, changes: tuple[str, ...] = ()) -> bytes:
    """Import a small image: busybox with all its commands, plus `extra` executables by path. Its 32-byte digest."""
    busybox = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()), None)
    if busybox is None:
        pytest.fail("the test image needs busybox-static (apt-get install busybox-static)")
    commands = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("tmp", 0o1777), ("out", 0o755), ("world", 0o777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        _add(archive, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        _add(archive, "suid/busybox", Path(busybox).read_bytes(), 0o4755)
        for command in sorted(set(commands) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{command}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for path, content in (extra or {}).items():
            _add(archive, path, content, 0o755)
    repository, _, name = tag.partition(":")
    api.import_image_from_data(buffer.getvalue(), repository=repository, tag=name, changes=list(changes))
    return bytes.fromhex(api.inspect_image(tag)["Id"].removeprefix("sha256:"))


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def syscall_program(number: int, *arguments: int) -> bytes:
    """An x86-64 program that makes one system call and exits with its error number (0: it was let through)."""
    registers = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")  # rdi rsi rdx r10 r8 r9
    code = b"".join(
        move + struct.pack("<q", value) for move, value in zip(registers, (*arguments, 0, 0, 0, 0, 0, 0), strict=False)
    )
    code += b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax, number; syscall
    code += b"\x31\xff\x85\xc0\x79\x04\x89\xc7\xf7\xdf"  # edi = 0; if eax < 0: edi = -eax
    code += b"\xb8\xe7\x00\x00\x00\x0f\x05"  # exit_group(edi)
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code
