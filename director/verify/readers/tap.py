"""Reads the Test Anything Protocol, with subtests; only the innermost tests count."""

from dataclasses import dataclass, field

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, named

_POINT = whole_line(r"( *)(not )?ok (\d+)(?:(?: -)? (.*?))?( \{)?")
_PLAN = whole_line(r"1\.\.(\d+)(?: *#.*)?")
_DIRECTIVE = whole_line(r"(.*?) *# *((?i)skip|todo|time=)(?:.*)")


@dataclass
class _Reading:
    planned: int | None = None
    points: int = 0
    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    bailed: bool = False
    inner: dict[int, int] = field(default_factory=dict)
    """Indentation of points since the last one that was further out, and how many failed."""

    def close(self, indent: int) -> None:
        """End a block in braces: its tests belong to the point before it, not to the next."""
        self.inner = {at: failed for at, failed in self.inner.items() if at <= indent}

    def point(self, indent: int, ok: bool, title: str, opens: bool) -> None:
        self.points += indent == 0
        deeper = [at for at in self.inner if at > indent]
        failed_inside = sum(self.inner.pop(at) for at in deeper)
        name, directive = _split(title)
        todo = directive in ("skip", "todo")
        failing = not ok and not todo
        self.inner[indent] = self.inner.get(indent, 0) + (failing or failed_inside > 0)
        if opens or (deeper and (not failing or failed_inside)):
            return
        if todo:
            self.skipped += 1
        elif ok:
            self.passed += 1
        else:
            self.failures.append(name or "a test without a name")


def read(text: str) -> Summary | None:
    """Count the points of an output that has a plan (`1..N`); missing points are failures."""
    reading = _Reading()
    for line in _without_details(text):
        if line.startswith("1.."):
            plan = _PLAN(line)
            if plan:
                reading.planned = (reading.planned or 0) + int(plan[0])
        elif line.startswith("Bail out!"):
            reading.bailed = True
        elif line.endswith("}") and line.strip() == "}":
            reading.close(len(line) - 1)
        elif "ok " in line and (found := _POINT(line)):
            indent, negated, _, title, opens = found
            reading.point(len(indent), not negated, title, bool(opens))
    return None if reading.planned is None else _summary(reading, reading.planned)


def _summary(reading: _Reading, planned: int) -> Summary:
    missing = max(planned - reading.points, 0)
    names = list(reading.failures)
    names += [f"{missing} planned tests that did not run"] if missing else []
    names += ["Bail out!"] if reading.bailed else []
    failed = len(reading.failures) + missing + reading.bailed
    return Summary("TAP", reading.passed, failed, reading.skipped, named(names))


def _split(title: str) -> tuple[str, str]:
    found = _DIRECTIVE(title) if "#" in title else None
    return (found[0], found[1].lower()) if found else (title, "")


def _without_details(text: str) -> list[str]:
    """Drop the YAML blocks (`---` to `...`, deeper than the test they belong to)."""
    lines, block = list[str](), 0
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        if block and (indent >= block or not line):
            block = 0 if line.strip() == "..." and indent == block else block
            continue
        block = indent if indent and line.strip() == "---" else 0
        if not block:
            lines.append(line)
    return lines
