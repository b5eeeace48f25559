"""Policies: what a sandbox may have and do, whose word counts, and how each field is held."""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AfterValidator, Field
from pydantic.alias_generators import to_camel

from director.domain.base import Body, Flag, Int, Millis, Number, Shape, Text, example

T = TypeVar("T")

DEFAULT_MEMORY_MIB = 2048
DEFAULT_CPUS = 2.0
DEFAULT_PROCESSES = 512
DEFAULT_OPEN_FILES = 4096

_NEEDED = ("/director", "/dev", "/proc/self", "/proc/uptime", "/sys/fs/cgroup")
"""What runs the commands of a sandbox needs these; none can be blocked, nor a folder of one."""

_NETWORK_ID = re.compile(r"net_[0-9A-Za-z]+")
_NEVER_WRITABLE = ("/director", "/dev", "/proc", "/sys")


def below(path: str, folder: str) -> bool:
    """Whether a path of a sandbox is a folder or lies in it."""
    return PurePosixPath(path).is_relative_to(folder)


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be absolute: begin it with /")
    if ".." in text.split("/"):
        raise ValueError("must not contain `..`")
    if any(ord(char) < 32 for char in text) or ":" in text:
        raise ValueError("must contain neither `:` nor control characters")
    path = str(PurePosixPath("/", text.lstrip("/")))
    if path == "/":
        raise ValueError("must not be `/`: name folders in it; `readOnlyRoot` is for the whole")
    return path


def _writable(path: str) -> str:
    for system in _NEVER_WRITABLE:
        if below(path, system):
            raise ValueError(f"must not lie in {system}, which is the system's")
    return path


def _blockable(path: str) -> str:
    for needed in _NEEDED:
        if below(path, needed) or below(needed, path):
            raise ValueError(
                f"must leave {needed} as it is, without which no command can run;"
                " what is dangerous there is hidden in every sandbox"
            )
    return path


_Path = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_path)]
AllowedPath = Annotated[_Path, AfterValidator(_writable)]
BlockedPath = Annotated[_Path, AfterValidator(_blockable)]


class NetworkMode(StrEnum):
    """How a sandbox is connected, where it does not name a network (`net_…`)."""

    ISOLATED = "isolated"
    """A network of its own, without a way out."""
    NONE = "none"
    BRIDGE = "bridge"


def _network(text: str) -> str:
    if text in tuple(NetworkMode) or _NETWORK_ID.fullmatch(text):
        return text
    if text == "host" or text.startswith("container:"):
        raise ValueError(f"no sandbox is given the network of {text.partition(':')[0]}")
    known = ", ".join(NetworkMode)
    raise ValueError(f"is no way to be connected: use one of {known}, or the id of a network")


Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]
"""A `NetworkMode`, or the id of a network."""


class ResourceLimits(Body):
    """How much a sandbox may have: `cpu` in cores, `memory` and `disk` in MiB, `maxDuration` in
    milliseconds by the clock on the wall."""

    model_config = example(cpu=2.0, memory=1024, disk=2048, network=False, maxDuration=300000)

    cpu: Annotated[Number, Field(ge=0.05, le=256)] | None = None
    memory: Annotated[Int, Field(ge=16, le=1024 * 1024)] | None = None
    disk: Annotated[Int, Field(ge=16, le=1024 * 1024)] | None = None
    network: Flag | None = None
    max_duration: Millis | None = None


class SecurityPolicy(Body):
    """What a sandbox may do. What is left out is not restricted by this policy."""

    model_config = example(
        allowFilesystem=True,
        allowNetwork=False,
        allowExec=True,
        allowedPaths=["/app"],
        blockedPaths=["/etc", "/root"],
        readOnlyRoot=True,
        noPrivileges=True,
    )

    allow_filesystem: Flag | None = None
    allow_network: Flag | None = None
    allow_exec: Flag | None = None
    allowed_paths: Annotated[list[AllowedPath], Field(max_length=64)] | None = None
    blocked_paths: Annotated[list[BlockedPath], Field(max_length=64)] | None = None
    read_only_root: Flag | None = None
    no_privileges: Flag | None = None
    max_processes: Annotated[Int, Field(ge=1, le=32_768)] | None = None
    max_open_files: Annotated[Int, Field(ge=16, le=1024 * 1024)] | None = None


