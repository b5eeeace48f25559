"""What a verdict is made from. Whoever judges a run provides it; nothing here touches a sandbox."""

from collections.abc import Sequence
from typing import Literal, Protocol

from director.domain.runs import Approval

READ_LIMIT = 1024 * 1024
"""Bytes of one stream's end, or of one file's beginning, that are read."""


class ApprovalNeededError(Exception):
    """The verdict hangs on an approval that is not decided yet; all before it has been judged."""


class Evidence(Protocol):
    """The last execute step and the workspace as it left them, read by the host."""

    @property
    def exit_code(self) -> int | None:
        """How the last execute step ended; None when it did not end with a code of its own."""

    def output(self, stream: Literal["stdout", "stderr"]) -> str:
        """The end of a stream, at most `READ_LIMIT` bytes, undecodable bytes replaced."""

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes of a regular file of the workspace.

        Raises FileNotFoundError, or PermissionError for what is no regular file in there."""

    def kind(self, path: str) -> str | None:
        """`file`, `directory`, `symlink` or `other`; None when nothing lies there."""

    def glob(self, pattern: str) -> Sequence[str]:
        """The regular files of the workspace that a glob (`**` for any folders) names, sorted."""

    def approval(self) -> Approval | None:
        """What was decided by those who were asked; None while nobody has."""

    def run(self, argv: Sequence[str], timeout_ms: int) -> tuple[int | None, str]:
        """Run a command in the sandbox: its exit code, None on a time-out, and its output's end."""


_PARAMETERS = "".join(map(chr, range(0x20, 0x40)))
_NO_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))


def plain(text: str) -> str:
    """Take terminal sequences (colours, titles, cursor moves) out and make every line end `\\n`."""
    first, *rest = text.split("\x1b")
    text = "".join([first, *map(_after_escape, rest)])
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_NO_CONTROL)


def _after_escape(piece: str) -> str:
    if piece[:1] == "[":
        return piece[1:].lstrip(_PARAMETERS)[1:]
    if piece[:1] == "]":
        return piece.partition("\x07")[2]
    return piece[2:] if piece[:1] in ("(", ")", "#", "%") else piece[1:]
