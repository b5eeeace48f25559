from decimal import Decimal

import pytest

from invoice import parse_amount, round_cents


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12", "12"), ("1,249.50", "1249.50"), (" -3.005 ", "-3.005"), ("1,000,000", "1000000")],
)
def test_amounts_are_read(text: str, amount: str) -> None:
    assert parse_amount(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "12,5", "1.234,50", "1e3", "NaN", "$5", "1,24,000", "--1"])
def test_what_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        parse_amount(text)


@pytest.mark.parametrize(
    ("amount", "usual", "bankers"),
    [("2.345", "2.35", "2.34"), ("2.355", "2.36", "2.36"), ("-2.345", "-2.35", "-2.34")],
)
def test_half_a_cent_goes_up_or_to_the_even_one(amount: str, usual: str, bankers: str) -> None:
    assert round_cents(Decimal(amount)) == Decimal(usual)
    assert round_cents(Decimal(amount), bankers=True) == Decimal(bankers)


def test_rounding_agrees_with_whole_numbers_over_a_wide_range() -> None:
    for mills in range(-200_000, 200_000):
        sign = -1 if mills < 0 else 1
        cents = sign * ((abs(mills) + 5) // 10)
        assert round_cents(Decimal(mills) / 1000) == Decimal(cents) / 100
