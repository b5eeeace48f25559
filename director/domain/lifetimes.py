"""Sandboxes as people have them: made, used, held and ended by requests. What runs one is in
`sandboxes`."""

from base64 import b64decode
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from director.domain.archives import Workspace, WorkspaceSource
from director.domain.base import (
    Body,
    Flag,
    Int,
    Json,
    Name,
    PlacedError,
    Shape,
    example,
    no_nul,
)
from director.domain.errors import ValidationError
from director.domain.git import GitTerms
from director.domain.policies import EffectivePolicy, Network, ResourceLimits, SecurityPolicy
from director.domain.runs import DEFAULT_PRIORITY, SettleOutcome
from director.domain.sandboxes import Cause, SandboxMetrics
from director.domain.steps import CommandList, CommandText, Variables
from director.domain.times import Moment

DEFAULT_LIFETIME_MS = 3600 * 1000
"""How long a sandbox lives that says no `maxDuration`."""

DEFAULT_EXECUTE_MS, MAX_EXECUTE_MS = 30_000, 600_000

MAX_STDIN = 1024 * 1024
"""Characters of `stdin`, as it is written in the request."""

USER = "sandbox"
"""Who runs the commands of a sandbox."""


class SandboxStatus(StrEnum):
    """Where a sandbox stands."""

    CREATING = "creating"
    PULLING = "pulling"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXPIRED = "expired"
    FAILED = "failed"
    DELETED = "deleted"

    @property
    def ended(self) -> bool:
        """Whether its container and its files are gone, and nothing follows."""
        return self in (SandboxStatus.EXPIRED, SandboxStatus.FAILED, SandboxStatus.DELETED)

    @property
    def beginning(self) -> bool:
        """Whether it is still being made."""
        return self in (SandboxStatus.CREATING, SandboxStatus.PULLING)

    @property
    def placed(self) -> bool:
        """Whether a host keeps a place and memory for it."""
        return not self.ended and self is not SandboxStatus.STOPPED


OPEN_SANDBOXES = [status for status in SandboxStatus if not status.ended]
"""Where sandboxes stand of which something is there, or follows."""


class ExecutionStatus(StrEnum):
    """Where a command in a sandbox stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    """It ended by itself, with whatever exit code."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Its sandbox was stopped, or has ended, under it."""
    FAILED = "failed"
    """It could not be run, or was lost with its container."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self not in (ExecutionStatus.QUEUED, ExecutionStatus.RUNNING)


Workdir = Annotated[str, Field(pattern=r"^/", max_length=1024), AfterValidator(no_nul)]
ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]


@dataclass(frozen=True)
class Terms:
    """On which terms people get what costs something: how many sandboxes, networks and queued runs
    each may have at once, how large a disk is that nobody bounds, where subnets are taken from,
    patterns of the images that may be asked for, where not all may, and from where repositories are
    cloned."""

    sandboxes: int
    networks: int
    runs: int
    disk_mib: int | None
    pool: IPv4Network
    images: tuple[str, ...] = ()
    git: GitTerms = field(default_factory=GitTerms)

    def check_workspace(self, source: WorkspaceSource | None) -> None:
        """Raise ValidationError where a workspace cannot be filled from what it names."""
        self.git.check(source.git if source is not None else None)

    def check_image(self, image: str | None, field: str) -> None:
        """Raise ValidationError where an image may not be asked for; the default one always is."""
        if image is None or not self.images:
            return
        if not any(fnmatchcase(image, pattern) for pattern in self.images):
            allowed = ", ".join(self.images)
            issue = f"names an image that DIRECTOR_ALLOWED_IMAGES does not allow; it has {allowed}"
            detail = {"field": field, "issue": issue, "value": image}
            raise ValidationError(f"Invalid input data: {field} {issue}", **detail, errors=[detail])


class SandboxCreate(Body):
    """A sandbox to make; `command` is the first that runs in it, and not its life."""

    model_config = example(
        name="Code Execution Sandbox",
        image="node:22-alpine",
        command=["node", "app.js"],
        environment={"NODE_ENV": "production", "API_KEY": "secure_key"},
        resourceLimits={
            "cpu": 2.0,
            "memory": 1024,
            "disk": 2048,
            "network": False,
            "maxDuration": 300000,
        },
        securityPolicy={
            "allowFilesystem": True,
            "allowNetwork": False,
            "allowExec": True,
            "allowedPaths": ["/app"],
            "blockedPaths": ["/etc", "/root"],
            "readOnlyRoot": True,
            "noPrivileges": True,
        },
        networkMode="isolated",
    )

    name: Name | None = None
    session_id: str | None = None
    image: ImageName | None = None
    command: CommandText | CommandList | None = None
    environment: Variables = {}
    resource_limits: ResourceLimits = ResourceLimits()
    security_policy: SecurityPolicy = SecurityPolicy()
    security_profile_id: str | None = None
    network_mode: Network | None = None
    workspace: WorkspaceSource | None = None


def _only_user(user: str) -> str:
    if user != USER:
        raise ValueError(
            f"must be {USER}, the only user in a sandbox: root, or any other, would need a"
            " privilege that no sandbox has"
        )
    return user


class ExecuteBody(Body):
    """A command to run: a string goes to `/bin/sh -c`, a list is executed as it is."""

    model_config = example(
        command=["node", "-e", "console.log('Hello World')"],
        timeout=30000,
        environment={"TASK_ID": "task_123"},
    )

    command: CommandText | CommandList
    timeout: Annotated[Int, Field(ge=1, le=MAX_EXECUTE_MS)] = DEFAULT_EXECUTE_MS
    environment: Variables = {}
    workdir: Workdir = "/workspace"
    stdin: Annotated[str, Field(max_length=MAX_STDIN)] | None = None
    """What it reads, and then the end; without it, nothing but the end."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    """How `stdin` is written."""
    user: Annotated[str, AfterValidator(_only_user)] = USER
    in_background: Annotated[Flag, Field(alias="async")] = False

    @model_validator(mode="after")
    def _can_be_decoded(self) -> Self:
        self.input()
        return self

    def input(self) -> bytes | None:
        """The bytes of `stdin`."""
        try:
            if self.stdin is None or self.encoding == "utf-8":
                return None if self.stdin is None else self.stdin.encode()
            return b64decode(self.stdin, validate=True)
        except ValueError:
            raise PlacedError(f"is not {self.encoding}", "stdin") from None


class MainProcess(Shape):
    """What became of the sandbox's `command`."""

    execution_id: str
    status: ExecutionStatus
    exit_code: int | None


