"""Reads node's own test runner, reporters `spec` and `tap` (`# tests 4`, `# pass 2`, …)."""

from director.verify.patterns import whole_line
from director.verify.readers import tap
from director.verify.readers.summary import Summary, added, named

_COUNT = whole_line(r"(?:ℹ|#) (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)")
_FAILED = whole_line(r"✖ (.+?)(?: \([\d.]+ms\))?")
_NEEDED = {"tests", "pass", "fail", "cancelled", "skipped", "todo"}


def read(text: str) -> Summary | None:
    """Add up the runs of an output; cancelled tests are failures."""
    lines = text.split("\n")
    starts = [at for at, line in enumerate(lines) if line.startswith(("ℹ tests ", "# tests "))]
    runs = [run for at in starts if (run := _summary(lines, at))]
    total = added(runs)
    if total is None or not total.failed:
        return total
    return added([*runs, Summary("node:test", failures=_names(lines) or _tap_names(text))])


def _summary(lines: list[str], at: int) -> Summary | None:
    counts: dict[str, int] = {}
    while at < len(lines) and (found := _COUNT(lines[at])) and found[0] not in counts:
        counts[found[0]] = int(found[1].partition(".")[0])
        at += 1
    if not counts.keys() >= _NEEDED:
        return None
    failed = counts["fail"] + counts["cancelled"]
    return Summary("node:test", counts["pass"], failed, counts["skipped"] + counts["todo"])


def _names(lines: list[str]) -> tuple[str, ...]:
    """The tests listed after `✖ failing tests:`, which the reporter `spec` prints last."""
    if "✖ failing tests:" not in lines:
        return ()
    after = lines[lines.index("✖ failing tests:") + 1 :]
    found = (_FAILED(line) for line in after if line.startswith("✖ ") and "# TODO" not in line)
    return named(each[0] for each in found if each)


def _tap_names(text: str) -> tuple[str, ...]:
    points = tap.read(text)
    return points.failures if points else ()
