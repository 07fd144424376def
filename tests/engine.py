"""A container engine for tests, and images made of nothing but this machine's own files.

An engine named by DOCKER_HOST is used as it is. Otherwise root with dockerd gets a private one in its own network
namespace and folder, stopped at the end. Without either, tests that need one are skipped, or fail where it is required.
"""

import io
import os
import shutil
import signal
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
    elif os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("unshare"):
        with _private_engine() as host:
            yield host
    elif os.environ.get("CI") == "true" or os.environ.get("NEXAPOD_REQUIRE_DOCKER") == "1":
        pytest.fail("a container engine is required here: set DOCKER_HOST, or run as root with dockerd installed")
    else:
        pytest.skip("no container engine: set DOCKER_HOST, or run as root with dockerd installed")


@contextmanager
def _private_engine() -> Iterator[str]:
    # A short path of its own: the name of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nxpd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        host = f"unix://{folder}/d.sock"
        options = f"--data-root {folder}/data --exec-root {folder}/exec -H {host} --pidfile {folder}/pid"
        # Its own network namespace: an engine without a bridge removes the one of the engine that is already here.
        command = f"ip link set lo up; exec dockerd --bridge none --iptables=false {options}"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(["unshare", "-n", "sh", "-c", command], stdout=log, stderr=log)
        try:
            _until_ready(host, process, folder / "log")
            yield host
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _until_ready(host: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until it answers. An engine says nothing when it is ready, so there is nothing to wait for but the answer."""
    for _ in range(_READY_S * 10):
        try:
            if Path(host.removeprefix("unix://")).exists():
                docker.APIClient(base_url=host, version="auto", timeout=5).close()
                return
            raise FileNotFoundError(host)
        except (DockerException, OSError):
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
    pytest.fail(f"the private engine did not start: {log.read_text()[-2000:]}")


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