class SandboxHost(Shape):
    """The host that has a sandbox, and whether it answers."""

    id: str
    reachable: bool
    since: Moment | None
    """Since when it does not; null while it does."""


class Sandbox(Shape):
    """A sandbox as the API shows it; values of variables with secret-looking names hidden."""

    id: str
    name: str | None
    session_id: str | None
    owner_id: str
    status: SandboxStatus
    image: str | None
    resolved_image: str | None
    command: str | list[str] | None
    main_process: MainProcess | None
    environment: dict[str, str]
    resource_limits: ResourceLimits
    security_policy: SecurityPolicy
    security_profile_id: str | None
    network_mode: str
    network_id: str | None
    """The network that it is made on; null without one, and for `bridge` until it has a host."""
    effective_policy: EffectivePolicy
    host: SandboxHost | None
    """Null before it is placed, and when it has ended."""
    workspace: Workspace | None
    """The commit of the repository that it was filled from, once that is there."""
    error: Json | None
    created_at: Moment
    started_at: Moment | None
    expires_at: Moment | None
    ended_at: Moment | None
    updated_at: Moment


class Execution(Shape):
    """A command in a sandbox as the API shows it. `stdout` and `stderr` are text, or both base64
    where one of them is no UTF-8, as `encoding` says."""

    execution_id: str
    sandbox_id: str
    status: ExecutionStatus
    exit_code: int | None
    stdout: str
    stderr: str
    encoding: Literal["utf-8", "base64"]
    stdout_bytes: int
    stderr_bytes: int
    duration_ms: int | None
    timed_out: bool
    truncated: bool
    oom_killed: bool
    cause: Cause | None
    error: Json | None
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None


class SandboxInput(Shape):
    """The input of `SandboxWorkflow`: everything else is in the store."""

    sandbox_id: str
    owner_id: str
    session_id: str | None = None
    priority: int = DEFAULT_PRIORITY
    lifetime_ms: int


class CreateInput(Shape):
    """Which sandbox is to be made."""

    sandbox_id: str


class CreateOutcome(Shape):
    """What became of the making: it runs, waits in line for room, is to be asked of another host,
    has failed, or is not wanted any more."""

    state: Literal["running", "queued", "elsewhere", "failed", "unwanted"]
    host_id: str | None = None
    expires_at: Moment | None = None


class SandboxEnd(Shape):
    """How the life of a sandbox ends."""

    sandbox_id: str
    status: SandboxStatus


class SandboxSettled(SettleOutcome):
    """What came of settling a sandbox; `status` is the end that it has, which may be an earlier."""

    status: SandboxStatus | None = None


class SandboxResult(Shape):
    """The result of `SandboxWorkflow`."""

    status: SandboxStatus


class ExecutionInput(Shape):
    """Which command is to be run; what it is, is in the store."""

    execution_id: str


class ExecutionOutcome(Shape):
    """How a command ended."""

    status: ExecutionStatus
    exit_code: int | None = None


class SteerInput(Shape):
    """A sandbox that is to be brought to what is wanted of it: stopped, paused or going on."""

    sandbox_id: str


class WriteFiles(Shape):
    """A tree, by its hash, that is to be laid into the workspace of a sandbox."""

    sandbox_id: str
    tree: str


class FilesWritten(Shape):
    """How much was put into a workspace."""

    files: int
    bytes: int


class CaptureFiles(Shape):
    """The sandbox whose workspace is to be taken into blobs."""

    sandbox_id: str


class FilesCaptured(Shape):
    """What was taken: a tree, by its hash."""

    tree: str


class Metrics(SandboxMetrics):
    """What a running sandbox uses now, as the API shows it."""

    timestamp: Moment
