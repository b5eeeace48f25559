"""What a test runner's output says in the end."""

from collections.abc import Iterable
from dataclasses import dataclass

NAMES = 20
"""Failing tests that are named."""

_NAME_LENGTH = 200


@dataclass(frozen=True)
class Summary:
    """Results of one runner, or of several added up. `skipped` holds also what is still to do
    or was expected to fail. `unit` is what is counted: `test`, or `package` for plain go."""

    runner: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: tuple[str, ...] = ()
    unit: str = "test"

    @property
    def ran(self) -> int:
        """How many were not skipped."""
        return self.passed + self.failed

    @property
    def total(self) -> int:
        """How many there are."""
        return self.passed + self.failed + self.skipped


def named(names: Iterable[str]) -> tuple[str, ...]:
    """Give each name once, in order, shortened, at most `NAMES` of them."""
    once = dict.fromkeys(" ".join(name.split())[:_NAME_LENGTH] for name in names)
    return tuple(name for name in once if name)[:NAMES]


def added(summaries: Iterable[Summary]) -> Summary | None:
    """Add summaries up; None when there are none."""
    each = list(summaries)
    if not each:
        return None
    return Summary(
        runner=", ".join(dict.fromkeys(summary.runner for summary in each)),
        passed=sum(summary.passed for summary in each),
        failed=sum(summary.failed for summary in each),
        skipped=sum(summary.skipped for summary in each),
        failures=named(name for summary in each for name in summary.failures),
        unit=each[0].unit if len({summary.unit for summary in each}) == 1 else "test",
    )
