"""Why a step or a run failed, as `error.code` tells it."""

from enum import StrEnum

from director.domain.base import Json


class FailureCode(StrEnum):
    """What went wrong in a run."""

    COMMAND_FAILED = "COMMAND_FAILED"
    VERIFICATION_FAILED = "VERIFICATION_FAILED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    INVALID_TEMPLATE = "INVALID_TEMPLATE"
    NO_DEPARTMENT = "NO_DEPARTMENT"
    SANDBOX_FAILED = "SANDBOX_FAILED"
    SANDBOX_LOST = "SANDBOX_LOST"
    HOST_LOST = "HOST_LOST"
    CANCELLED = "CANCELLED"
    TERMINATED = "TERMINATED"
    RUN_ENDED = "RUN_ENDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class StepFailure(Exception):  # noqa: N818 - a failed step is an outcome, no fault of ours
    """A step fails for a reason that its user can understand and mend."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def error(self) -> Json:
        """The failure as the API shows it."""
        return {"code": self.code, "message": self.message}
