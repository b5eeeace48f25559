"""How the host hands a command to a sandbox's supervisor, and what it hears back."""

import os
import posixpath
import re
import stat
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import NamedTuple

from director.domain.sandboxes import Cause, Command, CommandResult
from director.sandbox.folders import SandboxFolder, checked_id
from director.sandbox.runtime import SandboxError, Stream
from director.sandbox.watches import Watch

CONTEXT_INLINE = 64 * 1024
"""Bytes of context up to which it travels in a variable instead of a file."""

SUPERVISOR_PROCESSES = 32
"""Processes of the supervisor that count for the limit of the sandbox's user."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXIT = re.compile(
    rb"(exit|timeout|killed|oom|lost) (\d{1,3}) (\d{1,15}) (\+?\d{1,18}) (\+?\d{1,18})\n"
)
_ENTRY = "/director/spool/inbox"
_WATCHED = "watched"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Ending(NamedTuple):
    """The supervisor's word on a command. Sizes count all that was written."""

    cause: Cause
    exit_code: int
    duration_ms: int
    stdout_bytes: int
    stderr_bytes: int


class Spool:
    """One command's entry in a sandbox's spool."""

    def __init__(self, folder: SandboxFolder, command_id: str) -> None:
        self._folder = folder
        self.id = checked_id(command_id, "command")
        self._entry = folder.inbox / command_id
        self._claim = folder.claims / command_id
        self._record = folder.results / f"{command_id}.json"

    def submit(self, command: Command, *, keep: int, grace_ms: int, processes: int | None) -> None:
        """Put the command there, unless it is there already, and wake the supervisor."""
        if self.submitted():
            return
        asked = written(command, keep=keep, grace_ms=grace_ms, processes=processes)
        files = {"command": asked}
        if command.context is not None:
            files["context.json"] = _encoded(command.context, "context")
        if command.stdin is not None:
            files["stdin"] = command.stdin
        staged = self._staged()
        staged.mkdir(0o700)
        try:
            self._fill(staged, files)
            staged.rename(self._entry)
        except OSError:
            if not self._entry.exists():
                raise  # otherwise somebody else was faster with the same command
        finally:
            _discard(staged)
        self.wake("run")

    def _fill(self, staged: Path, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = staged / name
            path.write_bytes(content)
            path.chmod(0o440)
            self._folder.give(path, group_only=True)
        os.mkfifo(staged / _WATCHED, 0o600)
        self._folder.give(staged / _WATCHED)
        self._folder.give(staged, group_only=True)
        staged.chmod(0o750)

    def wake(self, verb: str) -> None:
        """Tell the supervisor; where nobody listens, it finds the entry when it starts."""
        try:
            descriptor = os.open(self._folder.wake, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(descriptor, f"{verb} {self.id}\n".encode())
        except BlockingIOError:
            pass  # it is full of calls that were not heard yet
        finally:
            os.close(descriptor)

    def ask_to_kill(self) -> None:
        """Leave a wish that the supervisor kills the command."""
        (self._entry / "kill").touch(mode=0o444)
        self.wake("kill")

    def kill_asked(self) -> bool:
        """Tell whether anybody has asked to kill the command."""
        return (self._entry / "kill").exists()

    def submitted(self) -> bool:
        """Tell whether the command is there."""
        return self._entry.exists()

    def claimed(self) -> bool:
        """Tell whether the supervisor has taken the command."""
        return os.path.lexists(self._claim)

    def unwatched(self) -> bool:
        """Tell whether whoever watched the command is gone, whatever became of the command. A word
        on its end that was left is there by then."""
        if (begun := self._open("stdout")) is None:
            return False
        os.close(begun)
        with self.watch() as watch:
            return watch.over()

    def watch(self) -> Watch:
        """Wait for what becomes of the command."""
        return Watch(self._entry / _WATCHED)

    def claim(self) -> None:
        """Take the command so that no supervisor starts it any more."""
        self._claim.mkdir(exist_ok=True)

    def ending(self) -> Ending | None:
        """Read how the command ended; None while the supervisor has not said so."""
        line = self._read("exit", 0, 200)
        match = _EXIT.fullmatch(line)
        if match is None:
            return None
        cause, code, duration, out, err = (group.decode() for group in match.groups())
        sizes = self._total("stdout", out), self._total("stderr", err)
        return Ending(Cause(cause), int(code), int(duration), *sizes)

    def _total(self, stream: Stream, told: str) -> int:
        """A size with `+` counts what came after the bytes that are kept."""
        return int(told) + (self.size(stream) if told.startswith("+") else 0)

    def size(self, stream: Stream) -> int:
        """Tell how many bytes of a stream are kept so far."""
        descriptor = self._open(stream)
        if descriptor is None:
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def output(self, stream: Stream, offset: int, limit: int) -> bytes:
        """Read what is kept of a stream."""
        return self._read(stream, offset, limit)

    def result(self) -> CommandResult | None:
        """Read the recorded result, which nothing in the sandbox can change."""
        try:
            return CommandResult.model_validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return None

    def record(self, result: CommandResult) -> CommandResult:
        """Record a result, unless there is one; give back the one that counts."""
        staged = self._staged()
        try:
            staged.write_text(result.model_dump_json())
            os.link(staged, self._record)
        except FileExistsError:
            pass
        finally:
            staged.unlink(missing_ok=True)
        for name in ("command", "stdin"):  # values of the environment, and what it has read
            (self._entry / name).unlink(missing_ok=True)
        return self.result() or result

    def _staged(self) -> Path:
        """A name of its own for what is not whole yet."""
        return self._folder.results / f"{self.id}.{token_hex(8)}"

    def _read(self, name: str, offset: int, limit: int) -> bytes:
        descriptor = self._open(name)
        if descriptor is None:
            return b""
        try:
            return os.pread(descriptor, max(limit, 0), offset)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int | None:
        """Open a file of the claim, which the sandbox's user may have replaced by anything."""
        try:
            claim = self._open_claim()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._tampered() from error
        try:
            return self._open_regular(claim, name)
        finally:
            os.close(claim)

    def _open_claim(self) -> int:
        claims = os.open(self._folder.claims, _FOLDER)
        try:
            return os.open(self.id, _FOLDER, dir_fd=claims)
        finally:
            os.close(claims)

    def _open_regular(self, claim: int, name: str) -> int | None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=claim)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._tampered() from error
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise self._tampered()

    def _tampered(self) -> SandboxError:
        return SandboxError(
            f"the records of command {self.id} were replaced from inside the sandbox,"
            " so its outcome cannot be known: run it again in a new sandbox",
            retryable=False,
        )


def unended(folder: SandboxFolder) -> list[str]:
    """The ids of the commands of a sandbox whose end is not recorded."""
    if not folder.complete():
        return []
    ids = sorted(entry.name for entry in folder.inbox.iterdir())
    return [id for id in ids if not (folder.results / f"{id}.json").exists()]


def written(command: Command, *, keep: int, grace_ms: int, processes: int | None) -> bytes:
    """Write a command as the supervisor reads it: fields, each with a NUL at its end.

    Raises SandboxError for a name or value that no process could be given."""
    if not command.argv:
        raise SandboxError("the command is empty: name a program", retryable=False)
    workdir = posixpath.normpath(PurePosixPath("/workspace", command.workdir))
    variables = {"PWD": workdir} | command.environment
    if command.context is not None:
        variables.update(_context_variable(command))
    variables["DIRECTOR_EXECUTION"] = command.id
    most = processes + SUPERVISOR_PROCESSES if processes else 0
    fields = [
        *(b"%d" % number for number in (command.timeout_ms, grace_ms, keep, most)),
        _encoded(workdir, "workdir"),
        b"%d" % len(command.argv),
        *(_encoded(value, f"argument {n}") for n, value in enumerate(command.argv)),
        *(_variable(name, value) for name, value in variables.items()),
    ]
    return b"\0".join([*fields, b""])


def _context_variable(command: Command) -> dict[str, str]:
    context = command.context or ""
    if len(context.encode("utf-8", "replace")) <= CONTEXT_INLINE:
        return {"DIRECTOR_CONTEXT": context}
    return {"DIRECTOR_CONTEXT_FILE": f"{_ENTRY}/{command.id}/context.json"}


def _variable(name: str, value: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise SandboxError(
            f"{name[:80]!r} cannot be the name of a variable: use letters, digits and _,"
            " and do not begin with a digit",
            retryable=False,
        )
    return f"{name}=".encode() + _encoded(value, f"variable {name}")


def _encoded(value: str, what: str) -> bytes:
    if "\0" in value:
        raise SandboxError(f"{what} holds a NUL, which no process can be given", retryable=False)
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise SandboxError(f"{what} holds half of a surrogate pair", retryable=False) from error


def _discard(staged: Path) -> None:
    if staged.exists():
        for path in staged.iterdir():
            path.unlink()
        staged.rmdir()
