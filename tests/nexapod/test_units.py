"""Credits: one rounding rule, exact at every size."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexapod.units import AMOUNT_MAX, MICRO, credits_of, micro_of


@pytest.mark.parametrize(
    ("credits", "micro"),
    [
        ("0", 0),
        ("-0", 0),
        ("0E+999999", 0),
        ("1", 1_000_000),
        ("0.000001", 1),
        ("0.0000005", 0),  # half to even
        ("0.0000015", 2),
        ("0.0000025", 2),
        (
            "0.00000050000000000000000000000000000000000000000000000000000000000000000000000000000001",
            1,
        ),  # once, not twice
        ("0.00000149999999999999999999999999999999999999999999999999999999999999999999999999999999", 1),
        ("1e-999999", 0),
        ("1e-1000000", 0),
        ("9223372036854.775807", AMOUNT_MAX),
        ("9223372036854.7758074999", AMOUNT_MAX),
    ],
)
def test_a_decimal_becomes_micro_credits_half_to_even(credits: str, micro: int) -> None:
    assert micro_of(Decimal(credits)) == micro


@pytest.mark.parametrize(
    "credits",
    ["-1", "-0.0000001", "NaN", "sNaN", "Infinity", "-Infinity", "9223372036854.7758075", "1e13", "1e400", "1e999999"],
)
def test_what_cannot_be_counted_is_a_value_error_and_nothing_else(credits: str) -> None:
    with pytest.raises(ValueError, match=r"amount|count"):
        micro_of(Decimal(credits))


@settings(derandomize=True, max_examples=300)
@given(st.decimals(0, 10**12, allow_nan=False) | st.floats(0, 1e12).map(Decimal))
def test_rounding_is_exact_for_every_number(credits: Decimal) -> None:
    assert micro_of(credits) == round(Fraction(credits) * MICRO)  # Python rounds fractions half to even


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (1_200_000, "1.2"),
        (10_000_000, "10"),
        (-500_000, "-0.5"),
        (-1, "-0.000001"),
        (-2 * MICRO, "-2"),
    ],
)
def test_people_read_credits_without_needless_digits(micro: int, text: str) -> None:
    assert credits_of(micro) == text


@settings(derandomize=True)
@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX))
def test_what_people_read_is_what_is_meant(micro: int) -> None:
    text = credits_of(micro)
    assert Fraction(text) * MICRO == micro
    assert micro < 0 or micro_of(Decimal(text)) == micro
