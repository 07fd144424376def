"""The judge is judged: each promise is broken on purpose, and it must notice."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Broken
from tests.fuzz.mutation import Form, Seed
from tests.fuzz.parsers import Parser


def parser(read: Callable[[bytes], Any], **more: Any) -> Parser:
    return Parser("planted", Form.BYTES, read, (ValueError,), 4096, lambda: (Seed(b"begin 1234 end"),), **more)


def undeclared(raw: bytes) -> int:
    if raw.endswith(b"d\xff"):
        raise KeyError(raw)
    return len(raw)


def slow(raw: bytes) -> None:
    start = process_time()
    while not raw.startswith(b"begin") and process_time() - start < campaign.MS_MAX / 500:
        pass


def endless(raw: bytes) -> None:
    for _ in count():
        if raw.startswith(b"begin"):
            return


def greedy(raw: bytes) -> int:
    return len(b"x" * (40_000_000 if raw.startswith(b"e") else 1))


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        (parser(undeclared), "raises KeyError"),
        (parser(slow), "takes .* ms"),
        (parser(endless), "takes more than"),
        (parser(greedy), "memory grew by"),
        (parser(len, sound=lambda raw, length: length > 3), "accepts what it does not write"),
        (parser(int), "refuses a valid seed"),
    ],
    ids=["undeclared", "slow", "endless", "greedy", "another spelling", "blind"],
)
def test_a_broken_promise_is_noticed(
    planted: Parser, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "STUCK_S", 0.5)
    with pytest.raises(Broken, match=says) as caught:
        campaign.run(planted, "0", inputs=200_000)
    saved = caught.value.save(tmp_path).read_text().splitlines()
    assert saved[0] == "planted"
    assert bytes.fromhex(saved[3]) == caught.value.raw


def test_a_sound_parser_is_counted() -> None:
    def even(raw: bytes) -> int:
        if len(raw) % 2:
            raise ValueError("odd")
        return len(raw)

    tally = campaign.run(parser(even), "0", inputs=5000)
    assert tally.inputs == 5000
    assert 1000 < tally.accepted < 4000
    assert str(tally).startswith("planted")
