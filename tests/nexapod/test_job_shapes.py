"""Shapes: exact numbers, bounded text, and every refusal with a reason."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexapod.job_shapes import (
    FAULTS_MAX,
    REFUSED,
    Either,
    Faults,
    Field,
    Flag,
    ListOf,
    Named,
    Plain,
    Record,
    RelativePath,
    Scaled,
    Shape,
    Text,
    Whole,
    clean_text,
    exact,
    refuse,
)

RECORD = Record((Field("a", Whole(1, 3), "a number", required=True), Field("b", ListOf(Flag(), 2), "flags")))
SHAPES: list[Shape] = [
    Text(5),
    Text(5, r"[a-z]+"),
    Text(5, choices=("x", "y"), aliases={"z": "x"}),
    RelativePath(),
    Whole(0, 10**18),
    Scaled(0, 100, 10**12),
    Flag(),
    Plain(),
    ListOf(Whole(0, 9), 3, unique=True, min_items=1),
    Named(Text(5, r"[a-z]+"), Whole(0, 9), 2),
    Either((Flag(), Whole(0, 9))),
    RECORD,
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abz", max_size=2) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_any_value_is_taken_or_refused_with_a_reason(shape: Shape) -> None:
    @settings(derandomize=True, deadline=None, max_examples=150)
    @given(ANYTHING)
    def taken_or_refused(value: Any) -> None:
        faults: Faults = []
        checked = shape.check("here", value, faults)
        assert (checked is REFUSED) == bool(faults)
        assert all(fault.path.startswith("here") and fault.reason and str(fault).isprintable() for fault in faults)
        if checked is not REFUSED and not isinstance(shape, Scaled | Named | Record | Either | ListOf):
            assert shape.check("", checked, []) == checked, "what was checked passes again"

    taken_or_refused()


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        (0.1, 10**11),
        (1e-12, 1),
        (0.30000000000000004, None),  # what 0.1 + 0.2 is: finer than can be counted, and never rounded
        (5e-324, None),
        (1e-13, None),
        (100, 10**14),
        (99.999999999999, 99_999_999_999_999),
        (100.00000000001, None),
        (float("nan"), None),
        (float("inf"), None),
        (-0.0, 0),
        (10**400, None),
        (True, None),
        ("1", None),
    ],
)
def test_decimals_are_counted_exactly_or_refused(value: object, counted: int | None) -> None:
    assert Scaled(0, 100, 10**12).check("", value, []) == (REFUSED if counted is None else counted)


@settings(derandomize=True)
@given(st.integers(0, 10**9 * 10**6))
def test_every_countable_decimal_survives_the_way_through_a_float(counted: int) -> None:
    """What a person types with up to 15 digits comes out as typed."""
    typed = Decimal(counted).scaleb(-6)
    assert Scaled(0, 10**9, 10**6).check("", float(typed), []) == counted


def test_only_finite_numbers_are_exact() -> None:
    assert exact(1.5) == Decimal("1.5")
    assert exact(2**256 - 1) == 2**256 - 1
    assert [exact(value) for value in (True, None, "1", 2**256, float("nan"), float("inf"))] == [None] * 6


@pytest.mark.parametrize("path", ["a", "a/b", "..a/b..", "a b/ü", ".x", "x/" * 15 + "x"])
def test_paths_that_stay_inside(path: str) -> None:
    assert RelativePath().check("", path, []) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/./b",
        "a/../b",
        "a\\b",
        "a\nb",
        "a\0b",
        "x/" * 16 + "x",
        "é" * 128,
        "x" * 1025,
    ],
)
def test_paths_that_climb_hide_or_grow(path: str) -> None:
    assert RelativePath().check("", path, []) is REFUSED


def test_texts_of_scripts_may_have_lines() -> None:
    assert clean_text("a\n\tb", lines=True)
    assert not clean_text("a\n\tb")
    assert not clean_text("a\x1bb", lines=True)
    assert not clean_text("a\rb", lines=True)


def test_a_pattern_matches_all_of_a_text() -> None:
    shape = Text(10, r"[a-z]+")
    assert shape.check("", "abc", []) == "abc"
    for text in ("abc\n", "abc ", "ABC", "abc1", "ａｂｃ"):
        assert shape.check("", text, []) is REFUSED


def test_a_table_is_normalised_to_sorted_pairs() -> None:
    assert Named(Text(5), Whole(0, 9), 3).check("", {"b": 2, "a": 1.0}, []) == (("a", 1), ("b", 2))


def test_of_a_faulty_table_the_sound_parts_are_kept() -> None:
    outer = Record((Field("in", RECORD, "inner"), Field("flag", Flag(), "flag")))
    assert outer.sound({"in": {"a": 2, "b": "no"}, "flag": 7, "odd": 1}) == {"in": {"a": 2}}
    assert outer.sound("no table") == {}


def test_faults_beyond_the_bound_are_dropped() -> None:
    faults: Faults = []
    for _ in range(FAULTS_MAX + 50):
        refuse(faults, "a", 1, "bad")
    assert len(faults) == FAULTS_MAX
