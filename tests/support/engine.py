"""A Docker engine of a test's own, in mounts and a network of its own, that may be killed."""

import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import docker

from director.machine.engine import alive

BUSYBOX = Path("/bin/busybox")
IMAGE = "tiny:latest"

_SECONDS = 60


class OwnEngine:
    """`dockerd --live-restore` with all its files below one folder.

    A process that only waits holds the mounts and the network, so that an engine that is started
    again finds the sockets of its containers' shims where the killed one has left them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self._exec_root = Path(tempfile.mkdtemp(prefix="engine-"))
        """Where no test's name makes the path of containerd's sockets longer than it may be."""
        self._holder: subprocess.Popen[bytes]
        self._daemon: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        holding = "mount -t tmpfs tmpfs /run && ip link set lo up && echo held && exec sleep 3600"
        self._holder = subprocess.Popen(
            ["unshare", "-m", "-n", "sh", "-c", holding], stdout=subprocess.PIPE
        )
        try:
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == b"held\n"
            self.start()
            self._import_image()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        command = ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "dockerd", "--live-restore"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", str(self._exec_root)]
        command += ["--pidfile", f"{self.folder}/pid", "-H", self.address]
        command += ["--bridge", "none", "--iptables=false"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        _await(self.answers, f"dockerd answers; see {self.folder}/dockerd.log")

    def answers(self) -> bool:
        """Whether it answers."""
        assert self._daemon.poll() is None, (self.folder / "dockerd.log").read_text()[-3000:]
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_SECONDS)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in probe.recv(100)
            except OSError:
                return False

    @property
    def inside(self) -> int:
        """A process in its mounts and its network."""
        return self._holder.pid

    def client(self) -> docker.DockerClient:
        """A client of it."""
        return docker.DockerClient(self.address)

    def kill(self) -> None:
        """End it as a crash would, by the pid that it has written."""
        pid_file = self._exec_root / "containerd/containerd.pid"
        containerd = int(pid_file.read_text())
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        self._daemon.wait()
        # It dies with the engine; a new one would rely on it until somebody has reaped it.
        _await(lambda: not alive(containerd), "its containerd has ended")
        pid_file.unlink()

    def shims(self) -> list[int]:
        """The processes that look after its containers, those included that it has forgotten."""
        return [pid for pid in self._members() if _is_shim(pid)]

    def close(self) -> None:
        """End its containers, itself and all that it has started."""
        try:
            if self.answers():
                self._remove_containers()
            self._daemon.terminate()
            self._daemon.wait(_SECONDS)
        finally:
            for pid in self._members():
                os.kill(pid, signal.SIGKILL)
            self._holder.wait()
            if self._holder.stdout is not None:
                self._holder.stdout.close()
            _await(lambda: not self._members(), "nothing of the engine runs")
            shutil.rmtree(self._exec_root)

    def _remove_containers(self) -> None:
        client = self.client()
        for container in client.api.containers(all=True):
            client.api.remove_container(container["Id"], force=True)
        client.close()

    def _members(self) -> list[int]:
        """All processes in its mounts: itself, containerd, shims, and who holds them."""
        if not alive(self._holder.pid):
            return []
        own, found = Path(f"/proc/{self._holder.pid}/ns/mnt").readlink(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/mnt").readlink() == own and alive(int(process.name)):
                    found.append(int(process.name))
            except OSError:
                continue
        return sorted(found, key=lambda pid: pid == self._holder.pid)

    def _import_image(self) -> None:
        client = self.client()
        client.api.import_image_from_data(_root_file_system(), repository="tiny", tag="latest")
        client.close()


def _is_shim(pid: int) -> bool:
    try:
        return b"containerd-shim" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def _root_file_system() -> bytes:
    """A static busybox under the names of all its programs."""
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(BUSYBOX.resolve(), arcname="bin/busybox")
        for name in set(names.split()) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return content.getvalue()


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not so after {_SECONDS} s: {what}"
        time.sleep(0.05)
