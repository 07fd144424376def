"""Units of value: credits in micro-credits, and the one rule that turns a decimal into them."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

MICRO = 1_000_000  # micro-credits in one credit
AMOUNT_MAX = 2**63 - 1


def micro_of(credits: Decimal) -> int:
    """Micro-credits of a decimal number of credits, rounded half to even.

    Raises:
        ValueError: negative, not a number, or beyond 2^63-1 micro-credits.
    """
    if not credits.is_finite() or credits < 0:
        raise ValueError(f"{credits} is not an amount")
    with localcontext() as context:
        context.prec = 60  # exact for every float and every 30-digit decimal
        micro = int((credits * MICRO).to_integral_value(rounding=ROUND_HALF_EVEN))
    if micro > AMOUNT_MAX:
        raise ValueError(f"{credits} credits are more than the protocol can count")
    return micro


def credits_of(micro: int) -> str:
    """A person's spelling of micro-credits: '1.2', '0', '0.000001'."""
    whole, rest = divmod(micro, MICRO)
    return str(whole) if rest == 0 else f"{whole}.{rest:06d}".rstrip("0")
