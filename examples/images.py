"""Builds the container images of the examples without a registry and hands them to the engine.

An image is a stack of layers: Python from the distribution's own packages (signed, fetched with apt-get download, no
root needed), one layer per pinned wheel, and on top the example's program. Every layer is a tar in one canonical form,
so the same packages give the same image digest on every machine, and layers that images share are built once.

Knows: apt-get, dpkg-deb, uv, the docker package. Must never know: the mesh, the ledger, how a job is run.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

import docker
import docker.errors

EXAMPLES = Path(__file__).resolve().parent
CACHE = EXAMPLES.parent / ".cache" / "images"

# The interpreter is the first of these that the distribution has; numpy needs 3.11 or later.
PYTHONS = ("3.11", "3.12", "3.13")
# What a headless scientific Python needs, by the names Debian and Ubuntu use (t64 after their 64-bit time change).
# Left out on purpose: shells, dpkg, perl, curses, readline, sqlite. A job needs an interpreter, not a system.
PACKAGES = (
    ("libc6",),
    ("libcrypt1",),
    ("libexpat1",),
    ("zlib1g",),
    ("libssl3t64", "libssl3"),
    ("libbz2-1.0",),
    ("libffi8",),
    ("liblzma5",),
    ("libuuid1",),
    ("libgcc-s1",),
    ("libstdc++6",),
)
# Never needed to run a program: shell patterns of paths in the finished tree, * crosses folders.
UNWANTED = (
    "usr/share/*",
    "etc/*/*",
    "usr/lib/*/gconv/*",
    "usr/lib/python3*/test/*",
    "usr/lib/python3*/lib2to3/*",
    "usr/lib/python3*/pydoc_data/*",
    "usr/lib/python3*/idlelib/*",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*/dist-packages/bin/*",  # start scripts that name the interpreter of the machine they were made on
    "*/numpy/*/tests/*",
    "*/numpy/_core/include/*",
    "*/numpy/f2py/*",
    "*.a",
    "*/OpenMM.libs/include/*",
    "*/OpenMM.libs/lib/plugins/*",  # GPU and threaded platforms: what differs between machines stays out
    "*/openmm/app/data/*.pdb",
    "*/openmm/app/data/charmm*",
    "*/openmm/app/data/amoeba*",
    "*/openmm/app/data/amber14/[!p]*",
    "*/openmm/app/data/amber19*",
    "*/openmm/app/data/glycam*",
)
PROGRAM_FOLDER = "opt/job"
EPOCH = "1970-01-01T00:00:00Z"


class BuildFault(Exception):
    """One clear line for the person at the terminal."""


@dataclass(frozen=True)
class Layer:
    """A finished layer on disk; `diff_id` is the sha256 of the uncompressed tar, the same in every engine."""

    path: Path
    diff_id: str


@dataclass(frozen=True)
class Image:
    reference: str
    layers: tuple[Layer, ...]
    config: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.config).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(layer.path.stat().st_size for layer in self.layers)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("examples", nargs="*", help="folder names, default: every example with a requirements.txt")
    parser.add_argument("--no-load", action="store_true", help="build only, leave the engine alone")
    options = parser.parse_args(arguments)
    names = options.examples or sorted(path.parent.name for path in EXAMPLES.glob("*/requirements.txt"))
    try:
        images = [build(EXAMPLES / name) for name in names]
        loaded = set() if options.no_load else load(images)
    except BuildFault as fault:
        print(f"images: {fault}", file=sys.stderr)
        return 1
    for image in images:
        how = "loaded" if image.reference in loaded else "built" if options.no_load else "already in the engine"
        print(f"{image.reference}  sha256:{image.digest}  {image.size_bytes / 1e6:.0f} MB  {how}")
    return 0


def build(folder: Path) -> Image:
    """The image of one example: its `job.json` names it, its `requirements.txt` and `*.py` fill it."""
    reference = str(json.loads((folder / "job.json").read_text())["image"])
    python = base_layer()
    layers = [python, *(wheel_layer(line, python) for line in requirements(folder / "requirements.txt"))]
    layers.append(program_layer(folder, python))
    return Image(reference, tuple(layers), image_config(layers))


def source_key(*inputs: str) -> str:
    """What a cached layer depends on: this file, the machine's architecture and distribution, and the inputs."""
    release = platform.freedesktop_os_release()
    identity = (Path(__file__).read_text(), platform.machine(), release["ID"], release.get("VERSION_ID", ""), *inputs)
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]


def requirements(path: Path) -> list[str]:
    """The pinned requirements with their hashes, one per entry; continuation lines are joined."""
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


# --- layers -----------------------------------------------------------------------------------------------------------


