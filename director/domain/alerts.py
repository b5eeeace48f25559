"""When somebody is alerted: what must happen, and how often."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class AlertRule(StrEnum):
    """What somebody is alerted of."""

    HIGH_ERROR_RATE = "HIGH_ERROR_RATE"
    REPEATED_FAILED_LOGINS = "REPEATED_FAILED_LOGINS"
    REPEATED_BLOCKED_EGRESS = "REPEATED_BLOCKED_EGRESS"
    OOM_LOOP = "OOM_LOOP"


@dataclass(frozen=True)
class AlertRules:
    """What must happen within the window; each rule fires once in it for whom it is about. 0 turns
    a rule off."""

    window: timedelta = timedelta(minutes=5)
    failed_logins: int = 5
    """Of one user, or of all names together that are no user's."""
    blocked: int = 20
    """Refused packets that one sandbox has sent."""
    oom_kills: int = 3
    """Of one sandbox."""
    error_rate: int = 50
    """Per cent of an owner's runs and commands that failed or ran out of time."""
    error_least: int = 10
    """As many must have ended before there is a rate."""

    def is_high(self, ended: int, failed: int) -> bool:
        """Whether so many failures of so many are too many."""
        if not self.error_rate or ended < self.error_least:
            return False
        return 100 * failed >= self.error_rate * ended
