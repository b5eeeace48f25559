"""What a host refuses of what the API asks it for, told with the API's own code."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from director.domain.errors import DirectorError


@contextmanager
def refusals_told() -> Iterator[None]:
    """Let what the caller can mend end the activity at once: trying again by itself would not
    help."""
    try:
        yield
    except DirectorError as error:
        raise ApplicationError(
            error.message, error.details, type=error.code, non_retryable=True
        ) from error
