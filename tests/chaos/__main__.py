"""`make chaos`: kill parts of Director at random for as long as asked, and print what broke."""

import argparse
import secrets
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import docker
from chaos.campaign import RUNS_PER_MINUTE, chaos
from chaos.checker import check
from chaos.report import show
from e2e.installation import quiet_ports, remove_containers
from rich.console import Console
from support.postgres import DATABASES, PostgresServer, database_url

from director.cli.up import prepare
from director.machine.engine import stop_engine
from director.machine.image import ensure_image

ENGINE_HOME = Path(__file__).parents[2] / ".director"


def main(arguments: list[str]) -> int:
    """Run one chaos; the exit code tells whether every figure that must be zero is zero. An engine
    that is started for it is stopped after it."""
    wanted = _parser().parse_args(arguments)
    console = Console(width=100 if not sys.stdout.isatty() else None)
    again = f"SECONDS={wanted.seconds:g} SEED={wanted.seed} DATABASE={wanted.database}"
    console.print(f"seed {wanted.seed}: make chaos {again}")
    started = prepare(ENGINE_HOME, console.print)
    try:
        return _run(wanted, console)
    finally:
        if started:
            stop_engine(ENGINE_HOME, console.print)


def _run(wanted: argparse.Namespace, console: Console) -> int:
    home = Path(tempfile.mkdtemp(prefix="director-chaos-"))
    image = wanted.image or _image()
    campaign = chaos(home, quiet_ports(), image, wanted.seed, wanted.seconds, wanted.per_minute)
    server = PostgresServer()
    try:
        with database_url(wanted.database, server, home) as url:
            record = replace(campaign, database=url).run()
    finally:
        server.close()
    figures = check(record.seen, doubles=not wanted.allow_doubles)
    show(console, record, figures)
    remove_containers(home)
    if any(figure.value for figure in figures):
        return 1
    shutil.rmtree(home)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--per-minute", type=float, default=RUNS_PER_MINUTE)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    parser.add_argument("--image", default=None, help="sandbox image; made where none is named")
    parser.add_argument("--allow-doubles", action="store_true")
    return parser


def _image() -> str:
    client = docker.from_env()
    try:
        return ensure_image(client, lambda _: None)
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
