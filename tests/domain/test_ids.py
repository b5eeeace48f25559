"""Ids sort by time and are recognised by their form."""

from director.domain.ids import is_id, new_id


def test_ids_have_a_prefix_and_26_characters_and_never_come_twice() -> None:
    made = {new_id("run") for _ in range(1000)}

    assert len(made) == 1000
    assert all(is_id("run", id) for id in made)
    assert {len(id) for id in made} == {len("run_") + 26}


def test_later_ids_sort_behind_earlier_ones(monkeypatch) -> None:
    made = []
    for milliseconds in (1, 2, 1_700_000_000_000, 2**47):
        monkeypatch.setattr("time.time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(new_id("ses"))

    assert made == sorted(made)


def test_what_cannot_be_ours_is_no_id() -> None:
    assert not is_id("ses", "ses_123")
    assert not is_id("ses", new_id("run"))
    assert not is_id("ses", new_id("ses").upper())
