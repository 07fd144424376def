"""Units of value: credits in micro-credits, and the one rule that turns a decimal into them.

Knows numbers. Must never know who owns them.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal

MICRO = 1_000_000  # micro-credits in one credit
AMOUNT_MAX = 2**63 - 1
_DIGITS_MAX = 19  # digits of AMOUNT_MAX; no countable number of credits has more before its point


def micro_of(credits: Decimal) -> int:
    """Micro-credits of a decimal number of credits, rounded half to even.

    Raises:
        ValueError: negative, not a number, or beyond 2^63-1 micro-credits.
    """
    if not credits.is_finite() or credits < 0:
        raise ValueError(f"{credits} is not an amount")
    if credits and credits.adjusted() > _DIGITS_MAX:  # before it is written out: 1e999999 is short
        raise ValueError(f"{credits} credits are more than the protocol can count")
    # With room for every digit the product is exact, so a value is rounded once and not twice.
    exact = Context(prec=len(credits.as_tuple().digits) + _DIGITS_MAX)
    micro = int(exact.multiply(credits, Decimal(MICRO)).to_integral_value(rounding=ROUND_HALF_EVEN))
    if micro > AMOUNT_MAX:
        raise ValueError(f"{credits} credits are more than the protocol can count")
    return micro


def credits_of(micro: int) -> str:
    """A person's spelling of micro-credits: '1.2', '0', '0.000001', '-0.5'."""
    whole, rest = divmod(abs(micro), MICRO)
    sign = "-" if micro < 0 else ""
    return f"{sign}{whole}" if rest == 0 else f"{sign}{whole}.{rest:06d}".rstrip("0")
