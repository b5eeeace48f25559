"""One command: in a sandbox that lives, and from nothing to its first output."""

from bench.bench import Bench
from bench.engine import engine
from bench.figures import Row, Side, Target, at_least, at_most, percentile
from bench.processes import Driver

GROUP = "commands"

_WORKER, _REST = "Director, inside the worker", "Director through REST"
_EXEC, _CREATED = "docker-py: exec", "docker-py: create, start, exec"
_RUN = "docker-py: create, attach, start, as docker run does"
_LIVING = {_WORKER: "worker", _REST: "REST", _EXEC: "exec"}
_COLD = {_WORKER: "worker", _REST: "REST", _CREATED: "exec", _RUN: "run"}

Medians = dict[str, list[float]]
"""By whose they are, for each round."""


def measure(bench: Bench) -> list[Row]:
    """As a worker runs it, as a client of REST sees it, and docker-py with the network disabled, as
    Director's sandboxes have it."""
    with engine(bench.say) as docker:
        environ = {"DIRECTOR_SANDBOX_IMAGE": docker.image}
        with (
            bench.real(environ) as director,
            Driver("bench.drivers.commands", bench.folder) as driver,
        ):
            home = director.home / "bench"
            home.mkdir()
            access = {"port": director.port, "password": director.password}
            driver.ask(do="prepare", home=str(home), image=docker.image, **access)
            try:
                living = _medians(bench, driver, "living", _LIVING, bench.some(100, 2))
                cold = _medians(bench, driver, "cold", _COLD, bench.some(10, 1))
            finally:
                driver.ask(do="end")
    return [
        _row("a command in a living sandbox", living, _WORKER, [_EXEC], at_most(4)),
        _row("a command in a living sandbox, REST", living, _REST, [_EXEC], at_most(40)),
        _row("nothing to first output", cold, _WORKER, [_CREATED, _RUN], at_least(1 / 1.2)),
        _row("nothing to a command's end, REST", cold, _REST, [_CREATED, _RUN], None),
    ]


def _medians(bench: Bench, driver: Driver, what: str, ways: dict[str, str], count: int) -> Medians:
    found: Medians = {name: [] for name in ways}
    for whose in ways.values():
        driver.ask(do=what, whose=whose, count=bench.some(3, 1))
    for _ in bench.alternating(f"commands, {what}"):
        for name, whose in ways.items():
            done = driver.ask(do=what, whose=whose, count=count)
            found[name].append(percentile(done["millis"], 50))
    return found


def _row(what: str, medians: Medians, mine: str, others: list[str], target: Target | None) -> Row:
    sides = [Side(name, medians[name], compared=name != _RUN) for name in others]
    return Row(GROUP, f"{what}: p50", "ms", "less", Side(mine, medians[mine]), sides, target)
