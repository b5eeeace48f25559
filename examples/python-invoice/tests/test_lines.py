import io
import random
from decimal import Decimal

import pytest

from invoice import LineError, read_lines

HEADER = "description,quantity,unit_price,tax_rate\n"


def test_a_line_is_read_with_quotes_and_thousands() -> None:
    (line,) = read_lines(io.StringIO(HEADER + '"Table, oak",2,"1,249.00",20\n'))
    assert line.description == "Table, oak"
    assert line.net == Decimal("2498.00")


def test_blank_lines_are_passed_over() -> None:
    assert len(list(read_lines(io.StringIO(HEADER + "\na,1,1,0\n\n")))) == 1


def test_the_net_price_of_a_line_is_rounded() -> None:
    (line,) = read_lines([HEADER, "Cheese,0.333,9.99,5\n"])
    assert line.net == Decimal("3.33")


def test_a_wrong_header_is_told() -> None:
    with pytest.raises(LineError, match="header"):
        list(read_lines(["what,how many\n"]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,1,1", "line 3: 3 columns"),
        ("a,one,1,0", "line 3: 'one' is not an amount"),
        ("a,1,1,101", "line 3: a tax rate of 101"),
        ("a,1,1,-1", "line 3: a tax rate of -1"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(row: str, message: str) -> None:
    with pytest.raises(LineError, match=message):
        list(read_lines([HEADER, "fine,1,1,0\n", row + "\n"]))


def test_a_megabyte_of_lines_is_read_whole() -> None:
    rng = random.Random(3)
    rows = [f"item {n},{rng.randint(1, 99)},{rng.randint(1, 9999) / 100},20" for n in range(50_000)]
    lines = list(read_lines(io.StringIO(HEADER + "\n".join(rows))))
    assert len(lines) == 50_000
    assert lines[-1].description == "item 49999"
