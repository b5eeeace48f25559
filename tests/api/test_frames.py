"""How frames are written, and what a listener that is too slow gets instead of all."""

import json
from itertools import count

from director.api.frames import coalesced, written
from director.domain.events import CATALOGUE, Event, EventType
from director.domain.times import utc_now

P, M, E, S = (
    EventType.WORKFLOW_PROGRESS,
    EventType.SESSION_METRICS,
    EventType.WORKFLOW_COMPLETED,
    EventType.STEP_ENDED,
)


def log(*entries: tuple[str, EventType]) -> list[Event]:
    """Events in order, each of a subject."""
    seqs: dict[str, int] = {}
    ids = count(1)
    found = []
    for subject, kind in entries:
        seqs[subject] = seqs.get(subject, 0) + 1
        found.append(
            Event(
                id=next(ids),
                seq=seqs[subject],
                subject=subject,
                type=kind,
                owner_id="usr_1",
                session_id=None,
                workflow_id=None,
                data={},
                created_at=utc_now(),
            )
        )
    return found


def kept(*entries: tuple[str, EventType]) -> list[tuple[int, int]]:
    """Id, and how many before it are left out, of what remains."""
    frames = [json.loads(frame.text) for frame in coalesced(log(*entries))]
    return [(frame["id"], frame.get("coalesced", 0)) for frame in frames]


def test_of_progress_in_a_row_the_newest_remains_and_counts_the_others() -> None:
    assert kept(("a", P), ("a", P), ("a", P)) == [(3, 2)]


def test_other_subjects_between_them_do_not_break_the_row() -> None:
    assert kept(("a", P), ("b", P), ("a", P), ("b", E), ("a", P)) == [(2, 0), (4, 0), (5, 2)]


def test_another_event_of_the_subject_breaks_the_row() -> None:
    assert kept(("a", P), ("a", S), ("a", P), ("a", P)) == [(1, 0), (2, 0), (4, 1)]


def test_what_may_not_be_coalesced_is_kept_whole() -> None:
    kinds = [kind for kind in EventType if not CATALOGUE[kind].coalesces]
    entries = [("a", kind) for kind in kinds for _ in range(2)]
    assert kept(*entries) == [(number, 0) for number in range(1, len(entries) + 1)]


def test_metrics_and_progress_are_not_taken_for_one_another() -> None:
    assert kept(("a", M), ("a", M), ("a", P)) == [(2, 1), (3, 0)]


def test_a_frame_is_one_line_for_everybody_who_splits_lines() -> None:
    content = {"said": "one\u2028two\u2029three\x85four\nfive\rsix ü"}
    text = written(content)
    assert len(text.splitlines()) == 1
    assert json.loads(text) == content
