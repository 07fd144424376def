"""How faults read: short, printable, all of them, with the word that was probably meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexapod.errors import Exit
from nexapod.job_faults import SHOWN_VALUE_CHARS_MAX, DescriptorFaults, Fault, nearest, shown


def test_a_fault_reads_as_one_line() -> None:
    assert str(Fault("a.b", "7", "must be text", "seven")) == "a.b = 7: must be text (did you mean seven?)"
    assert str(Fault("", "", "is no table")) == "(document): is no table"


def test_all_faults_are_told_and_counted() -> None:
    one, two = Fault("a", "1", "bad"), Fault("b", "2", "worse")
    error = DescriptorFaults([one, two], subject="settings", result="nothing was started", remedy="mend it")
    assert error.what == "settings: 2 faults, nothing was started"
    assert error.why.splitlines() == [str(one), str(two)]
    assert (error.next_step, error.exit_code) == ("mend it", Exit.USAGE)
    assert "1 fault," in DescriptorFaults([one]).what


@settings(derandomize=True, max_examples=300)
@given(st.text() | st.binary() | st.integers() | st.lists(st.text()) | st.floats() | st.none())
def test_any_value_is_shown_short_and_printable(value: object) -> None:
    text = shown(value)
    assert len(text) <= SHOWN_VALUE_CHARS_MAX
    assert text.isprintable()


def test_values_too_odd_to_write_out_are_shown_by_their_type() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "(list)"
    assert shown(10**10_000) == "(int)"


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("tsaks", ["tasks", "tier"], "tasks"),
        ("IMAGE", ["image"], "image"),
        ("zzz", ["tasks"], ""),
        ("x" * 10**6, ["y"], ""),
    ],
)
def test_the_nearest_word_is_found(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == meant
