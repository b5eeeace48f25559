"""What a command is given, and what comes back."""

from pathlib import Path

import pytest
from support.waiting import until

from director.domain.sandboxes import Cause
from director.sandbox.docker import DockerRuntime
from director.sandbox.runtime import SandboxError, SandboxNotFoundError

pytestmark = pytest.mark.docker


def test_stdout_and_stderr_come_apart(run, shared):
    outcome = run(shared, "echo out; echo err >&2")
    assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
    assert (outcome.result.stdout_bytes, outcome.result.stderr_bytes) == (4, 4)


def test_binary_output_is_byte_exact(run, runtime, sandbox):
    content = bytes(range(256)) * 1000
    Path(runtime.workspace(sandbox).path(), "binary").write_bytes(content)
    outcome = run(sandbox, "cat binary; cat binary >&2")
    assert outcome.stdout == content
    assert outcome.stderr == content


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands(run, shared, script, code):
    outcome = run(shared, script)
    assert (outcome.code, outcome.cause) == (code, Cause.EXIT)


def test_a_program_that_is_not_there_ends_with_127(run, shared):
    outcome = run(shared, ["no-such-program"])
    assert outcome.code == 127
    assert b"no-such-program: not found" in outcome.stderr


def test_a_program_that_is_not_executable_ends_with_126(run, shared):
    assert run(shared, ["/etc/passwd"]).code == 126
    assert run(shared, ["/etc"]).code == 126


def test_a_missing_working_directory_is_told(run, shared):
    outcome = run(shared, ["true"], workdir="/workspace/no where")
    assert outcome.code == 127
    assert b"/workspace/no where does not exist" in outcome.stderr


def test_a_relative_working_directory_lies_in_the_workspace(run, sandbox):
    run(sandbox, "mkdir inner")
    assert run(sandbox, "pwd", workdir="inner").stdout == b"/workspace/inner\n"


def test_a_list_is_executed_as_it_is(run, shared):
    words = ["$HOME", "two words", "", "*", "a'b\"c", "line\nbreak", "--", "\\n"]
    outcome = run(shared, ["printf", "%s\\0", *words])
    assert outcome.stdout.decode().split("\0")[:-1] == words


def test_the_images_program_runs_and_not_the_supervisors_applet(run, sandbox):
    run(sandbox, "mkdir bin; printf '#!/bin/sh\\necho mine' > bin/ls; chmod +x bin/ls")
    outcome = run(sandbox, ["ls"], environment={"PATH": "/workspace/bin:/usr/bin:/bin"})
    assert outcome.stdout == b"mine\n"


ODD = {
    "NEWLINES": "\na\n\nb\n",
    "QUOTES": "'\"`$(exit 9)\\ ${HOME} !#&;|<>*?[]~",
    "EMPTY": "",
    "UNICODE": "".join(map(chr, range(0x80, 0x800))) + "\u20ac\U0001f600",
    "CONTROLS": "".join(map(chr, range(1, 32))) + "\x7f",
    "LONG": "x" * 100_000,
    "IFS": "abc/",
    "OPTIND": "no number",
    "claim": "mine",
    "inbox": "mine",
    "timeout": "mine",
    "_x1": "y",
}


def test_variables_arrive_whatever_is_in_them(run, shared):
    outcome = run(shared, ["env", "-0"], environment=ODD)
    got = dict(line.split("=", 1) for line in outcome.stdout.decode().split("\0")[:-1])
    assert {name: got.get(name) for name in ODD} == ODD


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n", "Ä", "A;touch x"])
def test_a_name_that_is_none_is_refused(runtime, command, shared, name):
    with pytest.raises(SandboxError, match="cannot be the name of a variable"):
        runtime.run(shared, command("true", environment={name: "x"}))


def test_a_nul_is_refused(runtime, command, shared):
    with pytest.raises(SandboxError, match="NUL"):
        runtime.run(shared, command("true", environment={"A": "x\0y"}))
    with pytest.raises(SandboxError, match="NUL"):
        runtime.run(shared, command(["echo", "x\0y"]))