def base_layer() -> Layer:
    """The interpreter and the libraries that wheels expect of the system, from the distribution's packages."""

    def fill(tree: Path) -> None:
        # Packages may still ship /lib where the system has it merged into /usr/lib.
        for name in ("bin", "lib", "lib64", "sbin"):
            (tree / "usr" / name).mkdir(parents=True)
            (tree / name).symlink_to(f"usr/{name}")
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            version = download_packages(Path(scratch))
            for package in sorted(Path(scratch).glob("*.deb")):
                unpack_package(package, tree)
        (tree / "usr/bin/python3").symlink_to(f"python{version}")
        (tree / "etc").mkdir(exist_ok=True)
        (tree / "etc/passwd").write_text("root:x:0:0::/:/none\nnobody:x:65534:65534::/tmp:/none\n")
        (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (tree / "tmp").mkdir()

    return cached("base", source_key(), fill, None)


def wheel_layer(requirement: str, python: Layer) -> Layer:
    def fill(tree: Path) -> None:
        version = interpreter_version(python)
        target = tree / f"usr/local/lib/python{version}/dist-packages"  # Debian's interpreter looks there by itself
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=CACHE) as file:
            file.write(requirement + "\n")
            file.flush()
            pins = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", version)
            where = ["--python-platform", f"{platform.machine()}-manylinux_2_28", "--target", str(target)]
            if index := os.environ.get("PIP_INDEX_URL"):  # the machine has its own package index
                where += ["--default-index", index]
            run(find_uv(), "pip", "install", "--quiet", *pins, *where, "--requirements", file.name)

    return cached(requirement.split("==")[0], source_key(requirement), fill, python)


def program_layer(folder: Path, python: Layer) -> Layer:
    programs = sorted(folder.glob("*.py"))

    def fill(tree: Path) -> None:
        (tree / PROGRAM_FOLDER).mkdir(parents=True)
        for path in programs:
            shutil.copyfile(path, tree / PROGRAM_FOLDER / path.name)

    content = "".join(f"{path.name}\0{path.read_text()}\0" for path in programs)
    return cached(folder.name, source_key(content), fill, python)


