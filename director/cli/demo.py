"""`director demo`: the document's complete workflow example, on real projects, before your eyes."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

import docker
from rich.text import Text

from director.cli.client import Client, ClientError, Feed
from director.cli.engine import owns_engine, stop_engine
from director.cli.examples import CRITERIA, EXAMPLES, FOLDER, Example, pack
from director.cli.results import Place, Result, print_end, print_next, print_results
from director.cli.screens import Screen, screen_on, stdout_console
from director.cli.show import RunShow
from director.cli.stack import Ports, Stack
from director.cli.up import ServedAlreadyError, prepare, served, serving
from director.activities.sandboxes import sandbox_id
from director.domain.base import Json
from director.sandbox.docker import DockerRuntime
from director.settings import Settings, read_settings
from director.worker import installation_id

INTERRUPTED = 130

_PERIOD = 0.1
_SILENCE_SECONDS = 90
"""How long a run may say nothing; a step that lasts says so about once a second at first."""

_OUTPUT_SECONDS = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(home: Path, ports: Ports) -> int:
    """Run the examples and show them; 0 if each ended as it was meant to, 130 after Ctrl-C.

    Uses the stack that serves from this home, else one of its own that it takes down with
    everything else that it started. Raises SetUpError and StackError."""
    screen = screen_on(stdout_console())
    say = screen.console.print
    with _interrupted_once():
        try:
            return _demo(home, ports, screen)
        except KeyboardInterrupt:
            say("Interrupted. What the demo started is stopped.")
            return INTERRUPTED
        except (ClientError, OSError) as error:
            say(Text(f"The demo cannot go on: {error}\nLogs are in {home / 'logs'}"))
            return 1


def _demo(home: Path, ports: Ports, screen: Screen) -> int:
    settings = read_settings()
    console = screen.console
    console.print("Two projects whose tests pass, and one that is meant to fail.")
    with _place(home, ports, settings, console.print) as (place, check):
        results = _performed(place, settings, screen, check)
        print_results(console, results, place)
    print_next(console, results[-1].view, place, os.environ)
    if wrong := [result.example.name for result in results if not result.as_meant]:
        console.print(f"Not as meant: {', '.join(wrong)}")
    return 1 if wrong else 0
