"""The example jobs are sound: their descriptors parse, this version runs all they ask for, and nothing is missing."""

from pathlib import Path

import pytest

from nexapod import job, job_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/job.json"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_are_examples() -> None:
    assert {"fold", "weather"} <= {folder.name for folder in FOLDERS}


def test_the_descriptor_is_sound_and_runs_on_this_version(folder: Path) -> None:
    descriptor = job_file.load(folder / "job.json")
    assert job.unsupported(descriptor) == []
    assert descriptor.replicas >= 2, "an example shows that results are checked"


def test_inputs_and_program_stand_in_the_folder(folder: Path) -> None:
    descriptor = job_file.load(folder / "job.json")
    for source in descriptor.sources:
        assert (folder / source.path).is_file(), source.path
    programs = [word for word in descriptor.command if word.startswith("/opt/job/")]
    assert programs
    assert all((folder / Path(program).name).is_file() for program in programs)
    assert (folder / "README.md").is_file()
