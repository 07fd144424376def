"""Every parser under fire for a moment; scripts/fuzz does it for as long as one likes."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.corpus import CORPUS, LAYERS, OUTPUTS
from tests.fuzz.parsers import Parser, all_parsers

SECONDS = float(os.environ.get("NEXAPOD_FUZZ_SECONDS", "1"))
SEED = os.environ.get("NEXAPOD_FUZZ_SEED", "tests")
NAMES = tuple(all_parsers(Path("nowhere")))  # nothing is read or written before an input comes


@pytest.fixture(scope="module")
def parsers() -> Iterator[dict[str, Parser]]:
    with tempfile.TemporaryDirectory(prefix="nexapod-fuzz-", dir=campaign.scratch_parent()) as folder:
        yield all_parsers(Path(folder))


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_gets_a_declared_rejection_and_nothing_else(parsers: dict[str, Parser], name: str) -> None:
    assert campaign.run(parsers[name], SEED, seconds=SECONDS).inputs


@pytest.mark.parametrize("name", CORPUS)
def test_what_once_broke_a_parser_breaks_it_no_more(parsers: dict[str, Parser], name: str) -> None:
    parser, raw = CORPUS[name]
    campaign.judge(parsers[parser], raw)


@pytest.mark.parametrize("name", [*(f"layer: {name}" for name in LAYERS), *(f"outputs: {name}" for name in OUTPUTS)])
def test_hostile_archives_are_refused_whole(parsers: dict[str, Parser], name: str) -> None:
    parser, raw = CORPUS[name]
    with pytest.raises(parsers[parser].declared):
        parsers[parser].read(raw)
