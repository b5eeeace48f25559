import random
from decimal import Decimal
from pathlib import Path

import pytest

from invoice import Line, add_up
from invoice.__main__ import main

EXAMPLE = Path(__file__).parent.parent / "examples.csv"


def line(net: str, rate: str) -> Line:
    return Line("x", Decimal(1), Decimal(net), Decimal(rate))


def generated(count: int) -> list[Line]:
    rng = random.Random(11)
    rates = ["0", "5", "5.0", "19", "20"]
    return [line(f"{rng.randint(-500, 99_999) / 100}", rng.choice(rates)) for _ in range(count)]


def test_nothing_comes_to_nothing() -> None:
    assert add_up([]).gross == 0


def test_tax_is_rounded_once_for_each_rate() -> None:
    totals = add_up([line("0.03", "20")] * 3)
    assert totals.tax == {Decimal(20): Decimal("0.02")}
    assert totals.gross == Decimal("0.11")


def test_rates_are_kept_apart_and_the_highest_comes_first() -> None:
    totals = add_up([line("100", "5"), line("100", "20"), line("50", "5.0"), line("9", "0")])
    assert list(totals.tax.items()) == [(20, 20), (5, Decimal("7.5")), (0, 0)]


def test_a_credit_note_is_taken_off() -> None:
    assert add_up([line("100", "20"), line("-25", "20")]).gross == Decimal("90.00")


def test_the_order_of_lines_does_not_matter() -> None:
    lines = generated(50_000)
    shuffled = random.Random(5).sample(lines, len(lines))
    assert add_up(lines) == add_up(shuffled)


def test_many_lines_add_up_to_the_same_cents_as_whole_numbers() -> None:
    lines = generated(100_000)
    totals = add_up(lines)
    assert int(totals.net * 100) == sum(int(each.unit_price * 100) for each in lines)
    assert totals.gross == totals.net + sum(totals.tax.values())


def test_the_example_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLE)]) == 0
    printed = capsys.readouterr().out
    assert "Net               1,692.80" in printed
    assert "Tax 20 %            321.76" in printed
    assert "To be paid        2,017.01" in printed


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing.csv"]) == 1
    assert "nothing.csv" in capsys.readouterr().err
