"""`make chaos`: kill parts of Director at random for as long as asked, and print what broke."""

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from chaos.campaign import RUNS_PER_MINUTE, chaos
from chaos.checker import check
from chaos.report import show
from e2e.installation import quiet_ports, remove_containers
from rich.console import Console

from director.cli.up import prepare
from director.machine.image import ensure_image


def main(arguments: list[str]) -> int:
    """Run one chaos; the exit code tells whether every figure that must be zero is zero."""
    wanted = _parser().parse_args(arguments)
    console = Console(width=100 if not sys.stdout.isatty() else None)
    home = Path(tempfile.mkdtemp(prefix="director-chaos-"))
    console.print(f"seed {wanted.seed}: SECONDS={wanted.seconds:g} SEED={wanted.seed} make chaos")
    image = wanted.image or _image(console)
    record = chaos(home, quiet_ports(), image, wanted.seed, wanted.seconds, wanted.per_minute).run()
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
    parser.add_argument("--image", default=None, help="sandbox image; made where none is named")
    parser.add_argument("--allow-doubles", action="store_true")
    return parser


def _image(console: Console) -> str:
    import docker

    prepare(Path(".director").absolute(), console.print)
    client = docker.from_env()
    try:
        return ensure_image(client, console.print)
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
