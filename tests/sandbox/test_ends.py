"""How commands end that do not end by themselves, and who dies with them."""

import pytest
from support.waiting import until

from director.domain.sandboxes import Cause
from director.sandbox.docker import DockerRuntime

pytestmark = pytest.mark.docker


def test_a_time_out_kills_the_whole_process_group(run, processes, sandbox):
    outcome = run(sandbox, "sleep 71 & sh -c 'sleep 72' & sleep 73", timeout_ms=300)
    assert outcome.cause is Cause.TIMEOUT
    assert outcome.code != 0
    assert not [line for line in processes(sandbox) if "sleep" in line]


def test_a_time_out_kills_children_that_left_the_group(run, processes, sandbox):
    outcome = run(
        sandbox, "setsid sleep 71 & setsid sh -c 'setsid sleep 72' & sleep 73", timeout_ms=300
    )
    assert outcome.cause is Cause.TIMEOUT
    assert not [line for line in processes(sandbox) if "sleep" in line]


def test_a_command_may_clean_up_when_its_time_is_over(run, sandbox):
    script = "trap 'echo cleaned; exit 5' TERM; while :; do sleep 0.01; done"
    outcome = run(sandbox, script, timeout_ms=300)
    assert (outcome.cause, outcome.code, outcome.stdout) == (Cause.TIMEOUT, 5, b"cleaned\n")


def test_a_child_may_clean_up_after_its_parent_died_of_the_time_out(run, sandbox):
    child = "trap 'sleep 0.1; echo cleaned; exit' TERM; while :; do sleep 0.01; done"
    outcome = run(sandbox, f'sh -c "{child}" & wait', timeout_ms=300)
    assert (outcome.cause, outcome.stdout) == (Cause.TIMEOUT, b"cleaned\n")


def test_a_command_that_ignores_term_is_killed(run, processes, sandbox):
    script = "trap 'echo asked' TERM; while :; do sleep 0.01; done"
    outcome = run(sandbox, script, timeout_ms=200)
    assert (outcome.cause, outcome.code, outcome.stdout) == (Cause.TIMEOUT, 137, b"asked\n")
    assert not [line for line in processes(sandbox) if "while" in line]


def test_a_kill_ends_the_command_and_all_it_started(start, ended, processes, sandbox):
    execution = start(sandbox, "setsid sleep 71 & sleep 72 & echo up; sleep 73")
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    execution.kill()
    execution.kill()
    assert (ended(execution).cause, ended(execution).code) == (Cause.KILLED, 137)
    assert not [line for line in processes(sandbox) if "sleep" in line]


def test_a_kill_right_after_the_start_is_not_lost(start, ended, sandbox):
    for _ in range(20):
        execution = start(sandbox, ["sleep", "70"])
        execution.kill()
        assert ended(execution).cause is Cause.KILLED


def test_a_kill_after_the_end_kills_what_was_left_behind(start, ended, processes, sandbox):
    execution = start(sandbox, "sleep 71 >/dev/null 2>&1 & setsid sleep 72 & echo ok")
    assert ended(execution).cause is Cause.EXIT
    execution.kill()
    until(lambda: not [p for p in processes(sandbox) if "sleep" in p], "both are dead")
    assert execution.wait(0).cause is Cause.EXIT


