"""When a rate of errors is high."""

import pytest

from director.domain.alerts import AlertRules


@pytest.mark.parametrize(
    ("ended", "failed", "high"),
    [(10, 5, True), (10, 4, False), (9, 9, False), (1000, 499, False), (1000, 500, True)],
)
def test_a_rate_needs_enough_that_ended_and_its_share_of_failures(ended, failed, high):
    assert AlertRules(error_rate=50, error_least=10).is_high(ended, failed) is high


def test_a_rule_that_is_off_never_fires():
    assert not AlertRules(error_rate=0).is_high(1000, 1000)
