from datetime import date, timedelta

import pytest

from daybook import day_number, days_in_month, is_leap, to_date

OPENED = date(1952, 3, 1)


def test_the_book_was_opened_on_day_zero() -> None:
    assert day_number(1952, 3, 1) == 0
    assert to_date(0) == (1952, 3, 1)


def test_every_fourth_year_is_a_leap_year() -> None:
    assert [year for year in range(1990, 2006) if is_leap(year)] == [1992, 1996, 2000, 2004]


def test_a_century_is_a_leap_year_only_every_fourth_time() -> None:
    centuries = [1700, 1800, 1900, 2000, 2100, 2200, 2300, 2400]
    assert [year for year in centuries if is_leap(year)] == [2000, 2400]


def test_february_is_the_month_that_changes() -> None:
    assert days_in_month(1999, 2) == 28
    assert days_in_month(2000, 2) == 29
    assert sum(days_in_month(2001, month) for month in range(1, 13)) == 365


@pytest.mark.parametrize("wrong", [(1999, 2, 29), (2000, 13, 1), (2000, 0, 1), (2000, 4, 31)])
def test_a_day_that_never_was_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="there is no"):
        day_number(*wrong)


def test_day_numbers_agree_with_the_calendar_for_a_lifetime() -> None:
    for number in range(0, 25_000, 5):
        day = OPENED + timedelta(number)
        assert day_number(day.year, day.month, day.day) == number


def test_numbers_turn_back_into_dates() -> None:
    for number in range(0, 25_000, 25):
        day = OPENED + timedelta(number)
        assert to_date(number) == (day.year, day.month, day.day)
