"""The example projects: what each is to show, and its folder as an archive."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"

CRITERIA = "tests pass"

_LEFT_OUT = {"__pycache__", "node_modules", ".git", ".pytest_cache"}


@dataclass(frozen=True)
class Example:
    """A project below `examples/`, the command that tests it, and whether its tests pass."""

    name: str
    command: str
    passes: bool = True

    @property
    def steps(self) -> list[dict[str, object]]:
        """The document's steps, and a checkpoint at the end."""
        return [
            {"type": "execute", "command": self.command, "timeout": 300_000},
            {"type": "verify", "criteria": CRITERIA},
            {"type": "checkpoint", "name": f"{self.name}-tested"},
        ]


EXAMPLES = (
    Example("node-wordcount", "npm test"),
    Example("python-invoice", "python3 -m pytest"),
    Example("python-broken", "python3 -m pytest", passes=False),
)


def pack(folder: Path) -> bytes:
    """Make a tar.gz of a project, without what its tools have made. Raises OSError."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, arcname=entry.name, filter=_wanted)
    return content.getvalue()


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name in _LEFT_OUT else member