def cached(name: str, key: str, fill: Callable[[Path], None], python: Layer | None) -> Layer:
    """The layer of that name and key; when it is not there, `fill` puts its files in an empty folder, which is packed.

    `python` is the layer with the interpreter that compiles the bytecode, None for the layer that holds it itself.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{name}-{key}.tar"
    if not path.exists():
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            tree, packed = Path(scratch, "tree"), Path(scratch, "layer.tar")
            tree.mkdir()
            fill(tree)
            remove_unwanted(tree)
            compile_bytecode(tree, tree if python is None else unpack(python, Path(scratch, "python")))
            pack(tree, packed)
            packed.rename(path)
        for old in CACHE.glob(f"{name}-{'?' * len(key)}.tar"):
            if old != path:
                old.unlink()
        seconds = time.monotonic() - started
        print(f"  layer {name}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s", file=sys.stderr)
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest())


def download_packages(folder: Path) -> str:
    """Put the packages into the folder and return the interpreter's version, such as "3.11".

    The system's package lists are used when they are there and fresh; otherwise private ones are fetched, which needs
    no root. apt checks the signatures either way.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise BuildFault("the example images are made of Debian or Ubuntu packages, and there is no apt-get here")
    private = CACHE / "apt"
    places = ("lists", "cache", "log")
    isolated = [f"-oDir::{part}" for part in (f"State::Lists={private}/lists", f"Cache={private}/cache")]
    for options in ([], isolated):
        if options:
            for place in places:
                (private / place / "partial").mkdir(parents=True, exist_ok=True)
            run("apt-get", *options, "-oAPT::Sandbox::User=", "-qq", "update")
        known = set(output("apt-cache", *options, "pkgnames").split())
        version = next((v for v in PYTHONS if f"libpython{v}-stdlib" in known), None)
        names = [next((name for name in choice if name in known), None) for choice in PACKAGES]
        if version is None or None in names:
            continue
        interpreter = [f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib"]
        wanted = [*interpreter, *(name for name in names if name)]
        fetch = ["apt-get", *options, "-oAPT::Sandbox::User=", "-qq", "download", *wanted]
        if subprocess.run(fetch, cwd=folder, capture_output=bool(not options), check=False).returncode == 0:
            return version
    raise BuildFault(f"apt-get cannot fetch the packages of Python {' or '.join(PYTHONS)}; its messages are above")


def unpack_package(package: Path, tree: Path) -> None:
    """Like dpkg on a merged system: a folder in the package does not replace the link that stands in its place."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
        extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(tree)]
        done = subprocess.run(extract, stdin=archive.stdout, check=False)
    if done.returncode or archive.returncode:
        raise BuildFault(f"{package.name} cannot be unpacked")


def compile_bytecode(tree: Path, python: Path) -> None:
    """Compile with the image's own interpreter, run through its own loader: no container and no root is needed.

    The container's file system is read-only, so without this every task would compile its imports again.
    Unchecked hashes keep times and paths of this machine out of the files.
    """
    loader = next(python.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    version = interpreter_name(python)
    sources = [tree / part for part in ("usr/lib", "usr/local/lib", PROGRAM_FOLDER) if (tree / part).is_dir()]
    command = [str(loader), "--library-path", str(loader.parent), str(python / "usr/bin" / version), "-m", "compileall"]
    command += ["-q", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/", *map(str, sources)]
    environment = {"PYTHONHOME": str(python / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    # Exit 1 means that some file did not compile: wheels carry templates that are no Python. Those stay without.
    if subprocess.run(command, env=environment, check=False).returncode not in (0, 1):
        raise BuildFault(f"the interpreter for the images does not start on this machine ({loader})")


def interpreter_name(python: Path) -> str:
    return os.readlink(python / "usr/bin/python3")


def interpreter_version(python: Layer) -> str:
    with tarfile.open(python.path) as archive:
        return archive.getmember("usr/bin/python3").linkname.removeprefix("python")


def unpack(layer: Layer, folder: Path) -> Path:
    folder.mkdir()
    run("tar", "-xf", str(layer.path), "-C", str(folder))
    return folder


def remove_unwanted(tree: Path) -> None:
    for path in sorted(tree.rglob("*"), reverse=True):
        name = path.relative_to(tree).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()) and any(fnmatch(f"{name}/x", pattern) for pattern in UNWANTED):
                path.rmdir()
        elif any(fnmatch(name, pattern) for pattern in UNWANTED):
            path.unlink()


def pack(tree: Path, packed: Path) -> None:
    """One canonical tar: sorted names, no times, no owners, two file modes."""
    with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(tree.rglob("*"), key=lambda path: path.relative_to(tree).as_posix()):
            info = tarfile.TarInfo(path.relative_to(tree).as_posix())
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
                archive.addfile(info)
            elif stat.S_ISDIR(mode):
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if info.name == "tmp" else 0o755
                archive.addfile(info)
            elif stat.S_ISREG(mode):
                info.size, info.mode = path.stat().st_size, 0o755 if mode & 0o111 else 0o644
                with path.open("rb") as file:
                    archive.addfile(info, file)


# --- images -----------------------------------------------------------------------------------------------------------


def image_config(layers: Sequence[Layer]) -> bytes:
    """The image's config as canonical JSON; its sha256 is the image's identity. No date, no user, no host in it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {
        "architecture": machine,
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/tmp"},
        "created": EPOCH,
        "history": [{"created": EPOCH, "created_by": "examples/images.py"} for _ in layers],
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{layer.diff_id}" for layer in layers], "type": "layers"},
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def load(images: Sequence[Image]) -> set[str]:
    """Load what the engine does not have yet and return those references."""
    try:
        client = docker.from_env(timeout=120)
        missing = [image for image in images if not has(client, image)]
        if missing:
            with tempfile.TemporaryFile(dir=CACHE) as file:
                write_archive(missing, file)
                file.seek(0)
                client.images.load(file)
        lost = [image.reference for image in missing if not has(client, image)]
    except docker.errors.DockerException as fault:
        raise BuildFault(f"no container engine takes the images ({fault}); see `scripts/engine start`") from fault
    if lost:
        raise BuildFault(f"the engine took the archive but does not show {', '.join(lost)}")
    return {image.reference for image in missing}


def has(client: docker.DockerClient, image: Image) -> bool:
    """Whether the reference names exactly these layers; engines differ in what they call an image's id."""
    try:
        attributes = client.images.get(image.reference).attrs
    except docker.errors.ImageNotFound:
        return False
    return bool(attributes["RootFS"]["Layers"] == [f"sha256:{layer.diff_id}" for layer in image.layers])


def write_archive(images: Sequence[Image], file: IO[bytes]) -> None:
    """What `docker load` reads: the configs, each layer once, and a manifest that ties them to names."""
    manifest = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for layer in {layer.diff_id: layer for image in images for layer in image.layers}.values():
            archive.add(layer.path, f"{layer.diff_id}.tar")
        for image in images:
            names = [f"{layer.diff_id}.tar" for layer in image.layers]
            manifest.append({"Config": f"{image.digest}.json", "RepoTags": [image.reference], "Layers": names})
            add_bytes(archive, f"{image.digest}.json", image.config)
        add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


# --- programs this one stands on --------------------------------------------------------------------------------------


def find_uv() -> str:
    """uv as the quickstart keeps it in the clone, as `uv run` names it, or from the PATH."""
    own = EXAMPLES.parent / ".cache/uv/bin/uv"
    found = str(own) if own.exists() else os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise BuildFault("uv is needed to fetch the wheels; `./quickstart setup` puts it into this folder")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise BuildFault(f"`{' '.join(command[:3])} ...` exited {done.returncode}: {' | '.join(last)}")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
