"""A small language for scripted commands: `say hello; complain oops; write a.txt hi; fail 3`.

`wait NAME` goes on until the test opens the gate of that name; `last SECONDS` takes so long."""

import shlex
import threading
from collections import defaultdict
from collections.abc import Sequence

from director.sandbox.scripted import Outcome


class Gates:
    """Events by name; a command that waits for one goes on until it is opened."""

    def __init__(self) -> None:
        self._events: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def open(self, name: str) -> None:
        """Let every command go that waits for this name."""
        self._events[name].set()

    def close(self, name: str) -> None:
        """Let every command wait that begins from now on."""
        self._events[name].clear()

    def script(self, argv: Sequence[str]) -> Outcome:
        """What a command of the small language does."""
        if argv[:2] != ["/bin/sh", "-c"]:
            return Outcome(stdout=shlex.join(argv).encode())
        text = argv[2]
        said, complained, files = [], [], {}
        code, duration, gate, raw = 0, 0.0, None, b""
        for part in text.split(";"):
            verb, *rest = shlex.split(part) or [""]
            match verb:
                case "say":
                    said.append(" ".join(rest))
                case "binary":
                    raw = bytes.fromhex(rest[0])
                case "complain":
                    complained.append(" ".join(rest))
                case "write":
                    files[rest[0]] = " ".join(rest[1:]).encode()
                case "fail":
                    code = int(rest[0])
                case "last":
                    duration = float(rest[0])
                case "wait":
                    gate = self._events[rest[0]]
        return Outcome(
            stdout="".join(f"{line}\n" for line in said).encode() + raw,
            stderr="".join(f"{line}\n" for line in complained).encode(),
            exit_code=code,
            duration_s=duration,
            files=files,
            until=gate,
        )
