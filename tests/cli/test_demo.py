"""The demonstration shows what happens, judges it, and leaves nothing behind."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from rich.console import Console

from director.cli.examples import EXAMPLES, FOLDER, pack
from director.cli.results import Place, Result, print_end, print_results, read_back, up_command
from director.cli.screens import LiveScreen, PlainScreen, block, change_line, screen_on
from director.cli.show import RunShow, Tail, cleaned
from director.cli.tour import Frames
from director.domain.runs import RunStatus, StepStatus

GOOD, _, BROKEN = EXAMPLES
STEPS = [
    {"type": "execute", "command": "npm test"},
    {"type": "verify", "criteria": "tests pass"},
    {"type": "checkpoint", "name": "tested"},
]


def frame(status="running", current=None, ended=None, run_id="run_1", second=9):
    data = {"runId": run_id, "status": status, "currentStep": current}
    if ended:
        data["endedStep"] = ended
    timestamp = f"2023-06-30T12:00:{second:02}.500Z"
    return {"type": "workflow_progress", "timestamp": timestamp, "data": data}


def told(index, status, second=1):
    start = f"2023-06-30T12:00:{second:02}.000Z"
    return {"index": index, "type": STEPS[index]["type"], "status": status, "startTime": start}


def run_show():
    return RunShow("words", "run_1", STEPS)


def console(width=80):
    return Console(file=io.StringIO(), width=width, markup=False, highlight=False)


def text_of(target):
    return target.file.getvalue()


def result(example, status="completed", code=None, counts=None):
    """How a run could have ended, as the API tells it."""
    run = RunShow(example.name, "run_1", STEPS)
    ended = [
        {**told(0, "completed"), "endTime": "2023-06-30T12:00:03.000Z", "result": {}},
        {
            **told(1, "failed" if code else "completed", 3),
            "endTime": "2023-06-30T12:00:04.000Z",
            "result": {"message": "what was found", "counts": counts},
        },
        {
            **told(2, "skipped" if code else "completed", 4),
            "endTime": None if code else "2023-06-30T12:00:05.000Z",
            "result": None if code else {"checkpointId": "ckp_1", "files": 3, "bytes": 42},
        },
    ]
    view = {
        "workflowId": "wf_1",
        "runId": "run_1",
        "status": status,
        "steps": ended,
        "result": {"success": status == "completed"},
        "error": {"code": code, "message": "1 of 2 tests failed: test_a"} if code else None,
        "temporal": {"workflowId": "run_1", "runId": "execution-1"},
    }
    run.confirm(view)
    return Result(example, run, view)


PASSED = {"total": 2, "passed": 2, "failed": 0, "skipped": 0}
FAILED = {"total": 2, "passed": 1, "failed": 1, "skipped": 0}


def test_a_frame_moves_the_steps_that_it_tells_of():
    run = run_show()
    run.apply(frame(current=told(0, "running")))
    assert run.running is run.steps[0]
    changes = run.apply(frame(current=told(1, "running", 9), ended=told(0, "completed")))
    assert [(change.step.id, change.status) for change in changes] == [
        ("step-1", "completed"),
        ("step-2", "running"),
    ]
    assert run.steps[0].seconds(run.steps[0].ended) == 8.5


def test_the_same_news_told_twice_is_one_change():
    run = run_show()
    assert len(run.apply(frame(current=told(0, "running")))) == 2
    assert run.apply(frame(current=told(0, "running"))) == []


def test_a_frame_of_another_run_changes_nothing():
    run = run_show()
    assert run.apply(frame(current=told(0, "running"), run_id="run_2")) == []
    assert run.apply({"type": "session_update", "data": {"sessionId": "ses_1"}}) == []
    assert run.status is RunStatus.QUEUED


def test_what_the_api_says_in_the_end_replaces_what_frames_told():
    run = result(BROKEN, "failed", "VERIFICATION_FAILED", FAILED).run
    assert [step.status for step in run.steps] == [
        StepStatus.COMPLETED,
        StepStatus.FAILED,
        StepStatus.SKIPPED,
    ]
    assert run.steps[2].seconds(run.steps[1].ended) is not None


def test_the_end_of_a_command_is_held_until_its_output_is_there():
    frames = Frames()
    first, last = frame(ended=told(0, "completed")), frame("completed")
    frames.add(first)
    frames.add(last)
    assert list(frames.due(more_output=True)) == []
    assert list(frames.due(more_output=False)) == [first, last]


def test_a_frame_that_ends_no_command_waits_for_nothing():
    frames = Frames()
    frames.add(frame(ended=told(1, "completed")))
    assert len(list(frames.due(more_output=True))) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_output_reads_the_same_however_it_is_cut(size):
    content = "über\x1b[31mrot\x1b[0m\r\n 10 %\r 99 %\rdone\nwithout end".encode()
    tail = Tail()
    lines = []
    for start in range(0, len(content), size):
        lines += tail.feed(content[start : start + size])
    assert [*lines, *tail.close()] == ["überrot", "done", "without end"]


def test_an_unfinished_line_is_shown_with_what_it_says_at_present():
    tail = Tail()
    tail.feed(b"one\ntwo\n 10 %\r 20 %\r")
    assert tail.last(2) == ["two", " 20 %"]


def test_a_line_that_never_ends_is_kept_only_in_part():
    tail = Tail()
    for _ in range(100):
        tail.feed(b"x" * 10_000)
    assert len(tail.last(1)[0]) < 100_000
    tail.feed(b"\rnew\n")
    assert tail.last(1) == ["new"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[2J\x1b[Hclean", "clean"),
        ("\x1b]0;title\x07text", "text"),
        ("bell\x07 null\x00", "bell null"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x9b31mred", "31mred"),
        ("a\tb", "a       b"),
    ],
)
def test_output_can_neither_move_the_cursor_nor_hide_what_it_says(line, shown):
    assert cleaned(line) == shown


def test_without_a_terminal_each_change_and_each_line_is_a_line_of_its_own():
    target = console(width=400)
    screen, run = screen_on(target), run_show()
    assert isinstance(screen, PlainScreen)
    screen.begin(run)
    screen.changed(run, run.apply(frame(current=told(0, "running"))))
    screen.wrote(run, run.tail.feed(b"[bold]one[/]\n\x1b[31mtwo\n"))
    screen.changed(run, run.apply(frame(ended=told(0, "completed"), current=told(1, "running"))))
    assert text_of(target).splitlines() == [
        "words: run run_1 queued",
        "words: step-1 execute running: npm test",
        "words: run running",
        "words: | [bold]one[/]",
        "words: | two",
        "words: step-1 execute completed (8.5 s)",
        "words: step-2 verify running: tests pass",
    ]


def test_the_change_of_a_run_is_told_without_a_step():
    (change,) = run_show().apply(frame("completed"))
    assert change_line(change) == "run completed"


@pytest.mark.parametrize("width", [200, 78, 30, 10, 3, 1])
def test_the_block_fits_into_terminals_of_any_width(width):
    run = run_show()
    run.apply(frame(current=told(0, "running")))
    run.tail.feed(("x" * 500 + "\n" + "字" * 100 + "\n[red]\n").encode() * 10)
    target = console(width)
    target.print(block(run, width))
    lines = text_of(target).splitlines()
    assert len(lines) <= 12
    assert all(len(line) <= width for line in lines)


def test_on_a_terminal_the_block_is_gone_after_the_run():
    target = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    screen, run = LiveScreen(target), run_show()
    screen.begin(run)
    run.apply(frame(current=told(0, "running")))
    screen.tick(run)
    screen.end()
    drawn = text_of(target)
    assert "npm test" in drawn
    assert drawn.rstrip().endswith("\x1b[2K"), "the last thing written clears a line"


def test_a_good_project_is_as_meant_when_it_passes():
    assert result(GOOD, counts=PASSED).as_meant
    assert not result(GOOD, "failed", "VERIFICATION_FAILED", FAILED).as_meant


@pytest.mark.parametrize(
    ("status", "code", "counts", "as_meant"),
    [
        ("failed", "VERIFICATION_FAILED", FAILED, True),
        ("failed", "VERIFICATION_FAILED", None, False),
        ("failed", "SANDBOX_FAILED", None, False),
        ("completed", None, PASSED, False),
    ],
)
def test_a_broken_project_is_as_meant_only_when_one_of_its_tests_failed(
    status, code, counts, as_meant
):
    ended = result(BROKEN, status, code, counts)
    target = console()
    print_end(target, ended, with_output=True)
    assert ended.as_meant is as_meant
    assert ("Not as meant" in text_of(target)) is not as_meant


def test_a_failed_run_shows_its_failing_test_and_the_end_of_its_output():
    ended = result(BROKEN, "failed", "VERIFICATION_FAILED", FAILED)
    ended.run.tail.feed(b"assert 1 == 2\n")
    target = console()
    print_end(target, ended, with_output=True)
    assert "1 of 2 tests failed: test_a" in text_of(target)
    assert "| assert 1 == 2" in text_of(target)


def place(home="/home/of/data", **more):
    names = {"api": "http://here:1", "ui": "http://ui:2", "namespace": "director", "kept": True}
    return Place(**(names | more), home=Path(home))


def test_the_results_name_counts_checkpoints_and_this_very_execution():
    good, broken = (
        result(GOOD, counts=PASSED),
        result(BROKEN, "failed", "VERIFICATION_FAILED", FAILED),
    )
    target = console()
    print_results(target, [good, broken], place())
    text = text_of(target)
    assert re.search(r"node-wordcount +completed +2 +0 +2 +4\.0 s +run_1", text)
    assert re.search(r"python-broken +failed +1 +1 +2 ", text)
    assert "ckp_1 (3 files, 42 bytes)" in text
    assert "http://ui:2/namespaces/director/workflows/run_1/execution-1/history" in text


def test_the_next_command_serves_from_the_same_home():
    assert up_command({}) == "make up"
    environ = {"DIRECTOR_HOME": "/a b", "DIRECTOR_PORT": "9000", "HOME": "/root"}
    assert up_command(environ) == "DIRECTOR_HOME='/a b' DIRECTOR_PORT=9000 make up"


def test_the_lines_to_paste_log_in_and_ask_for_the_run(tmp_path):
    home = tmp_path / "a home"
    home.mkdir()
    (home / "admin-password").write_text("s3cret-word\n")
    lines = read_back(result(GOOD).view, place(str(home)), {})
    asked = tmp_path / "asked"
    stand_in = f"""curl() {{ printf '%s\\n' "$@" >> {asked}; echo '{{"data": {{"token": "T"}}}}'; }}
    """
    subprocess.run(["sh", "-euc", stand_in + lines], check=True, capture_output=True)
    words = asked.read_text().splitlines()
    (login,) = [json.loads(word) for word in words if word.startswith("{")]
    assert login == {"username": "admin", "password": "s3cret-word"}
    assert words[-3:] == [
        "http://here:1/v1/workflows/wf_1/runs/run_1",
        "-H",
        "Authorization: Bearer T",
    ]


def test_an_archive_holds_the_project_without_what_its_tools_made(tmp_path):
    for name in ("a/b.py", "a/__pycache__/b.pyc", "node_modules/c.js", ".git/HEAD", ".npmrc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path))) as tar:
        assert {member.name for member in tar if member.isfile()} == {"a/b.py", ".npmrc"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_is_there(example):
    assert (FOLDER / example.name / "README.md").is_file()


class Demo:
    """`director demo` as a process of its own, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.lines = home, []
        environ = {name: value for name, value in os.environ.items() if "DIRECTOR_" not in name}
        kept = {name: os.environ[name] for name in ("DIRECTOR_TEST_RUN",) if name in os.environ}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("director"), "demo"],
            env={**environ, **kept, "DIRECTOR_HOME": str(home), "DIRECTOR_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, text: str) -> bool:
        """Read until a line has this text; False where none has."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return True
        return False

    def end(self) -> tuple[int, str]:
        """Exit code and everything that was written."""
        self.lines.extend(line.rstrip() for line in self.process.stdout)
        return self.process.wait(), "\n".join(self.lines)

    def left(self) -> list[str]:
        """What is still there of it: containers, mounts, processes, sandboxes."""
        return [*self._containers(), *self._mounts(), *self._processes(), *self._sandboxes()]

    def _containers(self) -> list[str]:
        client = docker.from_env()
        installation = (self.home / "installation").read_text().strip()
        label = {"label": f"director.installation={installation}"}
        found = client.api.containers(all=True, filters=label)
        client.close()
        return [container["Names"][0] for container in found]

    def _mounts(self) -> list[str]:
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [place for place in places if place.startswith(str(self.home))]

    def _processes(self) -> list[str]:
        mark = f"DIRECTOR_HOME={self.home}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(str(environ))
            except OSError:
                continue
        return found

    def _sandboxes(self) -> list[str]:
        return [str(each) for each in (self.home / "sandboxes").iterdir() if each.is_dir()]


@pytest.fixture
def running_demo(tmp_path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "home")
    yield demo
    demo.process.terminate()
    demo.end()
    demo.process.stdout.close()


@pytest.mark.docker
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_demo_runs_the_examples_for_real_and_leaves_nothing(running_demo):
    code, text = running_demo.end()
    assert code == 0, text
    assert "node-wordcount: step-2 verify completed" in text
    assert "python-invoice: run completed" in text
    assert "python-broken: run failed" in text
    assert "test_a_century_is_a_leap_year_only_every_fourth_time" in text
    assert len(re.findall(r"/workflows/run_\w+/[0-9a-f-]{36}/history", text)) == 3
    assert len(re.findall(r": ckp_\w+ \(\d+ files", text)) == 2
    assert running_demo.left() == []


@pytest.mark.docker
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_an_interrupted_demo_cancels_its_run_and_leaves_nothing(running_demo):
    assert running_demo.wait_for("step-1 execute running")
    running_demo.process.send_signal(signal.SIGINT)
    code, text = running_demo.end()
    assert code == 130, text
    assert "Cancelling run_" in text
    assert running_demo.left() == []
