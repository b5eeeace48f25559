"""What a Docker engine leaves in the kernel when it stops: bridges, firewall rules, mounts.

Only what was not there before our engine started, and what bears Docker's marks, is removed.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_TABLES = ("iptables", "ip6tables")
_DOCKERS_LINK = re.compile(r"docker0|br-[0-9a-f]{12}")
_DOCKERS_RULE = re.compile(r"\bDOCKER\b|\bDOCKER-|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
_MOUNT_ROOTS = ("/run/docker/", "/var/run/docker/", "/var/lib/docker/")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def remember(state: Path) -> None:
    """Write down what is there before the engine starts.

    Notes of the same boot are kept: they tell of a start whose traces were never cleared."""
    notes = _notes(state)
    if notes.is_file() and json.loads(notes.read_text())["boot"] == _BOOT.read_text():
        return
    before = {
        "boot": _BOOT.read_text(),
        "links": _links(),
        "mounts": _mounts(),
        "forwarding": _FORWARDING.read_text(),
        "rules": {table: _rules(table) for table in _TABLES},
    }
    notes.write_text(json.dumps(before))


def clear(state: Path) -> None:
    """Remove what the engine added since `remember`. Idempotent; nothing without its notes."""
    notes = _notes(state)
    if not notes.is_file():
        return
    before = json.loads(notes.read_text())
    if before["boot"] == _BOOT.read_text():
        _clear_mounts(before["mounts"])
        _clear_links(before["links"])
        for table in _TABLES:
            for command in undo(before["rules"][table], _rules(table)):
                _run([table, "-w", *command])
        _clear_forwarding(before["forwarding"])
    notes.unlink()


def undo(before: Sequence[str], now: Sequence[str]) -> list[list[str]]:
    """The arguments that take Docker's additions out again, from two listings of `_rules`.

    Rules go before the chains that they name."""
    added = [shlex.split(line) for line in now if line not in before and _DOCKERS_RULE.search(line)]
    rules = [["-t", table, "-D", *rest] for table, flag, *rest in added if flag == "-A"]
    chains = [(table, rest[0]) for table, flag, *rest in added if flag == "-N"]
    flushed = [["-t", table, "-F", chain] for table, chain in chains]
    removed = [["-t", table, "-X", chain] for table, chain in chains]
    return [*rules, *flushed, *removed]


def _rules(command: str) -> list[str]:
    """Each rule and chain as `table -A …`, `table -N chain` or `table -P chain policy`."""
    if not shutil.which(f"{command}-save"):
        return []
    done = subprocess.run([f"{command}-save"], capture_output=True, text=True, check=False)
    return parse_rules(done.stdout)


def parse_rules(saved: str) -> list[str]:
    """Turn the output of `iptables-save` into lines that name their table."""
    lines, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            lines.append(f"{table} -N {chain}" if policy == "-" else f"{table} -P {chain} {policy}")
        elif line.startswith("-A"):
            lines.append(f"{table} {line}")
    return lines


def _clear_forwarding(before: str) -> None:
    # Docker sets this policy only where it switched forwarding on itself.
    if before != _FORWARDING.read_text():
        _FORWARDING.write_text(before)
        _run(["iptables", "-w", "-P", "FORWARD", "ACCEPT"])


def _clear_links(before: Sequence[str]) -> None:
    for name in _links():
        if name not in before:
            _run(["ip", "link", "delete", name])


def _links() -> list[str]:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    names = (line.split(":")[0].strip() for line in lines)
    return sorted(name for name in names if _DOCKERS_LINK.fullmatch(name))


def _clear_mounts(before: Sequence[str]) -> None:
    for place in reversed(_mounts()):
        if place not in before:
            _run(["umount", place])


def _mounts() -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(_MOUNT_ROOTS)]


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, check=False)


def _notes(state: Path) -> Path:
    return state / "before.json"
