import random

import pytest

from daybook import Book


def test_entries_are_kept_in_the_order_of_days() -> None:
    book = Book()
    book.write("1999-12-31", "fireworks")
    book.write("1969-07-20", "moon")
    assert [str(entry) for entry in book.entries] == ["1969-07-20  moon", "1999-12-31  fireworks"]


def test_a_span_includes_both_of_its_days() -> None:
    book = Book()
    for day in range(1, 29):
        book.write(f"2001-02-{day}", f"day {day}")
    texts = [entry.text for entry in book.between("2001-02-03", "2001-02-05")]
    assert texts == ["day 3", "day 4", "day 5"]


def test_a_date_that_never_was_is_not_entered() -> None:
    book = Book()
    with pytest.raises(ValueError, match="2001-02-30"):
        book.write("2001-02-30", "nothing")
    assert book.entries == []


def test_thousands_of_entries_stay_in_order() -> None:
    rng = random.Random(9)
    book = Book()
    for _ in range(2_000):
        book.write(f"{rng.randint(1960, 2020)}-{rng.randint(1, 12)}-{rng.randint(1, 28)}", "x")
    days = [entry.day for entry in book.entries]
    assert len(days) == 2_000
    assert days == sorted(days)
