"""A real Temporal dev server for tests, on a port and a file of its own."""

import socket
import subprocess
import sys
import time
from pathlib import Path

from director.cli.stack import temporal_command
from director.machine.ports import Claims

TEMPORAL = str(Path(sys.executable).with_name("temporal"))


_CLAIMS = Claims()


def free_port() -> int:
    """A port that nobody has, nor any other process of these tests takes meanwhile."""
    return _CLAIMS.any()


class TemporalServer:
    """The dev server as a process that a test may kill and start again on the same file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """The file that holds everything that Temporal knows."""
        return self.folder / "temporal.db"

    def start(self) -> None:
        """Start it and wait until it serves: its port is open before."""
        log = (self.folder / "temporal.log").open("ab")
        command = temporal_command(self.database, self.port, None)
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 60
        while not self._serves():
            assert time.monotonic() < deadline, (self.folder / "temporal.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _serves(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        command = [TEMPORAL, "operator", "cluster", "health", "--address", self.address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
