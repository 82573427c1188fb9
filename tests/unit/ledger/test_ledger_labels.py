"""Label events: replay, revisions, withdrawals, conflicts, cost and size."""

import time

import numpy as np
import pytest

from rayal.errors import LabelError
from rayal.ledger import Ledger
from rayal.types import LabelEvent


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", "run", writer=True) as ledger:
        yield ledger


def values(ledger, **which):
    return [(one.event.sample_id, one.event.value) for one in ledger.labels(**which)]


def test_a_replay_changes_nothing(ledger):
    events = [LabelEvent(i, "a", f"e{i}", cost_minor=3) for i in range(10)]
    assert ledger.append_labels(0, "j", events[:6]) == 6
    assert ledger.append_labels(0, "j", events[2:] + events) == 4
    assert ledger.append_labels(0, "j", events) == 0
    assert ledger.append_labels(0, "j", []) == 0
    assert ledger.spend() == {"labels": 10, "amount_minor": 30}


def test_the_highest_revision_holds_whatever_came_first(ledger):
    ledger.append_labels(1, "j", [LabelEvent(5, "new", "e", revision=2, cost_minor=1)])
    ledger.append_labels(1, "j", [LabelEvent(5, "old", "e", revision=1, cost_minor=1)])
    assert values(ledger) == [(5, "new")]
    assert ledger.spend() == {"labels": 1, "amount_minor": 2}


def test_withdrawn_and_refused_are_paid_but_no_labels(ledger):
    ledger.append_labels(
        0, "j", [LabelEvent(1, "a", "e1", cost_minor=4), LabelEvent(2, None, "e2")]
    )
    ledger.append_labels(0, "j", [LabelEvent(1, None, "e1", revision=1)])
    assert values(ledger) == []
    assert ledger.spend() == {"labels": 0, "amount_minor": 4}


def test_annotators_jobs_and_rounds_are_apart(ledger):
    ledger.append_labels(0, "j", [LabelEvent(1, "a", "1/x", annotator="x")])
    ledger.append_labels(0, "j", [LabelEvent(1, "b", "1/y", annotator="y")])
    ledger.append_labels(1, "k", [LabelEvent(9, "c", "1/x")])
    assert values(ledger) == [(1, "a"), (1, "b"), (9, "c")]
    assert values(ledger, round=1) == values(ledger, job_id="k") == [(9, "c")]
    assert ledger.spend() == {"labels": 2, "amount_minor": 0}
    assert ledger.spend(round=0) == {"labels": 1, "amount_minor": 0}
    assert [one.event.annotator for one in ledger.labels(round=0)] == ["x", "y"]


@pytest.mark.parametrize("value", ["ä", "", 3, True, 0.1 + 0.2, ["a", 1], {"box": [1.5, 2]}])
def test_values_come_back_as_they_went_in(ledger, value):
    event = LabelEvent(2**62, value, "e", 3, "anna", 7, "2026-01-01T00:00:00Z")
    ledger.append_labels(0, "j", [event])
    assert ledger.labels()[0].event == event
    assert type(ledger.labels()[0].event.value) is type(value)


def test_numpy_values_are_plain_in_the_ledger(ledger):
    ledger.append_labels(
        0, "j", [LabelEvent(1, np.int64(3), "a"), LabelEvent(2, np.arange(2), "b")]
    )
    assert values(ledger) == [(1, 3), (2, [0, 1])]


@pytest.mark.parametrize(
    "other",
    [LabelEvent(1, "b", "e"), LabelEvent(2, "a", "e"), LabelEvent(1, "a", "e", annotator="x")],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_conflict_is_refused_and_nothing_of_its_portion_is_kept(ledger, other, at_once):
    first, fresh = LabelEvent(1, "a", "e"), LabelEvent(7, "a", "f")
    if not at_once:
        ledger.append_labels(0, "j", [first])
    portion = [fresh, first, other] if at_once else [fresh, other]
    with pytest.raises(LabelError, match=r"job j: event 'e' revision 0 .*a higher revision"):
        ledger.append_labels(0, "j", portion)
    assert values(ledger) == ([] if at_once else [(1, "a")])


def test_a_label_that_is_no_value_is_refused(ledger):
    with pytest.raises(LabelError, match="the label of sample_id 4 is nan"):
        ledger.append_labels(0, "j", [LabelEvent(4, float("nan"), "e")])


def test_100k_events_are_fast(ledger):
    events = [LabelEvent(i, f"class {i % 20}", f"e{i}", cost_minor=1) for i in range(100_000)]
    ledger.append_labels(0, "warm", events[:10])
    start = time.process_time()
    assert ledger.append_labels(0, "j", events[:50_000]) == 50_000
    assert ledger.append_labels(0, "j", events) == 50_000
    inserted_s = time.process_time() - start
    assert ledger.append_labels(0, "j", events) == 0
    assert len(ledger.labels(job_id="j")) == 100_000
    assert ledger.spend()["amount_minor"] == 100_010
    ledger.digest()
    print(f"inserted in {inserted_s:.1f} CPU-s, all in {time.process_time() - start:.1f} CPU-s")
    assert inserted_s < 5.0
