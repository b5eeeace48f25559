"""The checker reports each thing that must not be, and nothing where all is well."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from chaos.checker import check
from chaos.ledger import HEAD
from chaos.observations import (
    Command,
    Frame,
    Line,
    Observations,
    Order,
    Recess,
    Remains,
    Run,
    Width,
)

SECONDS = {"one": (10.0, 12.0), "two": (13.0, 15.0)}
"""From when to when the commands of the two runs are at work."""


def written(name: str, *verbs: str, nonce: str = "n1") -> list[Line]:
    begin, end = SECONDS[name]
    at = {"begin": begin, "beat": begin + 1, "end": end}
    return [Line(verb, f"{name}.1", f"{nonce}-{name}", at[verb]) for verb in verbs]


def text(lines: list[Line]) -> str:
    return "".join(f"{line}\n" for line in lines)


def told(name: str, first_id: int) -> list[Frame]:
    events = [
        ("workflow.queued", "queued", ""),
        ("step.queued", "queued", "1.1"),
        ("step.started", "running", "1.1"),
        ("step.ended", "running", "1.1"),
        ("workflow.completed", "completed", ""),
    ]
    return [
        Frame(first_id + n, f"run_{name}", n + 1, event, status, step)
        for n, (event, status, step) in enumerate(events)
    ]


@pytest.fixture
def seen() -> Observations:
    """Two runs in a department with one slot, one after the other, and two listeners."""
    whole = {name: written(name, "begin", "beat", "end") for name in SECONDS}
    frames = [*told("one", 1), *told("two", 11)]
    return Observations(
        orders=[
            Order(name, "plain", frozenset({"completed"}), [Command(f"{name}.1", 1)], "narrow")
            for name in SECONDS
        ],
        workflows=["one", "two", "narrow-0", "narrow-1"],
        runs=[
            Run(
                id=f"run_{name}",
                name=name,
                status="completed",
                created_at=9.0,
                completed_at=SECONDS[name][1] + 0.5,
                attempts={1: 1},
                outputs={(1, 1): text(lines)},
            )
            for name, lines in whole.items()
        ],
        ledgers={f"run_{name}": [HEAD + text(lines)] for name, lines in whole.items()},
        heard=[list(frames), list(frames)],
        limits={"narrow": 1},
        widths=[Width("narrow", 1, 1, 0, 0)],
    )


@pytest.fixture(autouse=True)
def _known(seen: Observations) -> None:
    for order in seen.orders:
        order.run_id = f"run_{order.name}"


def found(seen: Observations, **options: bool) -> dict[str, int]:
    return {figure.name: figure.value for figure in check(seen, **options) if figure.value}


def test_where_all_is_well_every_figure_is_zero(seen: Observations) -> None:
    assert found(seen) == {}
    assert len(check(seen)) >= 19


Harm = Callable[[Observations], None]


def harm(name: str, count: int = 1) -> Callable[[Harm], Harm]:
    """Name the one figure that a harm must show in, and how often."""

    def mark(function: Harm) -> Harm:
        HARMS.append(pytest.param(function, name, count, id=function.__name__.strip("_")))
        return function

    return mark


HARMS: list[object] = []


def change(seen: Observations, **fields: object) -> None:
    seen.runs[0] = replace(seen.runs[0], **fields)


def ledger(seen: Observations, *lines: Line, name: str = "one") -> None:
    """Let another file have been the first run's ledger; its output is the same."""
    seen.ledgers[f"run_{name}"] = [HEAD + text(list(lines))]


@harm("runs lost")
def _a_run_without_an_end(seen: Observations) -> None:
    change(seen, status="running", completed_at=None)


@harm("runs lost")
def _a_run_that_no_list_knows(seen: Observations) -> None:
    seen.runs.pop(0)


@harm("runs lost")
def _a_start_without_an_answer(seen: Observations) -> None:
    seen.orders.append(Order("three", "plain", frozenset({"completed"}), []))


@harm("runs with another end than ordered")
def _a_run_that_should_have_failed(seen: Observations) -> None:
    seen.orders[0].ends = frozenset({"failed"})


@harm("orders doubled")
def _a_second_run(seen: Observations) -> None:
    seen.runs.append(replace(seen.runs[0], id="run_other", status="completed", attempts={}))
    for frames in seen.heard:
        frames.append(Frame(30, "run_other", 1, "workflow.completed", "completed"))


@harm("orders doubled")
def _a_second_workflow(seen: Observations) -> None:
    seen.workflows.append("two")


