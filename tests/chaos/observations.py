"""What was ordered and what came of it, as somebody outside of Director sees it: plain data."""

from dataclasses import dataclass, field
from typing import NamedTuple

ENDED = frozenset({"completed", "failed", "cancelled", "timed_out"})


class Line(NamedTuple):
    """One line that a command wrote into the ledger of its workspace, and to its output."""

    verb: str
    """`begin`, `beat` or `end`."""
    label: str
    """Which command of which order; no two orders share one."""
    nonce: str
    """Which execution of it: each has its own."""
    at: float
    """Seconds since the epoch, by the clock that all of this machine share."""

    def __str__(self) -> str:
        return f"{self.verb} {self.label} {self.nonce} {round(self.at * 1e9)}"


@dataclass(frozen=True)
class Command:
    """A command that a run was ordered to perform, and how often that may be seen."""

    label: str
    step: int
    """Of the run, counted from 1."""
    least: int = 1
    most: int = 1
    ends: bool = True
    """Whether each execution must come to its own end; else it is ended from outside."""
    counts: int = 0
    """Besides, its output has the numbers from 1 to this one, each on a line of its own."""


@dataclass
class Order:
    """A run that a client asked for, and what may become of it."""

    name: str
    kind: str
    ends: frozenset[str]
    commands: list[Command]
    department: str | None = None
    """The one that was named; else the API tells which one took a step."""
    asked_at: float | None = None
    """When the client first asked to start it."""
    run_id: str | None = None
    """The run that the client was told of."""
    checkpoints: int = 0
    """How many are taken of it if it completes."""
    again: bool = False
    """Whether it is reset: then its steps run again, in a new workspace."""
    held: list[tuple[float, float]] = field(default_factory=list)
    """From when the run was seen as paused until the client asked to resume it."""


@dataclass(frozen=True)
class Run:
    """A run as the REST API tells it after all is over."""

    id: str
    name: str
    status: str
    created_at: float
    completed_at: float | None = None
    attempts: dict[int, int] = field(default_factory=dict)
    """How many attempts each step says it took, steps counted from 1."""
    outputs: dict[tuple[int, int], str] = field(default_factory=dict)
    """By step and attempt."""
    departments: dict[int, str] = field(default_factory=dict)
    """The names of the departments in which its steps ran."""
    checkpoints: list[str] = field(default_factory=list)
    """Ids of those that were taken of it."""


class Frame(NamedTuple):
    """An event as a listener got it."""

    id: int
    subject: str
    """The run or the session whose `seq` this is."""
    seq: int
    event: str
    status: str
    step: str = ""
    """`number.attempt` of the step that waits in line, begins or ends."""


@dataclass(frozen=True)
class Width:
    """A department that was given more work than its limit, when all was calm again."""

    department: str
    limit: int
    reached: int
    """Steps that were at work at one time, counted from inside."""
    active: int
    queued: int
    """What its metrics say after all has ended."""


class Recess(NamedTuple):
    """A department that was paused: from when that was answered until it was to go on again."""

    department: str
    begin: float
    end: float


@dataclass(frozen=True)
class Remains:
    """What was still there at the end, a line for each."""

    containers: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


@dataclass
class Observations:
    """Everything that the checker judges."""

    orders: list[Order] = field(default_factory=list)
    workflows: list[str] = field(default_factory=list)
    """The name of every workflow that the API lists; a client gives each name once."""
    runs: list[Run] = field(default_factory=list)
    ledgers: dict[str, list[str]] = field(default_factory=dict)
    """By run: the text of each file that was its ledger, in the order of their appearance."""
    heard: list[list[Frame]] = field(default_factory=list)
    """By listener, over all its connections."""
    limits: dict[str, int] = field(default_factory=dict)
    """`maxConcurrentTasks` by department."""
    widths: list[Width] = field(default_factory=list)
    recesses: list[Recess] = field(default_factory=list)
    remains: Remains = field(default_factory=Remains)
    faults: list[str] = field(default_factory=list)
    """Answers that no client should get, whatever was killed."""
