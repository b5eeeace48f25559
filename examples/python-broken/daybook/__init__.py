"""A day book: dates as running day numbers, and entries kept by them."""

from daybook.book import Book, Entry
from daybook.days import day_number, days_in_month, is_leap, to_date

__all__ = ["Book", "Entry", "day_number", "days_in_month", "is_leap", "to_date"]
