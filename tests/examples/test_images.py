"""The image builder's promise: equal inputs give equal bytes, and the engine accepts what it writes."""

import hashlib
import importlib.util
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests import engine as test_engine

# By its path: libp2p's wheel brings a package named `examples` too.
_SPEC = importlib.util.spec_from_file_location("example_images", Path(__file__).parents[2] / "examples/images.py")
assert _SPEC is not None
assert _SPEC.loader is not None
images = sys.modules[_SPEC.name] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(images)

SEED = "5577006791947779410"


def a_tree(root: Path, *, reverse: bool, mtime: int, mode: int) -> Path:
    files = {"usr/bin/tool": "#!x", "usr/lib/a.txt": "a", "opt/job/run.py": "print(1)"}
    for name, content in sorted(files.items(), reverse=reverse):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if name.endswith("tool") else mode)
        os.utime(path, (mtime, mtime))
    (root / "lib").symlink_to("usr/lib")
    return root


def test_a_layer_does_not_tell_when_in_which_order_or_with_which_umask_it_was_made(tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    images.pack(a_tree(tmp_path / "1", reverse=False, mtime=1, mode=0o644), first)
    images.pack(a_tree(tmp_path / "2", reverse=True, mtime=10**9, mode=0o600), second)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        assert {(member.uid, member.gid, member.mtime) for member in archive} == {(0, 0, 0)}
        assert archive.getmember("usr/bin/tool").mode == 0o755
        assert archive.getmember("lib").linkname == "usr/lib"


def test_one_changed_byte_changes_the_image_digest(tmp_path: Path) -> None:
    digests = set()
    for content in ("print(1)", "print(2)"):
        tree = tmp_path / content / "tree"
        tree.mkdir(parents=True)
        (tree / "run.py").write_text(content)
        packed = tmp_path / content / "layer.tar"
        images.pack(tree, packed)
        layer = images.Layer(packed, hashlib.sha256(packed.read_bytes()).hexdigest())
        digests.add(images.Image("x:1", (layer,), images.image_config([layer])).digest)
    assert len(digests) == 2


def test_requirements_keep_their_hashes_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# exact\na==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nb==2 --hash=sha256:22\n")
    lines = images.requirements(path)
    assert [line.split("==")[0] for line in lines] == ["a", "b"]
    assert lines[0].split()[1:] == ["--hash=sha256:00", "--hash=sha256:11"]


def test_unwanted_files_go_and_the_rest_stays(tmp_path: Path) -> None:
    for name in ("usr/share/doc/x/copyright", "usr/lib/python3.11/json/__init__.py", "a/dist-packages/bin/f2py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    images.remove_unwanted(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"usr/lib/python3.11/json/__init__.py"}


def test_layers_that_images_share_are_in_the_archive_once(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "tree", reverse=False, mtime=1, mode=0o644)
    images.pack(tree, tmp_path / "layer.tar")
    layer = images.Layer(tmp_path / "layer.tar", hashlib.sha256((tmp_path / "layer.tar").read_bytes()).hexdigest())
    config = images.image_config([layer])
    buffer = io.BytesIO()
    images.write_archive([images.Image("one:1", (layer,), config), images.Image("two:1", (layer,), config)], buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        assert archive.getnames().count(f"{layer.diff_id}.tar") == 1
        member = archive.extractfile("manifest.json")
        assert member is not None
        manifest = json.load(member)
    assert [entry["RepoTags"] for entry in manifest] == [["one:1"], ["two:1"]]


@pytest.fixture(scope="module")
def engine_with_images() -> Iterator[docker.DockerClient]:
    with test_engine.engine_host() as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        assert images.main([]) == 0
        client = docker.from_env(timeout=120)
        yield client
        client.close()


@pytest.mark.docker
@pytest.mark.parametrize("name", ["fold", "weather"])
def test_an_example_writes_the_same_bytes_twice_and_others_for_another_seed(
    engine_with_images: docker.DockerClient, name: str
) -> None:
    folder = images.EXAMPLES / name
    first = outputs_of(engine_with_images, folder, SEED)
    assert first == outputs_of(engine_with_images, folder, SEED)
    assert first != outputs_of(engine_with_images, folder, "1")


def outputs_of(client: docker.DockerClient, folder: Path, seed: str) -> dict[str, str]:
    """Hashes of what the example leaves when it runs without network, capabilities or a writable system."""
    descriptor = json.loads((folder / "job.json").read_text())
    # The inputs travel as an archive: the engine may see another file system than this test does.
    inputs = io.BytesIO()
    with tarfile.open(fileobj=inputs, mode="w") as archive:
        for name in descriptor["input_files"]:
            archive.add(folder / name, name)
    names = [f"nexapod-example-{kind}-{os.getpid()}" for kind in ("in", "out")]
    volumes = [client.volumes.create(name) for name in names]
    script = "import os,runpy,sys; os.umask(0); runpy.run_path(sys.argv[1], run_name='__main__')"
    container = client.containers.create(
        descriptor["image"],
        ["python3", "-c", script, descriptor["command"][-1]],
        environment={"NEXAPOD_SEED": seed, "NEXAPOD_TASK_INDEX": "0", "NEXAPOD_TASK_COUNT": "1"},
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={"/tmp": ""},
        mounts=[docker.types.Mount("/in", names[0]), docker.types.Mount("/out", names[1])],
    )
    try:
        container.put_archive("/in", inputs.getvalue())
        container.start()
        status = container.wait(timeout=60)["StatusCode"]
        assert status == 0, container.logs().decode()
        archive_bytes = b"".join(container.get_archive("/out")[0])
    finally:
        container.remove(force=True)
        for volume in volumes:
            volume.remove(force=True)
    with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as archive:
        files = {member.name.split("/", 1)[-1]: archive.extractfile(member) for member in archive if member.isfile()}
        hashes = {path: hashlib.sha256(file.read()).hexdigest() for path, file in files.items() if file}
    assert set(descriptor["outputs"]) <= set(hashes)
    return {path: hashes[path] for path in descriptor["outputs"]}
