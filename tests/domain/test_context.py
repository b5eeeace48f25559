"""Which items leave a window: as the simplest reference says, whatever the window holds."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from director.domain.context import (
    ContextConfig,
    ContextCreate,
    ItemCreate,
    RetentionPolicy,
    Weight,
    leaving,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def item(content: Any = "x", type: str = "text", **metadata: Any) -> ItemCreate:
    return ItemCreate.model_validate({"type": type, "content": content, "metadata": metadata})


def kept_by_reference(items: list[Weight], size: int, tokens: int) -> list[Weight]:
    """Take away the one item that is least important, and of those the oldest, until it fits."""
    kept = list(items)
    while len(kept) > size or sum(each.tokens for each in kept) > tokens:
        least = min(each.importance for each in kept)
        oldest = min(each.number for each in kept if each.importance == least)
        kept = [each for each in kept if each.number != oldest]
    return kept


@pytest.mark.parametrize("seed", range(200))
def test_what_stays_is_what_a_simple_reference_keeps(seed: int) -> None:
    dice = random.Random(seed)
    items = [
        Weight(dice.choice([0.0, 0.2, 0.5, 0.9, 1.0]), number, dice.randrange(20), f"itm_{number}")
        for number in range(dice.randrange(1, 40))
    ]
    size, tokens = dice.randrange(1, 40), dice.randrange(0, 200)

    total = sum(each.tokens for each in items)
    gone = list(leaving(sorted(items), len(items) - size, total - tokens))

    kept = [each for each in items if each not in gone]
    assert kept == kept_by_reference(items, size, tokens)
    assert gone == sorted(gone)
    assert all(one[:2] < other[:2] for one in gone for other in kept)


def test_items_are_looked_at_until_enough_have_left() -> None:
    endless = (Weight(0.5, number, 3, str(number)) for number in range(10**9))
    assert [each.id for each in leaving(endless, 1, 7)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("metadata", "importance"),
    [
        ({}, 0.5),
        ({"source": "a"}, 0.5),
        ({"priority": "high"}, 0.9),
        ({"priority": "medium"}, 0.5),
        ({"priority": "low"}, 0.2),
        ({"priority": "low", "importance": 1}, 1),
        ({"priority": "high", "importance": 0}, 0),
        ({"priority": None, "importance": None}, 0.5),
    ],
)
def test_importance_is_as_it_says_or_as_its_priority_stands_for(
    metadata: dict[str, Any], importance: float
) -> None:
    assert item(**metadata).importance == importance


def test_tokens_are_as_somebody_counted_or_a_quarter_of_the_bytes() -> None:
    assert item("", "note").tokens == 0
    assert item("abcd").tokens == 1
    assert item("abcde").tokens == 2
    assert item("ä" * 4).tokens == 2
    assert item({"a": [1, 2]}, "json").tokens == 3
    assert item("abcd", tokens=70).tokens == 70
    assert item("abcd", tokens=0).tokens == 0


def test_only_what_is_less_important_than_the_threshold_has_an_age() -> None:
    policy = RetentionPolicy(max_age=1000, importance_threshold=0.5)
    assert policy.expiry(0.49, NOW) == NOW + timedelta(seconds=1)
    assert policy.expiry(0.5, NOW) is None
    assert RetentionPolicy(max_age=1000).expiry(1.0, NOW) == NOW + timedelta(seconds=1)
    assert RetentionPolicy(importance_threshold=0.5).expiry(0.1, NOW) is None


def test_an_item_that_is_over_the_bound_alone_is_told_with_its_place() -> None:
    assert ContextConfig(max_tokens=1).problem(item("abcd")) is None
    assert ContextConfig().problem(item("x" * 10_000)) is None
    told = ContextConfig(max_tokens=1).problem(item("abcde"))
    assert told == "has 2 tokens, as estimated, and the window takes 1 in all"
    body = {"sessionId": "s", "name": "n", "items": [item("a"), item("abcde")]}
    with pytest.raises(ValidationError, match="2 tokens, as estimated"):
        ContextCreate.model_validate({**body, "config": {"maxTokens": 1}})
