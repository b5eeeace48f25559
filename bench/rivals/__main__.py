"""`make bench-NAME`: make the environment of a rival, measure it, and write its figures where
`make bench` finds them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from bench.engine import NotHereError, engine
from bench.processes import ROOT
from bench.results import RIVALS

NAMES = ("dbos", "restate", "prefect", "sandboxes")

_FOLDER = ROOT / ".bench"


def main(arguments: list[str]) -> int:
    """Measure one rival, in so many rounds."""
    name, rounds = arguments[0], arguments[1] if len(arguments) > 1 else "5"
    python = _environment(name)
    work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_FOLDER))
    command = [str(python), "-m", f"bench.rivals.{name}", str(work), rounds]
    if name == "restate":
        command.append(str(_restate_server()))
    if name != "sandboxes":
        return _measured(name, command, work)
    try:
        with engine(_say) as docker:
            return _measured(name, [*command, docker.image], work)
    except NotHereError as error:
        _say(str(error))
        return 1


def _measured(name: str, command: list[str], work: Path) -> int:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environ, check=False)
    if done.returncode != 0:
        _say(f"{name} could not be measured; what it wrote lies in {work}")
        return 1
    told = json.loads(done.stdout.splitlines()[-1])
    (RIVALS / f"{name}.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    for rival in told:
        for row in rival["rows"]:
            sys.stdout.write(f"{rival['name']}: {row['what']}: {row['median']:.4g} {row['unit']}\n")
    shutil.rmtree(work)
    return 0


def _environment(name: str) -> Path:
    """A virtual environment with exactly what the rival's list names, by hash."""
    folder = _FOLDER / f"venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "set-up"
    wanted = RIVALS / f"{name}.txt"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    _say(f"installing {name} into {folder} …")
    venv.create(folder, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--require-hashes", "-r", str(wanted)], check=True)
    stamp.write_text(wanted.read_text())
    return python


def _restate_server() -> Path:
    """The server's binary, from npm: no script of a package is run."""
    folder = _FOLDER / "restate-server"
    shutil.copytree(RIVALS / "restate-server", folder, dirs_exist_ok=True)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=folder, check=True)
    return next(folder.glob("node_modules/@restatedev/*/bin/restate-server"))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"name one of {', '.join(NAMES)}, and rounds if you like")
    sys.exit(main(sys.argv[1:]))