class SecurityLevel(StrEnum):
    """How strict a security profile is where its constraints say nothing."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    def constraints(self) -> SecurityPolicy:
        """What the level asks for by itself."""
        return _LEVELS[self]

    def with_constraints(self, constraints: SecurityPolicy) -> SecurityPolicy:
        """A profile's policy: its constraints, and the level's where they say nothing."""
        return _LEVELS[self].model_copy(update=_stated(constraints))


def _level(
    max_processes: int,
    max_open_files: int,
    *,
    allow_filesystem: bool = True,
    allow_network: bool = False,
    read_only_root: bool = True,
) -> SecurityPolicy:
    return SecurityPolicy(
        allow_filesystem=allow_filesystem,
        allow_network=allow_network,
        allow_exec=True,
        read_only_root=read_only_root,
        no_privileges=True,
        max_processes=max_processes,
        max_open_files=max_open_files,
    )


_LEVELS = {
    SecurityLevel.LOW: _level(1024, 8192, allow_network=True, read_only_root=False),
    SecurityLevel.MEDIUM: _level(DEFAULT_PROCESSES, DEFAULT_OPEN_FILES, allow_network=True),
    SecurityLevel.HIGH: _level(128, 1024),
    SecurityLevel.CRITICAL: _level(32, 256, allow_filesystem=False),
}


def strictest(*policies: SecurityPolicy | None) -> SecurityPolicy:
    """The strictest of some policies, field by field: what one forbids is forbidden, the lower
    number counts, blocked is what any blocks, and writable what each allows that names paths."""
    stated = [policy for policy in policies if policy is not None]
    return SecurityPolicy(
        allow_filesystem=_each(stated, lambda p: p.allow_filesystem, all),
        allow_network=_each(stated, lambda p: p.allow_network, all),
        allow_exec=_each(stated, lambda p: p.allow_exec, all),
        allowed_paths=_each(stated, lambda p: p.allowed_paths, _common),
        blocked_paths=_each(stated, lambda p: p.blocked_paths, _union),
        read_only_root=_each(stated, lambda p: p.read_only_root, any),
        no_privileges=_each(stated, lambda p: p.no_privileges, any),
        max_processes=_each(stated, lambda p: p.max_processes, min),
        max_open_files=_each(stated, lambda p: p.max_open_files, min),
    )


def lowest(*limits: ResourceLimits | None) -> ResourceLimits:
    """The lowest of some limits, field by field; what none limits stays open."""
    stated = [limit for limit in limits if limit is not None]
    return ResourceLimits(
        cpu=_each(stated, lambda limit: limit.cpu, min),
        memory=_each(stated, lambda limit: limit.memory, min),
        disk=_each(stated, lambda limit: limit.disk, min),
        network=_each(stated, lambda limit: limit.network, all),
        max_duration=_each(stated, lambda limit: limit.max_duration, min),
    )


S = TypeVar("S", ResourceLimits, SecurityPolicy)


def _each(
    stated: list[S], field: Callable[[S], T | None], judge: Callable[[list[T]], T]
) -> T | None:
    values = [value for one in stated if (value := field(one)) is not None]
    return judge(values) if values else None


def _stated(policy: SecurityPolicy) -> dict[str, object]:
    fields = ((name, getattr(policy, name)) for name in SecurityPolicy.model_fields)
    return {name: value for name, value in fields if value is not None}


def _union(lists: list[list[str]]) -> list[str]:
    return sorted({path for paths in lists for path in paths})


def _common(lists: list[list[str]]) -> list[str]:
    """What every list has, itself or a folder of it."""
    named = {path for paths in lists for path in paths}
    return sorted(
        path for path in named if all(any(below(path, of) for of in paths) for paths in lists)
    )


class Hold(StrEnum):
    """How a field of a policy is held."""

    ENFORCED = "enforced"
    """The kernel, or Director's own routes, let nothing past it."""
    EMULATED = "emulated"
    """As well as this host can; the note says what is left open."""
    REFUSED = "refused"
    """Not at all: a sandbox that asks for it is not made."""


class Holding(Shape):
    """How one field is held, with a note for people where there is something to know."""

    how: Hold
    note: str = ""


class EffectivePolicy(Shape):
    """What counts for a sandbox after everybody had a say, and how each field of it is held."""

    resource_limits: ResourceLimits
    security_policy: SecurityPolicy
    network_mode: Text
    held: dict[str, Holding] = {}
    """By the name of the field as the API has it (`memory`, `blockedPaths`); the fields that the
    sandbox's host holds are added when it is made."""

    def with_held(self, held: Mapping[str, Holding]) -> "EffectivePolicy":
        """The same policy with what is known by now of how its fields are held."""
        return self.model_copy(update={"held": self.held | dict(held)})

    def with_disk(self, mib: int | None) -> "EffectivePolicy":
        """The same policy with a disk of so many MiB where nobody has bounded it; None: any."""
        if mib is None or self.resource_limits.disk is not None:
            return self
        limits = self.resource_limits.model_copy(update={"disk": mib})
        return self.model_copy(update={"resource_limits": limits})


