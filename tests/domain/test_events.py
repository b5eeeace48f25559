"""The catalogue of events is whole, and its page is current."""

import re
from pathlib import Path

import pytest

from director.domain import events
from director.domain.events import CATALOGUE, EventType, MessageType, types_named, webhook_name

DOCS = Path(__file__).parents[2] / "docs" / "events.md"


def test_every_event_has_its_entry() -> None:
    assert list(CATALOGUE) == list(EventType)


@pytest.mark.parametrize("kind", EventType)
def test_an_end_is_never_coalesced_and_is_told_to_webhooks(kind: EventType) -> None:
    if CATALOGUE[kind].final:
        assert not CATALOGUE[kind].coalesces
        assert webhook_name(kind) == kind


def test_webhooks_are_told_of_nothing_that_may_be_left_out() -> None:
    silent = {kind for kind in EventType if webhook_name(kind) is None}
    assert silent == {EventType.SESSION_METRICS, EventType.WORKFLOW_PROGRESS}
    for kind in set(EventType) - silent:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", webhook_name(kind) or "")


def test_a_name_is_of_an_event_or_of_all_that_are_told_as_one_message() -> None:
    assert types_named(["step.ended"]) == {EventType.STEP_ENDED}
    assert types_named([MessageType.SESSION_UPDATE]) == {
        kind for kind in EventType if kind.startswith(("session.", "message.", "context."))
    }
    alerts = {EventType.NETWORK_BLOCKED, EventType.SECURITY_ALERT}
    assert types_named([MessageType.SECURITY_ALERT]) == alerts
    assert types_named([]) == frozenset()
    with pytest.raises(ValueError, match=r"'step\.end' is no type; known: session_update, "):
        types_named(["step.ended", "step.end"])


def test_the_documentation_has_this_catalogue() -> None:
    assert events.tables() in DOCS.read_text(), "run `make docs`"
