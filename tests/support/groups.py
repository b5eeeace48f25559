"""Which tests follow each other in one process where several run side by side, and in which order
the groups of them begin."""

from collections import Counter

import pytest
from support.postgres import DATABASES

LONGEST = (
    "test_boundaries.py",
    "test_streams.py",
    "test_up.py",
    "test_engine_kills.py",
    "test_outputs.py",
    "test_bench.py",
    "test_postgres.py",
    "test_kills.py",
)
"""Files whose tests take minutes though they are few: they begin first, so that no process is the
last one at work for long."""


def group(item: pytest.Item) -> str:
    """A file's tests share what they start. Those that work with the one Director of a kind of
    database, in processes or scripted, are a group in all files, so that there is one, and so are
    those that use a Postgres; where parts of Director are killed, each kind of database is one of
    its own. A mark `xdist_group` names another one."""
    if named := item.get_closest_marker("xdist_group"):
        return str(named.args[0])
    callspec = getattr(item, "callspec", None)
    database = callspec.params.get("database", "") if callspec else ""
    fixtures = getattr(item, "fixturenames", ())
    if "director" in fixtures:
        return f"director {database or DATABASES[0]}"
    file = str(item.path.relative_to(item.config.rootpath / "tests"))
    if item.get_closest_marker("kills"):
        return f"{file} {database}".rstrip()
    shared = "scripted" if "stack" in fixtures else ""
    if database == "postgres":
        return f"{database} {shared}".rstrip()
    return shared or file


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The items group by group: the longest first, then those of the most tests."""
    groups = {item: group(item) for item in items}
    sizes = Counter(groups.values())
    found = {name: number for number, name in enumerate(sizes)}

    def place(item: pytest.Item) -> tuple[int, int, int]:
        file = item.path.name
        rank = LONGEST.index(file) if file in LONGEST else len(LONGEST)
        return rank, -sizes[groups[item]], found[groups[item]]

    return sorted(items, key=place)
