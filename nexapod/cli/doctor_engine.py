"""What the doctor asks a container engine: its version, its runtime, and whether it can hold a job in its box.

Knows GET /version and GET /info of Docker and Podman. Must never start or change anything. What the engine answers is
not believed to have any shape.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nexapod.cli.client import Api, DaemonDown, part, rows
from nexapod.cli.finding import Finding, fail, ok, together, warn
from nexapod.cli.session import room
from nexapod.config import Config
from nexapod.errors import LocalError

ENGINE_S = 5.0
API_FLOOR = (1, 41)  # Docker 20.10, Podman 3.0; older ones know no limits of cgroup v2
RUNC_FLOOR = (1, 1, 12)  # CVE-2024-21626: an image whose WORKDIR is a leaked descriptor begins in a folder of the host
RUNC_MENDED = ((1, 2, 8), (1, 3, 3))  # CVE-2025-31133, -52565, -52881: masked paths and consoles mounted over the host
SAID_CHARS_MAX = 80  # of a version or a name; no honest one is longer
NO_TASKS = 'to run no tasks here: engine = "none" in config.toml'

# What the sandbox asks of the kernel, and what a job could do where the engine does not pass it on.
LIMITS = (
    ("MemoryLimit", fail, "no limit of memory: a job could take all of it"),
    ("PidsLimit", fail, "no limit of processes: a job could fill the process table"),
    ("CpuCfsQuota", fail, "no limit of processor time: the engine would refuse every task"),
    ("SwapLimit", warn, "no limit of swap: a job could fill it"),
)
DELEGATE = (
    "mkdir -p /etc/systemd/system/user@.service.d && "
    r"printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/delegate.conf && "
    "systemctl daemon-reload"
)
KERNEL = "add cgroup_enable=memory swapaccount=1 to the kernel's command line and restart the machine"

# Marks of a distribution's build, which may have been mended under an old number, and how it gets a newer one.
PACKAGES = (
    (r"\+(?:ds|dfsg)|deb\d+u|ubuntu", "apt-get update && apt-get install --only-upgrade runc"),
    (r"\.(?:el|fc|amzn)\d", "dnf upgrade runc"),
)


class Asked(NamedTuple):
    """An engine that answered: where, and its two documents."""

    place: str
    version: Mapping[str, Any]
    info: Mapping[str, Any] | LocalError


def engine_findings(config: Config | None, gpus: list[str]) -> Iterator[tuple[str, Finding]]:
    """The engine a daemon would use. `gpus`: names of those this machine has."""
    if config and (config.engine == "none" or not config.work):
        yield "engine", ok("this node runs no tasks (settings engine, work)")
        return
    asked = _ask()
    if isinstance(asked, Finding):
        yield "engine", asked
        return
    yield from judge(asked, gpus)


def judge(asked: Asked, gpus: list[str]) -> Iterator[tuple[str, Finding]]:
    """What the answers of an engine mean for a node."""
    info = asked.info
    yield "engine", _version(asked, {} if isinstance(info, LocalError) else info)
    yield "runc", _runc(asked.version)
    if isinstance(info, LocalError):
        yield "limits", fail(f"the engine does not say what it can limit: {info}", NO_TASKS)
        return
    yield "limits", _limits(info)
    yield "cgroup", _cgroup(info)
    yield "seccomp", _seccomp(info)
    if gpus:
        yield "gpu", _gpus(info, gpus, podman=_is_podman(asked.version))


def _ask() -> Asked | Finding:
    tried: list[str] = []
    for address in room("runtime.sockets").candidates():
        scheme, _, path = address.partition("://")
        if scheme != "unix":
            return warn(f"{address} is not a unix socket and was not asked", "see what the daemon says: nexapod status")
        api = Api(Path(path), who="the engine")
        try:
            version = api.get("/version", timeout_s=ENGINE_S)
        except DaemonDown as error:
            tried.append(error.why)
            continue
        except LocalError as error:
            tried.append(f"{path}: {error}")
            continue
        try:
            return Asked(path, version, api.get("/info", timeout_s=ENGINE_S))
        except LocalError as error:
            return Asked(path, version, error)
    return fail(f"no container engine answers: {'; '.join(tried)}", _remedy(tried))


def _remedy(tried: list[str]) -> str:
    if any("Permission denied" in one for one in tried):
        return f"become a member of its group, and log in again: sudo usermod -aG docker $USER; {NO_TASKS}"
    if shutil.which("dockerd"):
        return f"systemctl start docker; {NO_TASKS}"
    if shutil.which("podman"):
        return f"systemctl --user start podman.socket; {NO_TASKS}"
    return f"install one: apt-get install docker.io; {NO_TASKS}"


def _version(asked: Asked, info: Mapping[str, Any]) -> Finding:
    version = asked.version
    name = "Podman" if _is_podman(version) else "Docker"
    api = _numbers(version.get("ApiVersion"), 2)
    system, machine = version.get("Os"), version.get("Arch")
    rootless = any("rootless" in one for one in _security(info) or ())
    detail = f"{name} {_said(version.get('Version'))} at {asked.place}{', rootless' if rootless else ''}"
    found = []
    if api is None:
        found.append(warn(f"{detail} names no API version", "is it Docker or Podman that listens there?"))
    elif api < API_FLOOR:
        floor = "older than Docker 20.10 and Podman 3.0, and knows no limits of cgroup v2"
        found.append(fail(f"{detail} is {floor} (API {api[0]}.{api[1]})", "update the engine"))
    if isinstance(system, str) and system != "linux":
        found.append(fail(f"{detail} runs {_said(system)} containers", "switch it to Linux containers"))
    known = room("runtime.holder").architectures()
    if isinstance(machine, str) and machine not in known:
        found.append(fail(f"{_said(machine)} is not supported yet, only {', '.join(known)}", NO_TASKS))
    return together(found, detail)


def _runc(version: Mapping[str, Any]) -> Finding:
    components = {str(one.get("Name", "")).lower(): one for one in rows(version, "Components")}
    name = next((name for name in components if "runc" in name or "oci runtime" in name or "crun" in name), "")
    if not name:
        return warn("the engine does not name its runtime", f"see: runc --version, at least {_dotted(RUNC_FLOOR)}")
    text = str(components[name].get("Version", ""))
    if "crun" in name or "crun" in text:
        return ok(f"crun {_said(text.replace('crun version', '').strip())}")
    numbers = _numbers(text, 3)
    if numbers is None:
        return warn(f"the engine says runc is {_said(text)!r}", f"see: runc --version, at least {_dotted(RUNC_FLOOR)}")
    marks = f"{text} {part(components[name], 'Details').get('GitCommit', '')}"
    packaged = next((command for mark, command in PACKAGES if re.search(mark, marks)), "")
    update = packaged or "update runc (Docker's own packages: apt-get install --only-upgrade containerd.io)"
    if numbers < RUNC_FLOOR:
        why = f"{_said(text)} is older than {_dotted(RUNC_FLOOR)}: an image can reach the host's files (CVE-2024-21626)"
        maybe = ", unless your distribution has mended it under the old number"
        return warn(why + maybe, update) if packaged else fail(why, update)
    if not any(numbers[:2] == floor[:2] and numbers >= floor for floor in RUNC_MENDED) and numbers < RUNC_MENDED[-1]:
        wanted = " or ".join(map(_dotted, RUNC_MENDED))
        return warn(f"{_said(text)} is older than {wanted}: mounts can be led astray (CVE-2025-31133)", update)
    return ok(_said(text))


def _limits(info: Mapping[str, Any]) -> Finding:
    lower = {key.lower(): value for key, value in info.items()}  # the two spell CPUCfsQuota differently
    rootless = any("rootless" in one for one in _security(info) or ())
    found = []
    for key, grave, why in LIMITS:
        value = lower.get(key.lower())
        if not isinstance(value, bool):
            found.append(warn(f"the engine does not say whether it has {key}"))
        elif not value:
            found.append(grave(why, DELEGATE if rootless else KERNEL))
    return together(found, "memory, swap, processes and processor time can be limited")


def _cgroup(info: Mapping[str, Any]) -> Finding:
    driver, version = info.get("CgroupDriver"), info.get("CgroupVersion")
    if driver == "none":
        return fail("the engine uses no cgroups: no limit of a job would hold", DELEGATE)
    if not isinstance(driver, str) or not driver:
        return warn("the engine does not say how it uses cgroups")
    # The version is told since Docker 20.10 and always by Podman.
    return ok(f"version {_said(version)}, driver {_said(driver)}" if version else f"driver {_said(driver)}")


def _seccomp(info: Mapping[str, Any]) -> Finding:
    options = _security(info)
    if options is None:
        return warn("the engine does not say whether it filters system calls")
    if not any("seccomp" in one for one in options):
        fix = f"use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp; {NO_TASKS}"
        return fail("no seccomp: a job could make every system call there is", fix)
    return ok("system calls of jobs are filtered")


def _gpus(info: Mapping[str, Any], gpus: list[str], *, podman: bool) -> Finding:
    names = _said(", ".join(gpus))
    devices = [str(one.get("ID", "")) for one in rows(info, "DiscoveredDevices")]
    if "nvidia" in part(info, "Runtimes") or any(one.startswith("nvidia.com/gpu") for one in devices):
        return ok(f"{names}; the engine can pass it to jobs")
    if podman:
        return warn(f"{names}; whether Podman can pass it to jobs is not told",
                    "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")  # fmt: skip
    fix = "install nvidia-container-toolkit; nvidia-ctk runtime configure --runtime=docker && systemctl restart docker"
    return warn(f"{names}; the engine has no nvidia runtime, so no job gets it", fix)


def _security(info: Mapping[str, Any]) -> list[str] | None:
    """The security options of an engine; null is how one says that it has none."""
    options = info.get("SecurityOptions", "")
    if options is None:
        return []
    return [one for one in options if isinstance(one, str)] if isinstance(options, list) else None


def _is_podman(version: Mapping[str, Any]) -> bool:
    return any("podman" in str(one.get("Name", "")).lower() for one in rows(version, "Components"))


def _numbers(text: object, count: int) -> tuple[int, ...] | None:
    """The first numbers of a version, at least two of them, filled up with zeros."""
    found = re.search(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text) if isinstance(text, str) else None
    return tuple(int(part or 0) for part in found.groups())[:count] if found else None


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _said(text: object) -> str:
    """A short text of the engine, on one line."""
    first = (str(text) if isinstance(text, (str, int)) else "?").strip().partition("\n")[0]
    return first if len(first) <= SAID_CHARS_MAX else f"{first[:SAID_CHARS_MAX]}…"
