"""How often small pieces of output are recorded: at once, then rarely while output flows."""

from itertools import pairwise

from director.activities.outputs import Pace


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def recorded(lines: list[float], took: float = 0.002, until: float = 10.0) -> list[float]:
    """When pieces are recorded of lines that are written at these moments, looked for every 40 ms;
    recording one takes so long."""
    clock = Clock()
    pace, times, behind = Pace(clock), [], iter([*sorted(lines), float("inf")])
    line = next(behind)
    while clock.now < until:
        begun = clock.now
        if pace.due():
            found = line <= clock.now
            if found:
                times.append(clock.now)
                clock.now += took
            while line <= begun:
                line = next(behind)
            pace.passed(begun, found=found)
        clock.now += 0.04
    return times


def test_a_line_that_comes_alone_is_recorded_at_the_next_look() -> None:
    lines = [n * 0.7 for n in range(14)]
    assert all(took - line < 0.05 for line, took in zip(lines, recorded(lines), strict=True))


def test_output_that_flows_is_recorded_six_times_a_second_at_most() -> None:
    times = recorded([n * 0.01 for n in range(1000)])
    assert times[0] == 0, "the first at once"
    assert times[2] < 0.25, "and those behind it soon"
    assert len(times) <= 65
    assert max(later - before for before, later in pairwise(times)) < 0.25


def test_recording_on_a_slow_disk_takes_a_fifth_of_the_time_and_no_line_waits_much_longer() -> None:
    times = recorded([n * 0.01 for n in range(1000)], took=0.1)
    assert len(times) * 0.1 <= 10.0 / 5
    assert max(later - before for before, later in pairwise(times)) < 0.7
