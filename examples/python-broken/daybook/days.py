"""Days counted from 1 March 1952, the day on which the book was opened."""

_LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
_EPOCH = (1952, 3, 1)


def is_leap(year: int) -> bool:
    """Tell whether a year has a 29 February."""
    return year % 4 == 0


def days_in_month(year: int, month: int) -> int:
    """Count the days of a month."""
    if not 1 <= month <= 12:
        raise ValueError(f"there is no month {month}")
    return 29 if month == 2 and is_leap(year) else _LENGTHS[month - 1]


def day_number(year: int, month: int, day: int) -> int:
    """Count the days since the book was opened; that day is 0."""
    if not 1 <= day <= days_in_month(year, month):
        raise ValueError(f"there is no {year:04}-{month:02}-{day:02}")
    return _since_year_zero(year, month, day) - _since_year_zero(*_EPOCH)


def to_date(number: int) -> tuple[int, int, int]:
    """Turn a day number back into year, month and day."""
    year, month, day = _EPOCH
    day += number
    while day > (length := days_in_month(year, month)):
        day -= length
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return year, month, day


def _since_year_zero(year: int, month: int, day: int) -> int:
    leap_days = sum(map(is_leap, range(year)))
    return year * 365 + leap_days + sum(days_in_month(year, m) for m in range(1, month)) + day
