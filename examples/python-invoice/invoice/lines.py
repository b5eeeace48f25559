"""The lines of an invoice, read from CSV."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from invoice.money import parse_amount, round_cents

COLUMNS = ["description", "quantity", "unit_price", "tax_rate"]


class LineError(ValueError):
    """A line cannot be read; the message names its number."""


@dataclass(frozen=True)
class Line:
    """One position. `tax_rate` is in percent."""

    description: str
    quantity: Decimal
    unit_price: Decimal
    tax_rate: Decimal

    @property
    def net(self) -> Decimal:
        """The price without tax, rounded, as it is printed."""
        return round_cents(self.quantity * self.unit_price)


def read_lines(source: Iterable[str]) -> Iterator[Line]:
    """Read CSV with a header. Blank lines are passed over."""
    rows = csv.reader(source)
    header = [name.strip() for name in next(rows, [])]
    if header != COLUMNS:
        raise LineError(f"the header has to be {','.join(COLUMNS)}")
    for row in rows:
        if row:
            yield _line(row, rows.line_num)


def _line(row: list[str], number: int) -> Line:
    if len(row) != len(COLUMNS):
        raise LineError(f"line {number}: {len(row)} columns instead of {len(COLUMNS)}")
    description, *amounts = row
    try:
        quantity, price, rate = map(parse_amount, amounts)
    except ValueError as error:
        raise LineError(f"line {number}: {error}") from None
    if not 0 <= rate <= 100:
        raise LineError(f"line {number}: a tax rate of {rate} % cannot be")
    return Line(description.strip(), quantity, price, rate)
