"""What is asked of Director while its parts are killed: a seeded mix of every kind of run."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from chaos.ledger import FILES, mark
from chaos.observations import Command, Order

Json = dict[str, Any]
Act = Literal[
    "watch", "cancel", "pause", "approve", "refuse", "terminate", "cancel in Temporal", "reset"
]

_COMPLETED, _FAILED = frozenset({"completed"}), frozenset({"failed"})
_CANCELLED, _TIMED_OUT = frozenset({"cancelled"}), frozenset({"timed_out"})


@dataclass(frozen=True)
class Plan:
    """An order, what the client sends for it, and what the client does with it then."""

    order: Order
    at: float
    """Seconds after the beginning at which the client comes."""
    body: Json
    """Of `POST /workflows`, without session and department."""
    act: Act = "watch"
    after: float = 0.0
    """Seconds after the first sign of life at which the client acts."""


class _Draft:
    """Steps as they are drawn, with the commands that they will show."""

    def __init__(self, name: str, random: Random) -> None:
        self.name, self.random = name, random
        self.steps: list[Json] = []
        self.commands: list[Command] = []

    def marked(
        self,
        beats: int,
        *,
        least: int = 1,
        most: int = 1,
        ends: bool = True,
        counts: int = 0,
        then: str = "",
        **step: Any,
    ) -> str:
        """Add a step that marks what it does; gives its label."""
        label = f"{self.name}.{len(self.steps) + 1}"
        command = mark(label, beats, round(self.random.uniform(0.1, 0.4), 2))
        command += then.format(label=label)
        self.commands.append(Command(label, len(self.steps) + 1, least, most, ends, counts))
        self.steps.append({"type": "execute", "command": command, **step})
        return label

    def verify(self, criteria: Any, **step: Any) -> None:
        """Add a verify."""
        self.steps.append({"type": "verify", "criteria": criteria, **step})

    def endless(self, *, ends: bool = False, **step: Any) -> None:
        """Add a step that goes on until somebody ends it."""
        self.marked(300, least=0, most=1, ends=ends, **step)


_Drawn = tuple[frozenset[str], Act]


def _plain(draft: _Draft) -> _Drawn:
    label = draft.marked(draft.random.randint(1, 4))
    draft.verify({"type": "file", "path": "ledger", "contains": f"end {label} "})
    draft.marked(draft.random.randint(0, 2))
    return _COMPLETED, "watch"


def _long(draft: _Draft) -> _Drawn:
    draft.marked(draft.random.randint(15, 25))
    draft.marked(1)
    return _COMPLETED, "watch"


def _loud(draft: _Draft) -> _Drawn:
    """Output that is recorded piece by piece, over the deaths of those who record it."""
    parts, lines = draft.random.randint(4, 8), draft.random.randint(5_000, 20_000)
    part = f"seq $(((n - 1) * {lines} + 1)) $((n * {lines}))"
    count = f"; for n in $(seq {parts}); do {part}; sleep 0.4; done"
    draft.marked(0, counts=parts * lines, then=count)
    return _COMPLETED, "watch"


def _retrying(draft: _Draft) -> _Drawn:
    attempts = draft.random.randint(2, 3)
    again = {"maxAttempts": attempts, "backoff": 100}
    enough = f'; test "$(grep -c "^end {{label}} " ledger)" -ge {attempts}'
    draft.marked(1, least=attempts, most=attempts, then=enough, retry=again)
    draft.marked(1)
    return _COMPLETED, "watch"


def _judged(draft: _Draft) -> _Drawn:
    """A verify that fails once repeats from the step that it judges."""
    label = draft.marked(1, least=2, most=2)
    twice = f'test "$(grep -c "^end {label} " ledger)" -ge 2'
    criterion = {"type": "command", "command": twice}
    draft.verify(criterion, retry={"maxAttempts": 2, "backoff": 100})
    return _COMPLETED, "watch"


def _failing(draft: _Draft) -> _Drawn:
    draft.marked(draft.random.randint(1, 3), then="; exit 3")
    draft.marked(1, least=0, most=0)
    return _FAILED, "watch"


def _continuing(draft: _Draft) -> _Drawn:
    draft.marked(1, then="; exit 4", onFailure="continue")
    draft.marked(1)
    return _COMPLETED, "watch"


def _checkpointed(draft: _Draft) -> _Drawn:
    draft.marked(2)
    draft.steps.append({"type": "checkpoint", "name": "between"})
    draft.marked(1)
    return _COMPLETED, "watch"


def _too_slow(draft: _Draft) -> _Drawn:
    """A step whose own time-out ends it."""
    draft.endless(timeout=draft.random.randint(1000, 2500))
    return _FAILED, "watch"


def _overdue(draft: _Draft) -> _Drawn:
    """A run whose time is over."""
    draft.endless()
    return _TIMED_OUT, "watch"


def _cancelled(draft: _Draft) -> _Drawn:
    draft.marked(1, least=0, ends=False)
    draft.endless()
    return _CANCELLED, "cancel"


def _terminated(draft: _Draft) -> _Drawn:
    draft.endless()
    return _CANCELLED, "terminate"


def _cancelled_in_temporal(draft: _Draft) -> _Drawn:
    draft.endless()
    return _CANCELLED, "cancel in Temporal"


def _paused(draft: _Draft) -> _Drawn:
    for _ in range(3):
        draft.marked(draft.random.randint(2, 4))
    return _COMPLETED, "pause"


def _approved(draft: _Draft) -> _Drawn:
    draft.marked(1)
    draft.verify("exit code is 0 and approved")
    draft.marked(1)
    return _COMPLETED, "approve"


def _refused(draft: _Draft) -> _Drawn:
    draft.marked(1)
    draft.verify("approved")
    draft.marked(1, least=0, most=0)
    return _FAILED, "refuse"


def _reset(draft: _Draft) -> _Drawn:
    draft.marked(4, least=1, most=2)
    draft.marked(4, least=1, most=2)
    return _COMPLETED, "reset"


def _by_requirement(draft: _Draft) -> _Drawn:
    draft.marked(draft.random.randint(1, 3), requires=[SKILL])
    draft.marked(draft.random.randint(1, 3), requires=[SKILL])
    return _COMPLETED, "watch"


def _in_department(draft: _Draft) -> _Drawn:
    for _ in range(draft.random.randint(1, 2)):
        draft.marked(draft.random.randint(1, 4))
    return _COMPLETED, "watch"


def _short(draft: _Draft) -> _Drawn:
    draft.marked(draft.random.randint(1, 2))
    return _COMPLETED, "watch"


def _cancelled_in_department(draft: _Draft) -> _Drawn:
    draft.endless()
    return _CANCELLED, "cancel"


def _terminated_in_department(draft: _Draft) -> _Drawn:
    draft.endless()
    return _CANCELLED, "terminate"


_LAST = 0.85
"""Of the time; who comes later would only be served when all is over."""

SKILL = "skilled"
"""What some departments can, so that any of them may take a step."""

_DEPARTMENT = "in a department"

KINDS: dict[str, tuple[Callable[[_Draft], _Drawn], int]] = {
    "plain": (_plain, 20),
    "long": (_long, 10),
    "loud": (_loud, 5),
    "retrying": (_retrying, 7),
    "judged": (_judged, 5),
    "failing": (_failing, 5),
    "continuing": (_continuing, 3),
    "checkpointed": (_checkpointed, 5),
    "too slow": (_too_slow, 3),
    "overdue": (_overdue, 3),
    "cancelled": (_cancelled, 6),
    "terminated": (_terminated, 4),
    "cancelled in Temporal": (_cancelled_in_temporal, 3),
    "paused": (_paused, 6),
    "approved": (_approved, 4),
    "refused": (_refused, 2),
    "reset": (_reset, 3),
    "by requirement": (_by_requirement, 8),
    _DEPARTMENT: (_in_department, 20),
    f"cancelled {_DEPARTMENT}": (_cancelled_in_department, 3),
    f"terminated {_DEPARTMENT}": (_terminated_in_department, 2),
}
"""Each kind with its share."""


def _drawing(kind: str) -> tuple[Callable[[_Draft], _Drawn], bool]:
    if kind == "in line":
        return _short, True
    return KINDS[kind][0], _DEPARTMENT in kind


def drawn(seed: int, seconds: float, per_minute: float, departments: list[str]) -> list[Plan]:
    """The plans of all clients, by the time at which they come. Every kind is there once, where
    there are as many plans as kinds."""
    random = Random(f"{seed}: load")
    count = max(1, round(seconds * per_minute / 60))
    names = list(KINDS)
    random.shuffle(names)
    weights = [share for _, share in KINDS.values()]
    names += random.choices(list(KINDS), weights, k=max(0, count - len(names)))
    kinds = names[:count]
    random.shuffle(kinds)
    times = sorted(random.uniform(0, _LAST * seconds) for _ in kinds)
    return [
        _plan(f"c{number:04}", kind, at, random, departments)
        for number, (kind, at) in enumerate(zip(kinds, times, strict=True), 1)
    ]


def in_line(seed: int, count: int, every: float, department: str) -> list[Plan]:
    """Short runs of one step in one department, asked for one after the other."""
    random = Random(f"{seed}: line")
    names = [f"c{number:04}" for number in range(1, count + 1)]
    return [
        _plan(name, "in line", number * every, random, [department])
        for number, name in enumerate(names)
    ]


def _plan(name: str, kind: str, at: float, random: Random, departments: list[str]) -> Plan:
    draft = _Draft(name, random)
    draw, needs_department = _drawing(kind)
    ends, act = draw(draft)
    department = random.choice(departments) if needs_department else None
    body: Json = {"name": name, "steps": draft.steps, "workspace": {"files": FILES}}
    if kind == "overdue":
        body["config"] = {"timeout": random.randint(2000, 4000)}
    taken = sum(step["type"] == "checkpoint" for step in draft.steps)
    order = Order(name, kind, ends, draft.commands, department)
    order.checkpoints, order.again = taken, act == "reset"
    return Plan(order, at, body, act, random.uniform(0.0, 3.0))
