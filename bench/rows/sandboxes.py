"""Three commands in a real sandbox, from nothing to removed."""

from contextlib import ExitStack

from bench import contenders
from bench.bench import Bench
from bench.engine import engine
from bench.figures import Latencies, Row, Side, at_least

GROUP = "sandbox"


def measure(bench: Bench) -> list[Row]:
    """One at a time: Director with everything durable, docker-py with nothing of that, and the
    sum of docker-py and a bare workflow."""
    count = bench.some(10, 1)
    with engine(bench.say) as docker, ExitStack() as stack:
        environ = {"DIRECTOR_SANDBOX_IMAGE": docker.image}
        installation = stack.enter_context(bench.real(environ))
        mine = contenders.director(bench, installation, 1, stack, docker.pids())
        (bare,) = contenders.bare(bench, installation, stack, ["sandboxed"])
        plain, lean = (
            contenders.containers(bench, docker, stack, network_disabled=disabled)
            for disabled in (False, True)
        )
        everybody = (mine, bare, plain, lean)
        for one in everybody:
            one.run(1, bench.some(3, 1))
        taken = {one.name: Latencies() for one in everybody}
        for _ in bench.alternating("three commands in a sandbox"):
            for one in everybody:
                one.take(taken[one.name], 1, count)
    return _rows(taken[mine.name], taken[bare.name], taken[plain.name], taken[lean.name])


def _rows(mine: Latencies, bare: Latencies, plain: Latencies, lean: Latencies) -> list[Row]:
    what = "3 commands in a sandbox, from nothing to removed"
    name, docker = "Director through REST", "docker-py: create, start, 3 × exec, remove"
    disabled = f"{docker}; network disabled"
    together = zip(bare.p50("").values, lean.p50("").values, strict=True)
    both = Side("bare Temporal and docker-py, added", [sum(pair) for pair in together])
    return [
        Row(
            GROUP,
            f"{what}: p50",
            "ms",
            "less",
            mine.p50(name),
            [plain.p50(docker), lean.p50(disabled)],
            at_least(1),
            "Director's are durable, limited and recorded; docker-py's are not",
        ),
        Row(
            GROUP,
            f"{what}: p99",
            "ms",
            "less",
            mine.p99(name),
            [plain.p99(docker), lean.p99(disabled)],
        ),
        Row(
            GROUP,
            "the same, beside its parts' sum: p50",
            "ms",
            "less",
            mine.p50(name),
            [both],
        ),
    ]
