"""A run as its own workflow remembers it: for the query, the UI's details and the result."""

from director.domain.runs import (
    Progress,
    ProgressSignal,
    RunInput,
    RunResult,
    RunState,
    RunStatus,
    StepOutcome,
    StepPlan,
    StepStatus,
)

_KEPT = 20
_MARKS = {
    StepStatus.COMPLETED: "✓",
    StepStatus.RUNNING: "▶",
    StepStatus.PENDING: "·",
    StepStatus.QUEUED: "…",
    StepStatus.WAITING: "?",
    StepStatus.SKIPPED: "–",
}


class RunStory:
    """Plain state, told by the workflow and read by its query; knows nothing of Temporal."""

    def __init__(self, run: RunInput) -> None:
        self._plans = run.plan.steps()
        self._statuses = {plan.index: StepStatus.PENDING for plan in self._plans}
        self._attempts = dict.fromkeys(self._statuses, 0)
        self._current: int | None = None
        self._progress: list[Progress] = []
        self._signals: list[str] = []
        self._numbered = 0
        self.status = RunStatus.QUEUED
        self.paused = run.paused

    def attempts(self, index: int) -> int:
        """How many attempts of a step have begun."""
        return self._attempts[index]

    def began(self, plan: StepPlan) -> int:
        """A step begins; gives the number of the attempt."""
        self.status = RunStatus.RUNNING
        self._current = plan.index
        self._attempts[plan.index] += 1
        self._statuses[plan.index] = StepStatus.RUNNING
        return self._attempts[plan.index]

    def holds(self, plan: StepPlan, status: StepStatus) -> None:
        """The step waits: in a line, or for an approval, and the run with it."""
        self._statuses[plan.index] = status
        if status is StepStatus.WAITING:
            self.status = RunStatus.WAITING

    def goes_on(self, plan: StepPlan) -> None:
        """The step that waited is asked for again."""
        self._statuses[plan.index] = StepStatus.RUNNING
        self.status = RunStatus.RUNNING

    def returned(self, index: int) -> None:
        """The run goes on from an earlier step again."""
        for later in self._statuses:
            if later >= index:
                self._statuses[later] = StepStatus.PENDING
        self._current = None

    def ended(self, plan: StepPlan, outcome: StepOutcome) -> None:
        """A step's attempt has its outcome."""
        self._statuses[plan.index] = outcome.status
        self._current = None

    def concluded(self, status: RunStatus) -> None:
        """The run has its end; what has not begun never will."""
        self.status, self._progress = status, []
        for index, step in self._statuses.items():
            if step is StepStatus.PENDING:
                self._statuses[index] = StepStatus.SKIPPED

    def progressed(self, signal: ProgressSignal) -> Progress:
        """Number a progress signal and keep it."""
        self._numbered += 1
        numbered = Progress(**signal.model_dump(by_alias=False), number=self._numbered)
        self._progress = [*self._progress, numbered][-_KEPT:]
        return numbered

    def signalled(self, name: str) -> None:
        """Remember that a signal came."""
        self._signals = [*self._signals, name][-_KEPT:]

    @property
    def at(self) -> StepPlan | None:
        """The step that has begun, or waits, and has no outcome."""
        return next((plan for plan in self._plans if plan.index == self._current), None)

    @property
    def completed(self) -> int:
        """How many steps are completed."""
        return sum(status is StepStatus.COMPLETED for status in self._statuses.values())

    def state(self) -> RunState:
        """What the query answers."""
        return RunState(
            status=self.status,
            step=self.completed,
            total_steps=len(self._plans),
            current_step=self._current,
            attempt=self._attempts.get(self._current, 0) if self._current is not None else 0,
            paused=self.paused,
            signals=self._signals,
            progress=self._progress,
        )

    def result(self, failed_step: int | None) -> RunResult:
        """What the workflow gives back."""
        return RunResult(
            status=self.status, completed_steps=self.completed, failed_step=failed_step
        )

    def details(self) -> str:
        """The story in Markdown, for the Temporal UI."""
        head = f"**{'paused' if self.paused else self.status}** · "
        head += f"{self.completed} of {len(self._plans)} steps\n"
        rows = [head, *(self._line(plan) for plan in self._plans), *self._latest()]
        return "\n".join(rows)

    def _line(self, plan: StepPlan) -> str:
        status, attempt = self._statuses[plan.index], self._attempts[plan.index]
        again = f", attempt {attempt}" if attempt > 1 else ""
        return f"- {_MARKS.get(status, '✗')} `{plan.id}` {plan.type}: {status}{again}"

    def _latest(self) -> list[str]:
        if not self._progress:
            return []
        last = self._progress[-1]
        said = last.message or (f"{last.percent:g} %" if last.percent is not None else "")
        elapsed = f"{last.elapsed_ms / 1000:.0f} s" if last.elapsed_ms is not None else ""
        return ["", f"progress {last.number}: {said or elapsed}"]