@pytest.mark.parametrize("id", ["", "../x", "a/b", ".", "a b", "x" * 200, "a\nkill b"])
def test_an_id_that_is_none_is_refused(runtime, command, shared, id):
    with pytest.raises(SandboxError, match="cannot be the id"):
        runtime.run(shared, command("true", id=id))


def test_a_command_for_no_sandbox_is_refused(runtime, command):
    with pytest.raises(SandboxNotFoundError):
        runtime.run("sbx_0", command("true"))


def test_a_small_context_is_a_variable(run, shared):
    context = '{"a": "\'ü\'"}'
    outcome = run(shared, 'printf %s "$DIRECTOR_CONTEXT"', context=context)
    assert outcome.stdout.decode() == context


def test_a_large_context_is_a_file(run, shared):
    context = '{"a": "' + "x" * 70_000 + '"}'
    outcome = run(
        shared, 'cat "$DIRECTOR_CONTEXT_FILE"; printf %s "$DIRECTOR_CONTEXT" >&2', context=context
    )
    assert (outcome.stdout.decode(), outcome.stderr) == (context, b"")


def test_the_standard_streams_can_be_opened_again(run, shared):
    outcome = run(
        shared, "echo out > /dev/stdout; echo err > /dev/stderr; echo x > /proc/self/fd/2"
    )
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"out\n", b"err\nx\n")


def test_a_command_has_a_home_of_its_own_and_the_images_variables(run, shared):
    outcome = run(shared, 'set -e; touch "$HOME/a" "$TMPDIR/b"; id -un; echo $USER $LANG; env')
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith(b"sandbox\nsandbox C.UTF-8\n")
    assert b"SHLVL=0" not in outcome.stdout
    assert b"OLDPWD" not in outcome.stdout


def test_an_interrupt_is_not_ignored(run, shared):
    outcome = run(shared, "grep SigIgn /proc/self/status; kill -INT $$; echo alive")
    name, ignored = outcome.stdout.split()
    interrupt_and_quit = 0b110
    assert (name, int(ignored, 16) & interrupt_and_quit) == (b"SigIgn:", 0)
    assert outcome.code == 130


def test_a_command_reads_nothing_from_its_input(run, shared):
    assert run(shared, ["cat"]).stdout == b""


def test_several_commands_go_on_at_once(start, ended, sandbox):
    waiting = "touch {mine}; until [ -e {other} ]; do sleep 0.01; done"
    one = start(sandbox, waiting.format(mine="a", other="b"))
    two = start(sandbox, waiting.format(mine="b", other="a"))
    assert (ended(one).code, ended(two).code) == (0, 0)


def test_output_can_be_read_while_the_command_runs(start, ended, sandbox):
    execution = start(sandbox, "echo first; until [ -e go ]; do sleep 0.01; done; echo second")
    until(lambda: execution.read("stdout", 0, 100) == b"first\n", "the first line came")
    assert execution.wait(0) is None
    other = start(sandbox, "touch go")
    assert ended(other).code == 0
    assert ended(execution).stdout == b"first\nsecond\n"
    assert execution.read("stdout", 6, 3) == b"sec"
    assert execution.read("stdout", 13, 9) == b""


def test_output_over_the_cap_is_counted_and_does_not_block(
    engine, home, installation, command, ended, shared
):
    small = DockerRuntime(engine, home, installation, {}, output_limit=100_000)
    script = "head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2; exit 4"
    outcome = ended(small.run(shared, command(script)))
    assert (outcome.code, outcome.result.truncated) == (4, True)
    assert (outcome.result.stdout_bytes, outcome.result.stderr_bytes) == (3_000_000, 100_000)
    assert (len(outcome.stdout), len(outcome.stderr)) == (100_000, 100_000)


def test_a_child_in_the_background_neither_hangs_the_command_nor_dies(run, runtime, sandbox):
    outcome = run(
        sandbox, "(until [ -e go ]; do echo tick; sleep 0.01; done; touch gone) & echo started"
    )
    assert outcome.cause is Cause.EXIT
    assert outcome.stdout.startswith((b"started\n", b"tick\n"))
    assert len(outcome.stdout) == outcome.result.stdout_bytes
    run(sandbox, "touch go")
    until(lambda: runtime.workspace(sandbox).kind("gone") == "file", "the child went on")
