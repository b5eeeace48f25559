"""Reads cargo test: one line `test result: ok. 1 passed; 0 failed; …` for each binary."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_RESULT = whole_line(r"test result: (ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; .*")


def read(text: str) -> Summary | None:
    """Add up the binaries of an output; the names are those listed under `failures:`."""
    results, names, listing = list[Summary](), list[str](), False
    for line in text.split("\n"):
        if line == "failures:":
            listing = True
        elif listing and line.startswith("    "):
            names.append(line.strip())
        elif line.startswith("test result: ") and (found := _RESULT(line)):
            failed = max(int(found[2]), int(found[0] == "FAILED"))
            results.append(
                Summary(
                    "cargo", int(found[1]), failed, int(found[3]), named(names if failed else ())
                )
            )
            names, listing = [], False
        else:
            listing = False
    return added(results)
