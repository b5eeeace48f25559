"""Sandboxes that people make: their bodies, and how they move."""

from itertools import product

import pytest
from pydantic import ValidationError

from director.domain.lifetimes import ExecuteBody, SandboxCreate, SandboxStatus
from director.domain.states import SANDBOX_MOVES, advance_sandbox

ENDED = [status for status in SandboxStatus if status.ended]
OPEN = [status for status in SandboxStatus if not status.ended]


@pytest.mark.parametrize(("current", "wanted"), list(product(SandboxStatus, SandboxStatus)))
def test_a_sandbox_moves_where_the_table_has_the_move_and_else_stays(
    current: SandboxStatus, wanted: SandboxStatus
) -> None:
    moved = wanted if wanted in SANDBOX_MOVES[current] else current
    assert advance_sandbox(current, wanted) is moved


@pytest.mark.parametrize("current", OPEN)
def test_every_open_sandbox_can_end_in_each_way_and_nothing_leaves_an_end(
    current: SandboxStatus,
) -> None:
    assert set(ENDED) <= set(SANDBOX_MOVES[current])
    assert all(SANDBOX_MOVES[end] == {} for end in ENDED)


def test_the_document_s_bodies_are_taken() -> None:
    create = SandboxCreate.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index]
    body = SandboxCreate.model_validate(create)
    assert (body.command, body.resource_limits.max_duration) == (["node", "app.js"], 300000)
    told = ExecuteBody.model_validate({"command": "x", "async": True})
    assert (told.in_background, told.timeout, told.workdir) == (True, 30000, "/workspace")


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 600_001}, {"timeout": 0}, {"command": ""}, {"workdir": "src"}, {"timeOut": 1}],
)
def test_a_command_that_cannot_be_meant_so_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExecuteBody.model_validate({"command": "x", **wrong})
