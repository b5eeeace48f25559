"""How runs, steps and sandboxes move: tables, from which transitions, their tests and the docs
come."""

from collections.abc import Mapping
from typing import TypeVar

from director.domain.lifetimes import SandboxStatus
from director.domain.runs import RunStatus, StepStatus

Status = TypeVar("Status", RunStatus, StepStatus, SandboxStatus)

_R, _S, _B = RunStatus, StepStatus, SandboxStatus

_RUN_ENDS = {
    _R.COMPLETED: "all steps are done",
    _R.FAILED: "a step failed for good, or its execution ended in Temporal",
    _R.CANCELLED: "its processes are dead and its sandbox is gone",
    _R.TIMED_OUT: "`config.timeout` is over",
}
_STEP_ENDS = {
    _S.COMPLETED: "it did what it was to do",
    _S.FAILED: "its last attempt failed",
    _S.CANCELLED: "the run is cancelled",
    _S.TIMED_OUT: "its time, or the run's, is over",
}
_AGAIN = {
    _S.QUEUED: "another attempt waits for a slot",
    _S.RUNNING: "another attempt begins",
}
_OVER_AGAIN = {
    _S.PENDING: "the run goes on from an earlier step: its sandbox was lost, or it was reset",
    **_AGAIN,
}

RUN_MOVES: Mapping[RunStatus, Mapping[RunStatus, str]] = {
    _R.CREATED: {_R.QUEUED: "it is started"},
    _R.QUEUED: {
        _R.RUNNING: "its first step begins",
        _R.PAUSED: "it was paused before its first step",
        _R.CANCELLING: "it is to be cancelled",
        **_RUN_ENDS,
    },
    _R.RUNNING: {
        _R.PAUSED: "it was paused and its step has ended",
        _R.WAITING: "a step waits for an approval",
        _R.CANCELLING: "it is to be cancelled",
        **_RUN_ENDS,
    },
    _R.PAUSED: {
        _R.RUNNING: "it is resumed",
        _R.CANCELLING: "it is to be cancelled",
        **_RUN_ENDS,
    },
    _R.WAITING: {
        _R.RUNNING: "the approval is decided, or its time is over",
        _R.PAUSED: "it was paused and its decided step waits for a slot",
        _R.CANCELLING: "it is to be cancelled",
        **_RUN_ENDS,
    },
    _R.CANCELLING: _RUN_ENDS,
    _R.COMPLETED: {},
    _R.FAILED: {},
    _R.CANCELLED: {},
    _R.TIMED_OUT: {},
}
"""From each status of a run to each that may follow, and what makes it move."""

STEP_MOVES: Mapping[StepStatus, Mapping[StepStatus, str]] = {
    _S.PENDING: {
        _S.QUEUED: "its department has no free slot",
        _S.RUNNING: "it begins",
        _S.SKIPPED: "the run ended before it",
        _S.FAILED: "it could not be begun",
        _S.CANCELLED: "the run is cancelled",
        _S.TIMED_OUT: "the run's time is over",
    },
    _S.QUEUED: {_S.PENDING: _OVER_AGAIN[_S.PENDING], _S.RUNNING: "it has a slot", **_STEP_ENDS},
    _S.RUNNING: {
        _S.PENDING: _OVER_AGAIN[_S.PENDING],
        _S.QUEUED: "no host has room for its sandbox, or it was reset and there is no slot",
        _S.WAITING: "it waits for an approval, without a slot",
        _S.RETRYING: "this attempt failed and another follows",
        **_STEP_ENDS,
    },
    _S.RETRYING: {**_OVER_AGAIN, **_STEP_ENDS},
    _S.WAITING: {
        _S.PENDING: _OVER_AGAIN[_S.PENDING],
        _S.QUEUED: "the approval is decided, and its department has no free slot",
        _S.RUNNING: "the approval is decided, or its time is over",
        **_STEP_ENDS,
    },
    _S.COMPLETED: _OVER_AGAIN,
    _S.FAILED: _OVER_AGAIN,
    _S.TIMED_OUT: _OVER_AGAIN,
    _S.CANCELLED: {_S.TIMED_OUT: "what stopped it was the run's time", **_OVER_AGAIN},
    _S.SKIPPED: {},
}
"""From each status of a step to each that may follow. A step that has its outcome moves only by a
further attempt, and only while its run is open."""


_SANDBOX_ENDS = {
    _B.EXPIRED: "its `maxDuration` is over",
    _B.FAILED: "it could not be made, its host was given up, or its workflow was ended in Temporal",
    _B.DELETED: "it is deleted, and nothing is left of it",
}

SANDBOX_MOVES: Mapping[SandboxStatus, Mapping[SandboxStatus, str]] = {
    _B.CREATING: {
        _B.PULLING: "its image is not on its host",
        _B.RUNNING: "it is made",
        **_SANDBOX_ENDS,
    },
    _B.PULLING: {_B.RUNNING: "it is made", **_SANDBOX_ENDS},
    _B.RUNNING: {
        _B.PAUSED: "its processes are held",
        _B.STOPPING: "it is to be stopped",
        **_SANDBOX_ENDS,
    },
    _B.PAUSED: {
        _B.RUNNING: "its processes go on",
        _B.STOPPING: "it is to be stopped",
        **_SANDBOX_ENDS,
    },
    _B.STOPPING: {_B.STOPPED: "nothing runs in it any more", **_SANDBOX_ENDS},
    _B.STOPPED: _SANDBOX_ENDS,
    _B.EXPIRED: {},
    _B.FAILED: {},
    _B.DELETED: {},
}
"""From each status of a sandbox that somebody made to each that may follow."""


def advance_sandbox(current: SandboxStatus, wanted: SandboxStatus) -> SandboxStatus:
    """The status that follows: `wanted` where the move exists, else the present one."""
    return wanted if wanted in SANDBOX_MOVES[current] else current


def advance(current: RunStatus, wanted: RunStatus) -> RunStatus:
    """The status that follows: `wanted` where the move exists, else the present one.

    Nothing leaves an end, and a run that is being cancelled only ends."""
    return wanted if wanted in RUN_MOVES[current] else current


def advance_step(current: StepStatus, wanted: StepStatus) -> StepStatus:
    """The status of a step that follows. Raises ValueError where no such move exists: whoever
    writes a step has its row, and asks for nothing else."""
    if wanted is not current and wanted not in STEP_MOVES[current]:
        raise ValueError(f"a step that is {current} does not become {wanted}")
    return wanted


def page() -> str:
    """The tables in Markdown, as `docs/states.md` has them."""
    return (
        "# How runs, steps and sandboxes move\n\n"
        "Made from `director/domain/states.py` by `make docs`. The same tables are what the code"
        " moves by\nand what the tests walk through (`tests/domain/test_states.py`).\n\n"
        f"## A run\n\n{_table(RUN_MOVES)}\n"
        f"## A step\n\n{_table(STEP_MOVES)}\n"
        "`completed`, `failed`, `cancelled` and `timed_out` are the end of a step's attempt."
        " Another attempt\nmay follow only while the run is open; nothing leaves an end of a run.\n"
        f"\n## A sandbox that somebody made\n\n{_table(SANDBOX_MOVES)}"
    )


def _table(moves: Mapping[Status, Mapping[Status, str]]) -> str:
    rows = [(current, wanted, why) for current, to in moves.items() for wanted, why in to.items()]
    lines: list[str] = [f"| `{current}` | `{wanted}` | {why} |" for current, wanted, why in rows]
    return "\n".join(["| from | to | when |", "| --- | --- | --- |", *lines, ""])
