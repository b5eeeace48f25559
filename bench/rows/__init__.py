"""The rows of the table: each module measures one kind of thing, with `measure(bench)`."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.bench import Bench
from bench.figures import Row
from bench.rows import (
    checkpoints,
    commands,
    memory,
    requests,
    sandboxes,
    scale,
    startup,
    streams,
    workflows,
)


@dataclass(frozen=True)
class Group:
    """Rows that are measured together."""

    measure: Callable[[Bench], list[Row]]
    in_quick: bool = True
    """Whether a look that everything works has them too: they need neither engine nor long."""


ROWS = {
    "workflow": Group(workflows.measure),
    "sandbox": Group(sandboxes.measure, in_quick=False),
    "commands": Group(commands.measure, in_quick=False),
    "checkpoints": Group(checkpoints.measure),
    "streams": Group(streams.measure),
    "requests": Group(requests.measure),
    "memory": Group(memory.measure, in_quick=False),
    "start-up": Group(startup.measure, in_quick=False),
    "scale": Group(scale.measure, in_quick=False),
}
