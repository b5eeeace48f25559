"""Hosts: machines that hold sandboxes, how much they hold, and what the API shows of them."""

from datetime import timedelta
from typing import Literal

from director.domain.base import Body, Flag, Shape, example
from director.domain.times import Moment

LEASE = timedelta(seconds=10)
"""How long a host counts as living after it last said so."""


class Capacity(Shape):
    """How many sandboxes a host holds at once, and how much memory may be promised to them."""

    places: int = 64
    memory_mib: int = 64 * 2048


class HostUpdate(Body):
    """What to change of a host: one that is draining takes no new sandboxes."""

    model_config = example(draining=True)

    draining: Flag


class HostForgotten(Shape):
    """A host that is given up for good, and what was lost with it."""

    id: str
    deleted: Literal[True] = True
    sandboxes: list[str]
    """Those that people had made there, which have ended now."""
    runs: list[str]
    """Those whose own sandbox was there, which go on elsewhere or fail, as `onSandboxLost` says."""


class Host(Shape):
    """A host as the API shows it."""

    id: str
    places: int
    used: int
    """Sandboxes that it holds, or has promised to hold."""
    memory_mib: int
    used_memory_mib: int
    draining: bool
    lease_until: Moment
    living: bool
