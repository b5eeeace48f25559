"""Adding up: tax is taken of the sum of each rate, so that rounding happens once per rate."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from invoice.lines import Line
from invoice.money import round_cents


@dataclass(frozen=True)
class Totals:
    """What an invoice comes to. `tax` is by rate, the highest first."""

    net: Decimal
    tax: dict[Decimal, Decimal]

    @property
    def gross(self) -> Decimal:
        """Everything to be paid."""
        return self.net + sum(self.tax.values(), Decimal(0))


def add_up(lines: Iterable[Line]) -> Totals:
    """Add up lines in any order."""
    nets: dict[Decimal, Decimal] = {}
    for line in lines:
        rate = line.tax_rate.normalize()
        nets[rate] = nets.get(rate, Decimal("0.00")) + line.net
    tax = {rate: round_cents(nets[rate] * rate / 100) for rate in sorted(nets, reverse=True)}
    return Totals(sum(nets.values(), Decimal("0.00")), tax)
