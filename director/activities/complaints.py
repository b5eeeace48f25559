"""A failure that goes on is said once, and its end once."""

import structlog

log = structlog.get_logger()


class Complaint:
    """Says at the first failure what fails, and at the first success that it is over."""

    def __init__(self, fails: str, works: str) -> None:
        self._fails, self._works, self._failing = fails, works, False

    def fails(self, error: Exception) -> None:
        """It has failed."""
        if not self._failing:
            log.warning(self._fails, why=str(error) or type(error).__name__)
        self._failing = True

    def works(self) -> None:
        """It has worked."""
        if self._failing:
            log.info(self._works)
        self._failing = False
