"""Entries in the order of their days."""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from daybook.days import day_number, to_date


@dataclass(frozen=True, order=True)
class Entry:
    """What happened on a day."""

    day: int
    text: str

    def __str__(self) -> str:
        year, month, day = to_date(self.day)
        return f"{year:04}-{month:02}-{day:02}  {self.text}"


@dataclass
class Book:
    """A day book."""

    entries: list[Entry] = field(default_factory=list)

    def write(self, date: str, text: str) -> Entry:
        """Enter a text on a date such as `1999-12-31`."""
        year, month, day = map(int, date.split("-"))
        entry = Entry(day_number(year, month, day), text)
        insort(self.entries, entry)
        return entry

    def between(self, first: str, last: str) -> Iterator[Entry]:
        """Give the entries from one date to another, both included."""
        low, high = (day_number(*map(int, date.split("-"))) for date in (first, last))
        return (entry for entry in self.entries if low <= entry.day <= high)
