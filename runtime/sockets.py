"""Where a container engine may listen on this machine.

Knows the places people's engines use. Must never connect to one.
"""

import hashlib
import json
import os
from pathlib import Path


def candidates(environment: dict[str, str] | None = None) -> tuple[str, ...]:
    """Addresses to try, best first. DOCKER_HOST is somebody's decision: when set, nothing else is tried."""
    env = dict(os.environ) if environment is None else environment
    if chosen := env.get("DOCKER_HOST"):
        return (chosen,)
    home = Path(env.get("HOME", "/"))
    found = [_context(home, env)]
    sockets = [home / ".docker/run/docker.sock", home / ".docker/desktop/docker.sock", Path("/var/run/docker.sock")]
    if runtime := env.get("XDG_RUNTIME_DIR"):
        sockets += [Path(runtime) / "docker.sock", Path(runtime) / "podman/podman.sock"]
    sockets.append(Path("/run/podman/podman.sock"))
    found += [f"unix://{socket}" for socket in sockets if socket.exists()]
    # With no engine at all, name the usual place so that the complaint is one a person can look up.
    return tuple(dict.fromkeys(address for address in found if address)) or ("unix:///var/run/docker.sock",)


def _context(home: Path, env: dict[str, str]) -> str:
    """The address of the docker context in use; empty for the default one or when it cannot be read."""
    folder = Path(env.get("DOCKER_CONFIG", str(home / ".docker")))
    try:
        name = env.get("DOCKER_CONTEXT") or json.loads((folder / "config.json").read_text())["currentContext"]
        meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
