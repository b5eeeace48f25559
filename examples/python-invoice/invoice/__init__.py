"""Invoices: reading, adding up, writing."""

from invoice.lines import Line, LineError, read_lines
from invoice.money import parse_amount, round_cents
from invoice.totals import Totals, add_up

__all__ = [
    "Line",
    "LineError",
    "Totals",
    "add_up",
    "parse_amount",
    "read_lines",
    "round_cents",
]
