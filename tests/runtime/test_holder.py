"""The program that does nothing, for as long as it is let."""

import io
import os
import platform
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.holder import PROGRAM, architectures, layer, layer_id, program


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is run natively")
def test_it_waits_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    path.write_bytes(program("amd64"))
    path.chmod(0o755)
    process = subprocess.Popen([path])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    spent = os.times().children_user
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert os.times().children_user - spent < 0.1, "it waits without working"


@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="needs qemu-user-static")
def test_it_waits_on_arm_as_well(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    path.write_bytes(program("arm64"))
    path.chmod(0o755)
    process = subprocess.Popen(["qemu-aarch64-static", path])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.kill()
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_the_image_is_the_same_bytes_every_time() -> None:
    for architecture in architectures():
        assert layer(architecture) == layer(architecture)
        with tarfile.open(fileobj=io.BytesIO(layer(architecture))) as archive:
            assert [f"/{entry.name}" for entry in archive] == [PROGRAM]
    assert len({layer_id(architecture) for architecture in architectures()}) == 2