def effective(
    limits: Iterable[ResourceLimits | None],
    policies: Iterable[SecurityPolicy | None],
    network_mode: str | None = None,
) -> EffectivePolicy:
    """Decide what counts for a sandbox: the lowest limits, the strictest policy, and defaults
    where nobody said anything. Whoever forbids the network forbids it in all three places."""
    limit, policy = lowest(*limits), strictest(*policies)
    mode = network_mode or NetworkMode.ISOLATED
    connected = limit.network is not False and policy.allow_network is not False
    connected = connected and mode != NetworkMode.NONE
    blocked = _union([policy.blocked_paths or []])
    asked = _union([policy.allowed_paths or []])
    allowed = [path for path in asked if not any(below(path, hidden) for hidden in blocked)]
    return EffectivePolicy(
        resource_limits=ResourceLimits(
            cpu=limit.cpu if limit.cpu is not None else DEFAULT_CPUS,
            memory=limit.memory if limit.memory is not None else DEFAULT_MEMORY_MIB,
            disk=limit.disk,
            network=connected,
            max_duration=limit.max_duration,
        ),
        security_policy=SecurityPolicy(
            allow_filesystem=policy.allow_filesystem is not False,
            allow_network=connected,
            allow_exec=policy.allow_exec is not False,
            allowed_paths=allowed,
            blocked_paths=blocked,
            read_only_root=bool(policy.read_only_root),
            no_privileges=True,
            max_processes=policy.max_processes or DEFAULT_PROCESSES,
            max_open_files=policy.max_open_files or DEFAULT_OPEN_FILES,
        ),
        network_mode=mode if connected else NetworkMode.NONE,
        held=held_by_director(some_blocked=asked != allowed),
    )


class Tightened(NamedTuple):
    """A policy and what becomes of it where more is asked for: what changes in a sandbox that
    lives, and what needs a new container. Fields are named as the API has them."""

    now: EffectivePolicy
    """With what changes at once."""
    whole: EffectivePolicy
    """With all of it."""
    live: list[str]
    rest: list[str]


_LIVE = {"cpu", "memory", "max_processes", "allow_exec", "network", "allow_network"}


def tightened(
    policy: EffectivePolicy, limits: ResourceLimits, security: SecurityPolicy
) -> Tightened:
    """Put more upon what counts for a sandbox; nothing of it is ever loosened."""
    whole = effective(
        [policy.resource_limits, limits], [policy.security_policy, security], policy.network_mode
    )
    whole = whole.model_copy(update={"held": {**policy.held, **whole.held}})
    fewer = _changed(policy.resource_limits, whole.resource_limits)
    stricter = _changed(policy.security_policy, whole.security_policy)
    now = policy.model_copy(
        update={
            "resource_limits": policy.resource_limits.model_copy(update=_only(fewer, _LIVE)),
            "security_policy": policy.security_policy.model_copy(update=_only(stricter, _LIVE)),
            "network_mode": whole.network_mode,
        }
    )
    changed = sorted({*fewer, *stricter} - {"network"})
    return Tightened(
        now,
        whole,
        live=[to_camel(name) for name in changed if name in _LIVE],
        rest=[to_camel(name) for name in changed if name not in _LIVE],
    )


def _changed(before: S, after: S) -> dict[str, object]:
    values = ((name, getattr(after, name)) for name in type(before).model_fields)
    return {name: value for name, value in values if value != getattr(before, name)}


def _only(changes: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in changes.items() if name in names}


def held_by_director(*, some_blocked: bool = False) -> dict[str, Holding]:
    """How the fields of a sandbox's policy are held that no host has to hold."""
    enforced = Holding(how=Hold.ENFORCED)
    held = {
        "allowExec": Holding(how=Hold.ENFORCED, note="execute answers 403 where it is false"),
        "maxDuration": Holding(how=Hold.ENFORCED, note="a durable timer ends the sandbox"),
        "noPrivileges": Holding(how=Hold.ENFORCED, note="no sandbox has any privilege"),
    }
    if some_blocked:
        note = "paths that are blocked as well are not writable"
        held["allowedPaths"] = enforced.model_copy(update={"note": note})
    return held
