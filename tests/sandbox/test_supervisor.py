"""The program that runs commands inside sandboxes, beside no sandbox: on a folder of the host's."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from support.waiting import until

from director.domain.sandboxes import Cause, Command, SandboxSpec
from director.sandbox import tools
from director.sandbox.folders import Room, SandboxFolder
from director.sandbox.runtime import SandboxError
from director.sandbox.spool import Spool


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    tools.install_tools(folder)
    return folder / tools.supervisor_name()


class Place:
    """A folder like that of a sandbox, and who runs its commands."""

    def __init__(self, home: Path, program: Path) -> None:
        self.folder = SandboxFolder(home, "sbx_1")
        self.folder.make(SandboxSpec(id="sbx_1", image="none", owner_id="run_1"), Room())
        self._program = program
        self._servers: list[subprocess.Popen[bytes]] = []
        self.serve()

    def serve(self) -> None:
        """One more that runs commands, once it has told of a claim what it tells at first."""
        left = self.folder.claims / f"left-{len(self._servers)}"
        left.mkdir()
        # that is by posix_spawn, which leaves a signal ignored that the C library has to itself
        server = subprocess.Popen([self._program, self.folder.root], close_fds=False)
        self._servers.append(server)
        until((left / "exit").exists, "it serves")
        shutil.rmtree(left)

    @property
    def pid(self) -> int:
        return self._servers[0].pid

    def start(self, argv: list[str], *, keep: int = 1 << 20, **more: object) -> Spool:
        fields = {"id": f"exec_{uuid.uuid4().hex[:16]}", "workdir": "/", "timeout_ms": 20_000}
        asked = Command.model_validate({"argv": argv, **fields, **more})
        spool = Spool(self.folder, asked.id)
        spool.submit(asked, keep=keep, grace_ms=100, processes=None)
        return spool

    def run(self, *argv: str, **more: object) -> tuple[Cause, int, bytes, bytes]:
        """Cause, exit code, stdout and stderr of a command that has ended."""
        spool = self.start([*argv], **more)
        ending = until(spool.ending, "it has ended")
        assert spool.size("stdout") == min(ending.stdout_bytes, more.get("keep", 1 << 20))
        output = (spool.output(stream, 0, 1 << 24) for stream in ("stdout", "stderr"))
        return ending.cause, ending.exit_code, *output

    def call(self, line: bytes) -> None:
        wake = os.open(self.folder.wake, os.O_WRONLY)
        assert os.write(wake, line) == len(line)
        os.close(wake)

    def entry(self, name: str, content: bytes) -> Spool:
        """A command as the host would not write it."""
        entry = self.folder.inbox / name
        entry.mkdir()
        (entry / "command").write_bytes(content)
        os.mkfifo(entry / "watched")
        self.call(b"run %s\n" % name.encode())
        return Spool(self.folder, name)

    def end(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()


@pytest.fixture
def place(tmp_path, program):
    place = Place(tmp_path, program)
    yield place
    place.end()


def test_it_is_made_without_a_warning(tmp_path):
    strict = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
    words = [tools.compiler(), "-std=c11", "-O2", *strict, "-x", "c", "-c", "-", "-o", "/dev/null"]
    done = subprocess.run(words, input=tools.source(), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_made_once_and_whole_and_needs_no_library(program, tmp_path):
    assert tools.is_static(program)
    assert program.stat().st_mode & 0o777 == 0o555
    made = program.stat().st_mtime_ns
    tools.install_tools(program.parent)
    assert program.stat().st_mtime_ns == made
    assert [each.name for each in program.parent.iterdir()] == [program.name]


def test_where_nothing_makes_it_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"no C compiler is on this host.* gcc and libc6-dev"):
        tools.install_tools(tmp_path / "tools")
    (tmp_path / "cc").write_text("#!/bin/sh\necho cannot find -lc >&2; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    with pytest.raises(SandboxError, match="cc failed:\ncannot find -lc"):
        tools.install_tools(tmp_path / "tools")
    assert list((tmp_path / "tools").iterdir()) == []


def test_one_that_came_with_an_image_of_director_needs_no_compiler(tmp_path, monkeypatch, program):
    monkeypatch.setattr(tools, "READY", program.parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    tools.install_tools(tmp_path / "tools")
    installed = tmp_path / "tools" / program.name
    assert installed.read_bytes() == program.read_bytes()
    assert os.access(installed, os.X_OK)


NONSENSE = [
    b"run\n",
    b"run \nkill \n\n\n",
    b"run ../../etc\nrun .\nrun ..\nrun a/b\n",
    b"run a\0b\nkill \0\nrun \xff\xfe\n",
    b"runs x\n run x\nRUN x\nrun  x\n",
    b"x" * 60_000 + b"\n",
    b"run " + b"x" * 129 + b"\n",
    b"kill nobody\nrun nobody\n",
    bytes(range(256)) + b"\n",
]


def test_calls_that_make_no_sense_are_not_heeded(place):
    for line in NONSENSE:
        place.call(line)
    assert place.run("echo", "x") == (Cause.EXIT, 0, b"x\n", b"")
    assert len(list(place.folder.claims.iterdir())) == 1


def test_a_call_may_come_in_pieces(place):
    place.folder.wake.rename(place.folder.wake.with_name("away"))
    spool = place.start(["echo", "x"])
    place.folder.wake.with_name("away").rename(place.folder.wake)
    for letter in f"run {spool.id}\n":
        place.call(letter.encode())
    assert until(spool.ending, "it has ended").exit_code == 0


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d.", "x" * 128])
def test_every_id_that_can_be_one_is_run(place, name):
    assert place.run("sh", "-c", "echo $DIRECTOR_EXECUTION", id=name)[2] == f"{name}\n".encode()


GOOD = [b"1000", b"100", b"99", b"0", b"/", b"1", b"true"]


def spoilt(at: int, value: bytes) -> bytes:
    return b"\0".join([*GOOD[:at], value, *GOOD[at + 1 :], b""])


SPOILT = [
    b"",
    b"\0",
    b"\0".join(GOOD),
    *(b"\0".join([*GOOD[:n], b""]) for n in range(len(GOOD))),
    *(spoilt(at, value) for at in (0, 3, 5) for value in (b"-1", b"", b"1x", b"9" * 18, b"9" * 30)),
    *(spoilt(5, value) for value in (b"0", b"2", b"999999999999")),
]


def test_a_command_that_is_not_whole_is_lost_and_never_run(place):
    for n, content in enumerate(SPOILT):
        ending = until(place.entry(f"spoilt-{n}", content).ending, f"the end of {content!r}")
        assert (ending.cause, ending.stdout_bytes) == (Cause.LOST, 0), content
    assert place.run("true")[1] == 0


@pytest.mark.parametrize(
    ("more", "argv"),
    [
        ({}, ["echo", "x" * 200_000]),
        ({"environment": {"A": "x" * 200_000}}, ["echo"]),
        ({}, ["echo", *["x" * 100_000] * 80]),
    ],
)
def test_what_no_process_can_be_given_is_refused_in_words(place, argv, more):
    cause, code, stdout, stderr = place.run(*argv, **more)
    assert (cause, code, stdout) == (Cause.EXIT, 126, b"")
    assert stderr.startswith(b"director: echo: the arguments and variables are longer than")
    assert stderr.endswith(b"give what is long in a file, or as stdin\n")


def test_a_program_that_cannot_be_loaded_is_told(place, tmp_path):
    scripts = {"gone": "#!/no/such/thing\n", "bare": "echo $0 $1\n", "bad": "#!/dev/null\n"}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    gone, bare, bad = (place.run(str(tmp_path / name), "1") for name in scripts)
    assert gone[1] == 127
    assert b"interpreter or loader that it names is not found" in gone[3]
    assert bare[1:3] == (0, f"{tmp_path}/bare 1\n".encode())
    assert bad[1] == 126
    assert b"cannot be executed (" in bad[3]


def test_a_program_is_found_along_the_path_as_the_shell_finds_it(place, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, mode in ((first, 0o644), (second, 0o755)):
        folder.mkdir()
        (folder / "mine").write_text("#!/bin/sh\necho $0\n")
        (folder / "mine").chmod(mode)
    path = {"PATH": f"/nowhere::{first}:{second}"}
    assert place.run("mine", environment=path)[2] == f"{second}/mine\n".encode()
    assert place.run("mine", environment={"PATH": str(first)})[1] == 126
    assert place.run("mine", environment={"PATH": ""})[1] == 127
    assert place.run("mine", environment={"PATH": ""}, workdir=str(second))[1] == 127
    inside = place.run("mine", environment={"PATH": ":/nowhere"}, workdir=str(second))
    assert inside[2] == b"./mine\n"


LOOK = "ls /proc/self/fd; umask; grep -E 'Sig(Blk|Ign)|^NSsid|^NSpgid' /proc/self/status; echo $$"


def test_a_command_has_three_files_no_signal_of_ours_and_a_session_of_its_own(place):
    found = place.run("sh", "-c", f"cd /; {LOOK}")[2].split()
    assert found[:5] == [b"0", b"1", b"2", b"3", b"0022"]  # the fourth is that of `ls`
    about, pid = dict(zip(found[5:-1:2], found[6:-1:2], strict=True)), found[-1]
    assert int(about[b"SigBlk:"], 16) == int(about[b"SigIgn:"], 16) == 0
    assert about[b"NSsid:"] == about[b"NSpgid:"] == pid


def test_hundreds_of_commands_leave_neither_an_open_file_nor_a_zombie(place):
    def state():
        files = sorted(os.readlink(each) for each in Path(f"/proc/{place.pid}/fd").iterdir())
        return files, Path(f"/proc/{place.pid}/task/{place.pid}/children").read_text()

    place.run("true")
    until(lambda: state()[1] == "", "the watcher is reaped")
    before = state()
    for spool in [place.start(["echo", "x"]) for _ in range(200)]:
        assert until(spool.ending, "it has ended").exit_code == 0
    until(lambda: state()[1] == "", "all watchers are reaped")
    assert state() == before


def test_two_that_serve_one_sandbox_run_each_command_once(place, tmp_path):
    place.serve()
    commands = [place.start(["sh", "-c", f"echo x >>{tmp_path}/{n}"]) for n in range(50)]
    for spool in commands * 2:
        place.call(b"run %s\n" % spool.id.encode())
    for spool in commands:
        assert until(spool.ending, "it has ended").cause is Cause.EXIT
    assert {(tmp_path / f"{n}").read_text() for n in range(50)} == {"x\n"}


def test_output_is_kept_byte_by_byte_whatever_the_pieces(place):
    script = "for n in $(seq 300); do printf $n; done; head -c 300000 /dev/zero; printf end"
    small = "".join(map(str, range(1, 301))).encode()
    whole = small + bytes(300_000) + b"end"
    assert place.run("sh", "-c", script)[2] == whole
    assert place.run("sh", "-c", script, keep=1000)[2] == whole[:1000]
    assert place.run("sh", "-c", script, keep=0)[2] == b""


def test_a_command_that_reads_from_its_own_pipe_holds_nobody_up(place):
    thief = "exec 9</proc/self/fd/1; cat <&9 >/dev/null & echo x; sleep 0.2; kill $!; exit 3"
    assert place.run("sh", "-c", thief)[:2] == (Cause.EXIT, 3)


def test_what_is_there_when_it_starts_is_run_and_what_it_left_is_lost(place, program):
    going = place.start(["sleep", "70"])
    until(lambda: going.size("stdout") == 0 and going.claimed(), "it runs")
    place.end()
    waiting = place.start(["echo", "x"])
    place.serve()
    assert until(waiting.ending, "it has ended").cause is Cause.EXIT
    assert until(going.ending, "it has ended").cause is Cause.LOST


def watchers(place: Place) -> list[int]:
    children = Path(f"/proc/{place.pid}/task/{place.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_a_command_is_lost_and_killed_at_once_when_its_watcher_is(place, tmp_path):
    script = f"sh -c 'exec env -i sleep 71' & echo $! $$ >{tmp_path}/pids; sleep 72"
    spool = place.start(["sh", "-c", script])
    pids = until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), "pids")
    for pid in watchers(place):
        os.kill(pid, signal.SIGKILL)
    assert until(spool.ending, "it has ended").cause is Cause.LOST
    until(lambda: not any(map(alive, pids.split())), "all of it is dead")
    assert place.run("true")[1] == 0


def alive(pid: str) -> bool:
    """Whether a process lives, and is more than a number that its parent has not asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_kill_while_a_child_still_holds_the_output_kills_that_child(place):
    spool = place.start(["sh", "-c", "sleep 71 & echo $!"])
    pid = until(lambda: spool.output("stdout", 0, 20), "its pid").decode().strip()
    spool.ask_to_kill()
    until(lambda: not alive(pid), "it is dead")
    until(spool.ending, "it has ended")


def test_a_watcher_that_is_stopped_goes_on_at_once(place):
    spool = place.start(["sh", "-c", "kill -STOP $PPID; echo after; exit 5"])
    assert until(spool.ending, "it has ended").exit_code == 5


def test_the_host_knows_when_nobody_watches_any_more_and_when_that_ends(place):
    spool = place.start(["sleep", "70"])
    until(lambda: watchers(place), "it runs")
    with spool.watch() as watch:
        until(lambda: not spool.unwatched() and spool.claimed(), "it is watched")
        assert not watch.over()
        spool.ask_to_kill()
        begun = time.monotonic()
        watch.pause(60)
        assert time.monotonic() - begun < 50
        assert spool.ending().cause is Cause.KILLED
        assert spool.unwatched()
