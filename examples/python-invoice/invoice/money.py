"""Amounts of money as exact decimals."""

import re
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")
_AMOUNT = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def parse_amount(text: str) -> Decimal:
    """Read `1,249.50` or `-3`. Raises ValueError for anything that could be misread."""
    text = text.strip()
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount")
    return Decimal(text.replace(",", ""))


def round_cents(amount: Decimal, *, bankers: bool = False) -> Decimal:
    """Round to cents: half away from zero as tax offices do, or half to even as banks do."""
    return amount.quantize(CENT, ROUND_HALF_EVEN if bankers else ROUND_HALF_UP)
