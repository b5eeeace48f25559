"""`director demo`: the document's complete workflow example, on real projects, and its end."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import docker
from rich.text import Text

from director.activities.sandboxes import sandbox_id
from director.cli.client import Client, ClientError
from director.cli.examples import EXAMPLES
from director.cli.results import Place, Result, print_next, print_results
from director.cli.screens import Screen, screen_on, stdout_console
from director.cli.stack import Ports, Say, StackError
from director.cli.tour import Tour
from director.cli.up import ServedAlreadyError, prepare, served, serving
from director.host import installation_id
from director.machine.engine import owns_engine, stop_engine
from director.sandbox.docker import DockerRuntime
from director.settings import Settings, read_settings

INTERRUPTED = 130

Check = Callable[[], None]
"""Raises StackError when a part of the stack has ended."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_STARTING = "Director is just being started from this home; try again soon"


def demo(home: Path, ports: Ports) -> int:
    """Run the examples and show them: 0 if each ended as it was meant to, 130 after Ctrl-C.

    Uses the stack that serves from this home; else starts one, and stops it with everything
    else that it started. Raises SetUpError and StackError."""
    screen = screen_on(stdout_console())
    say = screen.console.print
    with _interrupted_once():
        try:
            return _demo(home, ports, screen)
        except KeyboardInterrupt:
            say("Interrupted. Nothing of the demo runs any more.")
            return INTERRUPTED
        except (ClientError, OSError) as error:
            say(Text(f"The demo cannot go on: {error}"))
            say(f"Logs: {home / 'logs'}")
            return 1


def _demo(home: Path, ports: Ports, screen: Screen) -> int:
    settings, console = read_settings(), screen.console
    console.print("Director runs two projects whose tests pass, and one that is meant to fail.")
    unsettled: set[str] = set()
    with _place(home, ports, settings.temporal_namespace, console.print, unsettled) as found:
        place, check = found
        results = _results(place, check, settings, screen, unsettled)
        print_results(console, results, place)
    wrong = [result.example.name for result in results if not result.as_meant]
    print_next(console, results[-1].view, place, os.environ)
    if wrong:
        console.print(f"Not as it was meant to be: {', '.join(wrong)}.")
    return 1 if wrong else 0


def _results(
    place: Place, check: Check, settings: Settings, screen: Screen, unsettled: set[str]
) -> list[Result]:
    with Client(place.api) as client:
        _log_in(client, settings)
        with Tour(client, screen, check, unsettled).opened() as tour:
            return [tour.perform(example) for example in EXAMPLES]


def _log_in(client: Client, settings: Settings) -> None:
    """The file holds a password that was generated; the settings one that was given."""
    passwords = [settings.admin_password] if settings.admin_password else []
    if settings.admin_password_file.exists():
        passwords.append(settings.admin_password_file.read_text().strip())
    for password in passwords:
        try:
            client.login(settings.admin_username, password)
        except ClientError as error:
            refused = error
        else:
            return
    if passwords:
        raise ClientError(f"{refused}; DIRECTOR_ADMIN_PASSWORD can give another password")
    raise ClientError(f"no password in {settings.admin_password_file}: set DIRECTOR_ADMIN_PASSWORD")


@contextmanager
def _place(
    home: Path, ports: Ports, namespace: str, say: Say, unsettled: set[str]
) -> Iterator[tuple[Place, Check]]:
    """The stack that serves from this home, else one that lasts as long as the block.

    Sandboxes of runs that are `unsettled` at the end are removed with it."""
    if (found := served(home)) is not None:
        if not found.api:
            raise StackError(_STARTING)
        say(f"Director is up at {found.api}; the demo runs there.")
        yield Place(found.api, found.ui, namespace, home, kept=True), lambda: None
        return
    owned = owns_engine(home)
    try:
        prepare(home, say)
        with _removing_sandboxes(home, unsettled), serving(home, ports, say) as stack:
            try:
                moved = stack.ports != ports
                yield Place(stack.api, stack.ui, namespace, home, False, moved), stack.check
            finally:
                say("\nStopping what the demo started …")
    except ServedAlreadyError as error:
        raise StackError(_STARTING) from error
    finally:
        if not owned and owns_engine(home):
            stop_engine(home, say)


@contextmanager
def _removing_sandboxes(home: Path, unsettled: set[str]) -> Iterator[None]:
    """Remove in the end what a worker would have removed, had it lived."""
    try:
        yield
    finally:
        if unsettled:
            client = docker.from_env()
            runtime = DockerRuntime(client, home, installation_id(home), {})
            for run_id in unsettled:
                runtime.remove(sandbox_id(run_id))
            client.close()


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Make the first signal to end a KeyboardInterrupt; later ones do not disturb cleaning up."""
    happened = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal happened
        if not happened:
            happened = True
            raise KeyboardInterrupt

    # One that is ignored already (nohup) stays so.
    heard = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = [(each, signal.signal(each, interrupt)) for each in heard]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)
