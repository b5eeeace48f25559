"""Names are followed to their addresses, also while nobody can tell them."""

import threading
import time
from datetime import UTC, datetime, timedelta

from director.networks.names import KEPT, PERIOD, Names

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A clock and a name server."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def resolve(self, name: str) -> list[str]:
        self.asked.append(name)
        if name not in self.known:
            raise OSError("no such name")
        return self.known[name]

    def names(self) -> Names:
        return Names(self.resolve, lambda: self.now)


def test_a_name_is_looked_up_and_looked_at_again_after_a_while() -> None:
    world = World()
    followed = world.names()
    world.known = {"a": ["1.1.1.1", "1.1.1.2"]}
    found = followed.followed({"a": {}})
    assert list(found["a"]) == ["1.1.1.1", "1.1.1.2"]

    assert followed.followed(found) == found
    assert world.asked == ["a"]

    world.now += PERIOD
    world.known = {"a": ["1.1.1.3"]}
    assert list(followed.followed(found)["a"]) == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]


def test_a_name_that_was_closed_and_is_opened_again_is_looked_up_at_once() -> None:
    world = World()
    followed = world.names()
    world.known = {"a": ["1.1.1.1"]}
    followed.followed({"a": {}})
    followed.followed({})
    assert list(followed.followed({"a": {}})["a"]) == ["1.1.1.1"]


def test_an_address_that_a_name_has_no_longer_goes_after_a_while() -> None:
    world = World()
    followed = world.names()
    world.known = {"a": ["1.1.1.1"]}
    found = followed.followed({"a": {}})
    world.known = {"a": ["1.1.1.2"]}
    world.now += KEPT - timedelta(seconds=1)
    found = followed.followed(found)
    assert list(found["a"]) == ["1.1.1.1", "1.1.1.2"]
    world.now += timedelta(seconds=1)
    assert list(followed.followed(found)["a"]) == ["1.1.1.2"]


def test_a_name_that_nobody_can_tell_keeps_what_it_had_for_a_while() -> None:
    world = World()
    followed = world.names()
    seen = {"a": {"1.1.1.1": BEGIN.isoformat()}, "b": {}}
    assert followed.followed(seen) == seen
    assert sorted(world.asked) == ["a", "b"]
    assert followed.followed(seen) == seen
    assert len(world.asked) == 2, "nobody is asked again at once"
    world.now += KEPT
    assert followed.followed(seen) == {"a": {}, "b": {}}


def test_a_resolver_that_does_not_answer_holds_nobody_up_for_long() -> None:
    answer = threading.Event()

    def hang(name: str) -> list[str]:
        if name == "slow":
            answer.wait(60)
        return ["1.1.1.1"]

    begun = time.monotonic()
    try:
        found = Names(hang).followed({"slow": {}, "quick": {}})
    finally:
        answer.set()
    assert time.monotonic() - begun < 30
    assert (found["slow"], list(found["quick"])) == ({}, ["1.1.1.1"])


def test_what_is_no_ipv4_address_is_not_taken() -> None:
    assert Names(lambda _: ["::1"]).followed({"a": {}}) == {"a": {}}
