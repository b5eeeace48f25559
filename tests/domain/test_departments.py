"""Where a step is to run: what it says itself wins, field by field, over its workflow."""

from typing import Any

import pytest

from director.domain.departments import Wish
from director.domain.workflows import Definition


@pytest.mark.parametrize(
    ("workflow", "step", "wish"),
    [
        ({}, {}, Wish()),
        ({"departmentId": "dep_w"}, {}, Wish("dep_w")),
        ({"departmentId": "dep_w"}, {"departmentId": "dep_s"}, Wish("dep_s")),
        ({"domain": "a", "requires": ["x"]}, {"departmentId": "dep_s"}, Wish("dep_s")),
        ({"domain": "a", "requires": ["x"]}, {}, Wish(None, "a", ("x",))),
        ({"domain": "a", "requires": ["x"]}, {"domain": "b"}, Wish(None, "b", ("x",))),
        ({"domain": "a", "requires": ["x"]}, {"requires": ["y"]}, Wish(None, "a", ("y",))),
        ({"domain": "a", "requires": ["x"]}, {"requires": []}, Wish(None, "a")),
        ({"departmentId": "dep_w"}, {"requires": ["y"]}, Wish(None, None, ("y",))),
        ({"departmentId": "dep_w"}, {"domain": "b"}, Wish(None, "b")),
        ({"departmentId": "dep_w"}, {"requires": []}, Wish("dep_w")),
    ],
)
def test_a_step_wins_over_its_workflow(
    workflow: dict[str, Any], step: dict[str, Any], wish: Wish
) -> None:
    full = {"type": "execute", "command": "x", **step}
    definition = Definition.model_validate({**workflow, "steps": [full]})

    assert definition.wish(definition.steps[0]) == wish


@pytest.mark.parametrize(
    ("wish", "met"),
    [
        (Wish(domain="code"), True),
        (Wish(domain="Code"), False),
        (Wish(requires=("vue", "react")), True),
        (Wish(requires=("vue", "svelte")), False),
        (Wish(None, "code", ("react",)), True),
        (Wish(None, "design", ("react",)), False),
    ],
)
def test_a_department_meets_a_wish_with_its_domain_and_all_capabilities(
    wish: Wish, met: bool
) -> None:
    assert wish.met_by("code", ["react", "vue", "typescript"]) is met
