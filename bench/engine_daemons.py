"""The Docker engine's own processes; for those who must not import Director."""

from pathlib import Path

_DAEMONS = ("dockerd", "containerd")


def daemons() -> list[int]:
    """Its daemons; what they start for a moment has other parents and is not counted."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _name(entry) in _DAEMONS]


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""
