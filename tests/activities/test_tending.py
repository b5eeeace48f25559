"""Who was granted something and does not begin is reminded, without filling their history."""

from itertools import pairwise

from director.activities.tending import Reminders


def test_who_does_not_answer_is_told_ever_more_rarely_and_never_given_up() -> None:
    now = 0.0
    reminders = Reminders(lambda: now)
    told = []
    for _ in range(24 * 3600 // 5):
        told += [now] * len(reminders.due(["run_a"]))
        now += 5

    assert told[:5] == [0, 5, 15, 35, 75]
    assert len(told) < 300
    assert max(later - before for before, later in pairwise(told)) == 300


def test_who_has_answered_meanwhile_is_told_at_once_the_next_time() -> None:
    reminders = Reminders(lambda: 0.0)

    assert reminders.due(["run_a", "run_b"]) == ["run_a", "run_b"]
    assert reminders.due(["run_a"]) == []
    assert reminders.due(["run_a", "run_b"]) == ["run_b"]