@harm("commands run twice")
def _a_command_that_ran_twice(seen: Observations) -> None:
    late = written("one", "begin", "end", nonce="n2")
    again = [line._replace(at=line.at + 0.01) for line in late]
    seen.limits["narrow"] = 2
    seen.widths = [Width("narrow", 2, 2, 0, 0)]
    change(seen, attempts={1: 2}, outputs={**seen.runs[0].outputs, (1, 2): text(again)})
    for frames in seen.heard:
        frames[:] = [
            *frames[:4],
            Frame(5, "run_one", 5, "step.started", "running", "1.2"),
            Frame(6, "run_one", 6, "step.ended", "running", "1.2"),
            Frame(7, "run_one", 7, "workflow.completed", "completed"),
            *frames[5:],
        ]
    ledger(seen, *written("one", "begin", "beat", "end"), *again)


@harm("commands missing or not ended")
def _a_command_without_its_end(seen: Observations) -> None:
    left = written("one", "begin", "beat")
    ledger(seen, *left)
    change(seen, outputs={(1, 1): text(left)})


@harm("commands missing or not ended")
def _a_command_that_never_ran(seen: Observations) -> None:
    ledger(seen)
    change(seen, outputs={})


@harm("outputs that differ from what was written")
def _an_output_that_lacks_a_line(seen: Observations) -> None:
    change(seen, outputs={(1, 1): text(written("one", "begin", "end"))})


@harm("outputs that differ from what was written")
def _an_output_with_a_line_twice(seen: Observations) -> None:
    change(seen, outputs={(1, 1): text(written("one", "begin", "beat", "end", "end"))})


@harm("outputs that differ from what was written")
def _an_output_that_is_gone(seen: Observations) -> None:
    change(seen, outputs={})


@harm("outputs that differ from what was written")
def _an_output_that_has_a_piece_twice(seen: Observations) -> None:
    seen.orders[0].commands = [Command("one.1", 1, counts=4)]
    change(seen, outputs={(1, 1): seen.runs[0].outputs[1, 1] + "1\n2\n3\n2\n3\n4\n"})


@harm("outputs that differ from what was written")
def _an_output_that_lacks_its_last_piece(seen: Observations) -> None:
    seen.orders[0].commands = [Command("one.1", 1, counts=4)]
    change(seen, outputs={(1, 1): seen.runs[0].outputs[1, 1] + "1\n2\n3\n"})


@harm("lines lost from files", 2)
def _a_file_that_was_replaced_under_a_command(seen: Observations) -> None:
    all_lines = written("one", "begin", "beat", "end")
    seen.ledgers["run_one"] = [HEAD + text(all_lines[:2]), HEAD + text(all_lines[2:])]


@harm("signs of life after a run's end")
def _a_command_that_lives_on(seen: Observations) -> None:
    change(seen, completed_at=SECONDS["one"][1] - 0.1)


@harm("steps begun while paused")
def _a_step_that_begins_while_paused(seen: Observations) -> None:
    seen.orders[0].held.append((9.5, 11.5))


@harm("steps begun while paused")
def _a_step_that_begins_in_a_paused_department(seen: Observations) -> None:
    seen.recesses = [Recess("narrow", 11.5, 14.0)]


@harm("checkpoints missing or doubled")
def _a_checkpoint_that_is_missing(seen: Observations) -> None:
    seen.orders[0].checkpoints = 1


@harm("checkpoints missing or doubled")
def _a_checkpoint_that_was_taken_twice(seen: Observations) -> None:
    seen.orders[0].checkpoints = 1
    change(seen, checkpoints=["ckp_1", "ckp_2"])


@harm("events missing")
def _a_gap_for_one_listener(seen: Observations) -> None:
    seen.heard[0].pop(0)


@harm("events missing", 2)
def _an_end_that_one_listener_missed(seen: Observations) -> None:
    seen.heard[1].pop()


@harm("events missing", 2)
def _an_end_that_was_never_told(seen: Observations) -> None:
    for frames in seen.heard:
        frames.pop()


@harm("events missing", 2)
def _an_attempt_whose_end_was_never_told(seen: Observations) -> None:
    for frames in seen.heard:
        frames[3] = frames[3]._replace(event="workflow.progress", step="")


@harm("events doubled or out of order", 2)
def _a_frame_that_comes_again(seen: Observations) -> None:
    frame = seen.heard[0][0]
    seen.heard[0].insert(1, frame)


@harm("events doubled or out of order", 2)
def _a_step_that_is_told_to_end_twice(seen: Observations) -> None:
    for frames in seen.heard:
        frames[1] = frames[1]._replace(event="step.ended")


@harm("events doubled or out of order", 2)
def _a_run_that_is_told_to_end_twice(seen: Observations) -> None:
    for frames in seen.heard:
        frames[0] = frames[0]._replace(status="completed")


