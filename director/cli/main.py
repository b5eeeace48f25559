"""The command `director`."""

from pathlib import Path
from typing import NoReturn

import typer

from director import __version__
from director.cli import up as serving
from director.cli.doctor import checks, print_doctor
from director.cli.stack import Ports, StackError
from director.logs import set_up_logs
from director.machine.apt import SetUpError
from director.settings import Settings, SettingsError, private_home, read_settings

app = typer.Typer(
    help="Durable workflows for people and AI agents, in Docker sandboxes on Temporal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Serve until Ctrl-C: Temporal, API and `DIRECTOR_WORKERS` workers."""
    settings = _settings()
    try:
        serving.up(settings.home, _ports(settings), typer.echo, workers=settings.workers)
    except (SettingsError, SetUpError, StackError, serving.ServedAlreadyError) as error:
        _fail(error)


@app.command()
def down() -> None:
    """Stop everything of ours on this machine."""
    home, _ = _place()
    try:
        serving.down(home, typer.echo)
    except SetUpError as error:
        _fail(error)


@app.command()
def demo() -> None:
    """Run the example projects as workflows and show what happens."""
    from director.cli.demo import demo as run  # a second to import, which `up` does not wait for

    home, ports = _place()
    try:
        code = run(home, ports)
    except (SettingsError, SetUpError, StackError) as error:
        _fail(error)
    raise typer.Exit(code)


@app.command()
def doctor() -> None:
    """Tell what is there, what is missing, and what to do."""
    home, ports = _place()
    names = {"API": ports.api, "Temporal": ports.temporal, "Temporal UI": ports.ui}
    raise typer.Exit(print_doctor(checks(home, names)))


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version, as the first process that starts would."""
    # half a second to import, which the other commands do not wait for
    from director.store.database import AwayError
    from director.store.engine import Store
    from director.store.schema import SchemaError

    settings = _settings()
    set_up_logs(settings.log_format)
    try:
        private_home(settings.home)
        store = Store(settings.database_url)
        done = store.create_tables()
        store.close()
    except (SettingsError, SchemaError, AwayError) as error:
        _fail(error)
    typer.echo(str(done))


@app.command()
def version() -> None:
    """Tell the version."""
    typer.echo(__version__)


def _place() -> tuple[Path, Ports]:
    settings = _settings()
    return settings.home, _ports(settings)


def _settings() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        _fail(error)


def _ports(settings: Settings) -> Ports:
    return Ports(api=settings.port)


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"director: {error}", err=True)
    raise typer.Exit(1) from None


def main() -> None:
    """Run the command line."""
    app()
