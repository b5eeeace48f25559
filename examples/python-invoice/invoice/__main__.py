"""Print an invoice: `python3 -m invoice FILE.csv`."""

import sys
from pathlib import Path

from invoice.lines import LineError, read_lines
from invoice.totals import Totals, add_up


def render(totals: Totals) -> str:
    """Write totals as aligned text."""
    rows = [("Net", totals.net)]
    rows += [(f"Tax {rate:f} %", amount) for rate, amount in totals.tax.items()]
    rows.append(("To be paid", totals.gross))
    return "\n".join(f"{label:<12}{amount:>14,.2f}" for label, amount in rows)


def main(arguments: list[str]) -> int:
    """Print one file's totals; 1 if it cannot be read, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python3 -m invoice FILE.csv", file=sys.stderr)
        return 2
    try:
        with Path(arguments[0]).open(newline="", encoding="utf-8") as file:
            print(render(add_up(read_lines(file))))
    except (OSError, LineError) as error:
        print(f"invoice: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