@harm("slots exceeded")
def _two_at_once_in_one_slot(seen: Observations) -> None:
    lines = [line._replace(at=line.at - 1.5) for line in written("two", "begin", "beat", "end")]
    ledger(seen, *lines, name="two")
    seen.runs[1] = replace(seen.runs[1], outputs={(1, 1): text(lines)})


@harm("slots exceeded")
def _too_many_at_once_in_the_calm(seen: Observations) -> None:
    seen.widths = [Width("narrow", 1, 2, 0, 0)]


@harm("slots lost")
def _a_slot_that_nobody_gets(seen: Observations) -> None:
    seen.widths = [Width("narrow", 1, 0, 0, 0)]


@harm("slots lost")
def _a_slot_that_is_held_by_nobody(seen: Observations) -> None:
    seen.widths = [Width("narrow", 1, 1, 1, 0)]


@harm("steps begun out of their order")
def _a_step_that_passes_one_before_it_in_line(seen: Observations) -> None:
    for frames in seen.heard:
        frames[:] = [*frames[5:7], *frames[:2], *frames[2:5], *frames[7:]]
        frames[:] = [frame._replace(id=number) for number, frame in enumerate(frames, 1)]


@harm("faults answered")
def _a_fault(seen: Observations) -> None:
    seen.faults.append("POST /workflows: Internal Server Error")


@harm("containers left")
def _a_container(seen: Observations) -> None:
    seen.remains = Remains(containers=["/director-sbx_1: Up 3 seconds"])


@harm("processes left")
def _a_process(seen: Observations) -> None:
    seen.remains = Remains(processes=["17: sleep 60"])


@harm("mounts left")
def _a_mount(seen: Observations) -> None:
    seen.remains = Remains(mounts=["/home/sandboxes/sbx_1/tmp"])


@harm("sandbox folders left")
def _a_folder(seen: Observations) -> None:
    seen.remains = Remains(folders=["/home/sandboxes/sbx_1"])


@pytest.mark.parametrize(("harmful", "name", "count"), HARMS)
def test_each_harm_is_reported_under_its_own_name(
    seen: Observations, harmful: Harm, name: str, count: int
) -> None:
    harmful(seen)
    assert found(seen) == {name: count}


def test_every_figure_has_a_harm_that_shows_in_it(seen: Observations) -> None:
    assert {figure.name for figure in check(seen)} == {param.values[1] for param in HARMS}


def test_doubles_are_allowed_where_a_client_has_no_keys(seen: Observations) -> None:
    seen.workflows.append("two")
    assert found(seen, doubles=False) == {}


def test_a_step_that_got_its_slot_before_may_begin_in_a_paused_department(
    seen: Observations,
) -> None:
    seen.recesses = [Recess("narrow", 9.5, 12.9)]
    assert found(seen) == {}


def test_an_output_that_counts_as_it_should_is_right(seen: Observations) -> None:
    seen.orders[0].commands = [Command("one.1", 1, counts=3)]
    change(seen, outputs={(1, 1): seen.runs[0].outputs[1, 1] + "1\n2\n3\n"})
    assert found(seen) == {}


def test_what_was_ended_from_outside_need_not_say_its_end(seen: Observations) -> None:
    seen.orders[0].commands = [Command("one.1", 1, least=0, most=1, ends=False)]
    ledger(seen, *written("one", "begin", "beat"))
    change(seen, outputs={(1, 1): text(written("one", "begin")) + "Terminated\n"})
    assert found(seen) == {}


def test_a_slot_may_be_taken_in_the_moment_in_which_it_is_freed(seen: Observations) -> None:
    lines = [line._replace(at=line.at - 1.0) for line in written("two", "begin", "beat", "end")]
    ledger(seen, *lines, name="two")
    seen.runs[1] = replace(seen.runs[1], outputs={(1, 1): text(lines)})
    assert found(seen) == {}


def test_a_step_that_began_and_found_no_room_may_begin_once_more_out_of_its_order(
    seen: Observations,
) -> None:
    for frames in seen.heard:
        first, second = frames[:5], frames[5:]
        more = [second[2]._replace(seq=4), second[2]._replace(seq=5, event="step.queued")]
        waits = [*second[:2], more[0]._replace(seq=3), more[1]._replace(seq=4)]
        later = [frame._replace(seq=frame.seq + 2) for frame in second[2:]]
        frames[:] = [*waits, *first, *later]
        frames[:] = [frame._replace(id=number) for number, frame in enumerate(frames, 1)]
    assert found(seen) == {}


def test_a_step_that_holds_a_slot_may_begin_after_one_behind_it_in_line(
    seen: Observations,
) -> None:
    """Its worker died between the grant and the begin; the other slot goes on."""
    seen.limits["narrow"], seen.widths = 2, [Width("narrow", 2, 2, 0, 0)]
    _a_step_that_passes_one_before_it_in_line(seen)
    assert found(seen) == {}