def test_a_command_without_memory_ends_with_oom(runtime, make, run):
    sandbox = make(memory_mib=32)
    outcome = run(sandbox, ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"])
    assert (outcome.cause, outcome.code) == (Cause.OOM, 137)
    assert run(sandbox, "exit 0").code == 0
    runtime.remove(sandbox)


def test_a_command_that_outlives_its_child_but_fails_for_want_of_memory_ends_with_oom(
    runtime, make, run
):
    sandbox = make(memory_mib=32)
    outcome = run(sandbox, "dd if=/dev/zero of=/dev/null bs=64M count=1 || exit 3")
    assert (outcome.cause, outcome.code) == (Cause.OOM, 3)
    runtime.remove(sandbox)


def test_a_command_that_does_without_a_killed_child_is_no_oom(runtime, make, run):
    sandbox = make(memory_mib=32)
    outcome = run(sandbox, "dd if=/dev/zero of=/dev/null bs=64M count=1 || true")
    assert (outcome.cause, outcome.code) == (Cause.EXIT, 0)
    runtime.remove(sandbox)


def test_a_kill_of_itself_is_no_oom(run, shared):
    assert run(shared, "kill -9 $$").cause is Cause.EXIT


def test_a_command_that_forks_without_end_cannot_stop_the_supervisor(runtime, make, run):
    sandbox = make(max_processes=20)
    outcome = run(sandbox, "for n in $(seq 300); do sleep 70 & done; echo all", timeout_ms=500)
    assert b"all" not in outcome.stdout
    assert run(sandbox, "exit 7").code == 7
    runtime.remove(sandbox)


def test_a_command_whose_container_is_removed_is_lost(engine, start, ended, sandbox):
    execution = start(sandbox, "echo up; sleep 70")
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    engine.api.remove_container(f"director-{sandbox}", force=True)
    outcome = ended(execution)
    assert (outcome.cause, outcome.stdout) == (Cause.LOST, b"up\n")


def test_a_command_for_a_dead_container_is_lost_and_never_runs(
    engine, start, ended, run, runtime, make
):
    sandbox = make()
    engine.api.kill(f"director-{sandbox}")
    assert ended(start(sandbox, "touch ran")).cause is Cause.LOST
    make(id=sandbox)
    assert run(sandbox, "ls").stdout == b""
    runtime.remove(sandbox)


def test_a_sandbox_that_was_stopped_starts_again_and_tells_what_was_lost(
    engine, runtime, make, start, ended, run, command
):
    sandbox = make()
    run(sandbox, "echo kept > file")
    running = command("echo once >> runs; echo up; sleep 70")
    execution = runtime.run(sandbox, running)
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    engine.api.stop(f"director-{sandbox}", timeout=5)
    make(id=sandbox)
    again = ended(runtime.run(sandbox, running))
    assert (again.cause, again.stdout) == (Cause.LOST, b"up\n")
    assert run(sandbox, "cat file runs").stdout == b"kept\nonce\n"
    runtime.remove(sandbox)


def test_killing_everything_inside_loses_the_command_but_not_the_host(run, make, runtime):
    sandbox = make()
    assert run(sandbox, "kill -9 -1; sleep 70").cause is Cause.LOST
    make(id=sandbox)
    assert run(sandbox, "exit 0").code == 0
    runtime.remove(sandbox)


BREAK_THE_WATCH = """
for what in 'supervisor STOP' 'watcher KILL'; do
    for folder in /proc/[0-9]*; do
        grep -q "^${what% *}" $folder/comm && kill -${what#* } ${folder#/proc/}
    done
done
touch unwatched
sleep 70
"""


IN_ITS_PLACE = "exec 9<>/director/spool/inbox/$DIRECTOR_EXECUTION/watched"


@pytest.mark.parametrize(
    ("before", "kill", "cause"),
    [("", False, Cause.LOST), ("", True, Cause.KILLED), (IN_ITS_PLACE, False, Cause.TIMEOUT)],
)
def test_a_command_that_kills_its_watcher_and_stops_the_supervisor_is_ended_by_the_host(
    engine, home, installation, command, make, runtime, before, kill, cause
):
    """At once, unless it does as if it were the watcher; at its time-out then."""
    sandbox = make()
    strict = DockerRuntime(engine, home, installation, {}, term_grace_ms=0, supervisor_seconds=0.5)
    script = command(before + BREAK_THE_WATCH, timeout_ms=1500 if before else 60_000)
    execution = strict.run(sandbox, script)
    until(lambda: runtime.workspace(sandbox).kind("unwatched"), "it runs")
    if kill:
        execution.kill()
    assert execution.wait(30).cause is cause
    assert not engine.api.inspect_container(f"director-{sandbox}")["State"]["Running"]
    runtime.remove(sandbox)


def test_a_command_whose_watcher_is_killed_is_lost_and_killed_and_its_sandbox_goes_on(
    run, processes, sandbox
):
    outcome = run(sandbox, "setsid sleep 71 & echo up; kill -9 $PPID; sleep 60")
    assert outcome.cause is Cause.LOST
    assert not [line for line in processes(sandbox) if "sleep" in line]
    assert run(sandbox, "exit 7").code == 7


def test_a_watcher_that_is_stopped_is_woken(run, sandbox):
    outcome = run(sandbox, "kill -STOP $PPID; sleep 0.2; echo after; exit 5")
    assert (outcome.cause, outcome.code, outcome.stdout) == (Cause.EXIT, 5, b"after\n")


FORGET_THE_OUTPUT = """
kept=/director/claims/$DIRECTOR_EXECUTION/stdout
echo before
until [ -s $kept ]; do sleep 0.01; done
: >$kept
"""


def test_a_command_whose_output_is_not_kept_is_lost_and_not_judged_by_what_is_left(run, sandbox):
    assert run(sandbox, FORGET_THE_OUTPUT).cause is Cause.LOST


def test_a_result_cannot_be_changed_by_what_comes_later(runtime, command, ended, run, sandbox):
    first = command("echo real")
    ended(runtime.run(sandbox, first))
    run(sandbox, f"echo 'exit 0 1 99 99' > /director/claims/{first.id}/exit")
    assert runtime.run(sandbox, first).wait(0).stdout_bytes == 5


def test_output_that_became_a_link_is_not_followed(runtime, command, ended, run, sandbox):
    first = command("echo real")
    execution = runtime.run(sandbox, first)
    ended(execution)
    run(sandbox, f"cd /director/claims/{first.id}; rm stdout; ln -s /etc/shadow stdout")
    with pytest.raises(Exception, match="replaced from inside"):
        execution.read("stdout", 0, 100)
