"""Job files on disk: three formats, one document; what must not be read."""

from pathlib import Path

import pytest

from nexapod.errors import Exit, LocalError
from nexapod.job_faults import DescriptorFaults
from nexapod.job_file import FILE_BYTES_MAX, load, local_path

SAME_JOB = {
    "j.json": '{"job_id": "j", "image": "x:1", "estimated_flops": 1.2e12, "command": ["a", "b"]}',
    "j.yaml": "job_id: j\nimage: x:1\nestimated_flops: 1.2e12\ncommand: [a, b]\n",
    "j.toml": 'job_id = "j"\nimage = "x:1"\nestimated_flops = 1.2e12\ncommand = ["a", "b"]\n',
}


def test_three_formats_are_one_job(tmp_path: Path) -> None:
    for name, text in SAME_JOB.items():
        (tmp_path / name).write_text(text)
    one, two, three = (load(tmp_path / name) for name in SAME_JOB)
    assert one == two == three
    assert one.estimated_flops == 1_200_000_000_000


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("j.json", '{"job_id": "j", "job_id": "k", "image": "x"}', "stands twice"),
        ("j.json", '{"job_id": "j", "image": "x", "tolerance": NaN}', "NaN is not a number"),
        ("j.json", '{"job_id": ', "cannot be read"),
        ("j.json", "[" * 100_000, "nested too deep"),
        ("j.json", '{"tasks": ' + "9" * 5000 + "}", "cannot be read"),
        ("j.yaml", "job_id: j\njob_id: k\n", "stands twice"),
        ("j.yaml", "a: &x [1]\nb: *x\n", "aliases"),
        ("j.yaml", "a: !!python/object/apply:os.system [id]\n", "cannot be read"),
        ("j.yml", "a: [", "cannot be read"),
        ("j.toml", "a = ", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_the_file(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DescriptorFaults) as caught:
        load(tmp_path / name)
    assert says in caught.value.why
    assert caught.value.exit_code == Exit.USAGE


def test_a_missing_or_huge_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="there is no file"):
        load(tmp_path / "none.json")
    (tmp_path / "huge.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(LocalError, match="too large"):
        load(tmp_path / "huge.json")


def test_local_inputs_stay_below_the_job_file(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "in.txt").write_text("i")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert local_path(folder, "file:in.txt") == folder.resolve() / "in.txt"
    for uri, says in (("file:link", "outside"), ("file:../secret", "outside"), ("file:none", "missing")):
        with pytest.raises(LocalError, match=says):
            local_path(folder, uri)
