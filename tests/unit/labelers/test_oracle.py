"""The oracle: its answers, its noise, its delays; restarts in between."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

from rayal.errors import ConfigError, LabelError
from rayal.labelers import oracle as module
from rayal.labelers.oracle import Oracle
from rayal.types import Order, Vocabulary

CLASSES = Vocabulary("class", ("ant", "bee", "cat", "dog"))


def truth(ids):
    return [CLASSES.classes[int(i) % 4] for i in ids]


def bound(folder, labels=truth, vocabulary=CLASSES, **settings):
    oracle = Oracle(**settings)
    oracle.bind(labels, vocabulary, str(folder))
    return oracle


def ids_table(ids):
    return pa.table({"sample_id": pa.array(ids, pa.int64())})


def ordered(oracle, ids, job_id="b0"):
    rows = ids_table(ids)
    chunks = oracle.plan(job_id, rows)
    acks = [oracle.submit(one, rows.slice(one.start, one.stop - one.start)) for one in chunks]
    return Order(job_id, tuple(acks), len(ids))


def polled(oracle, order, cursor=""):
    """Gives what one poll finds, as the loop asks: until the cursor stands still."""
    found, more = [], True
    while more:
        events, after = oracle.fetch(order, cursor)
        found += events
        cursor, more = after, after != cursor
    return found


def test_it_reveals_the_labels(tmp_path):
    oracle = bound(tmp_path, price_minor=3, annotator="me", rows_per_chunk=4)
    ids = [7, 2, 9, 100, 3, 50]
    order = ordered(oracle, ids)
    assert [(ack.key, ack.num_rows) for ack in order.chunks] == [("b0-0000", 4), ("b0-0001", 2)]
    assert oracle.plan("b0", ids_table(ids))[1].cost_minor == 6
    events = polled(oracle, order)
    assert {event.sample_id: event.value for event in events} == dict(
        zip(ids, truth(ids), strict=True)
    )
    assert {(event.cost_minor, event.annotator, event.revision) for event in events} == {
        (3, "me", 0)
    }
    assert len({event.event_id for event in events}) == 6
    status = oracle.status(order)
    assert (status.num_rows, status.num_done) == (6, 6)


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_class_noise_flips_that_share_to_any_other_class(tmp_path, noise):
    ids = np.arange(20_000)
    answers = bound(tmp_path, noise=noise, seed=3)._answers(ids)
    assert bound(tmp_path, noise=noise, seed=4)._answers(ids) != answers
    some = np.random.default_rng(0).permutation(ids)[:500]
    again = bound(tmp_path, noise=noise, seed=3)._answers(some)
    assert again == [answers[i] for i in some]  # a function of the id alone
    places = CLASSES.encode(answers).astype(int)
    wrong = places != ids % 4
    assert abs(wrong.mean() - noise) < 0.01
    steps = np.bincount((places - ids)[wrong] % 4, minlength=4) / wrong.sum()
    assert np.abs(steps - [0, 1 / 3, 1 / 3, 1 / 3]).max() < 0.03


def test_number_and_multilabel_noise(tmp_path):
    ids = np.arange(20_000)
    number = bound(tmp_path, lambda ids: ids * 1.0, Vocabulary("number"), noise=2.0)
    errors = np.asarray(number._answers(ids)) - ids
    assert abs(errors.std() - 2.0) < 0.04
    assert abs(errors.mean()) < 0.05
    tags = Vocabulary("multilabel", ("x", "y"))
    multi = bound(tmp_path, lambda ids: [["x"] for _ in ids], tags, noise=0.2)
    found = tags.encode(multi._answers(ids))
    assert np.abs(found.mean(axis=0) - [0.8, 0.2]).max() < 0.01
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.03


def test_without_noise_answers_are_plain_values(tmp_path):
    numbers = bound(tmp_path, lambda ids: [np.float64(0.5)] * len(ids), Vocabulary("number"))
    lists = bound(tmp_path, lambda ids: [np.array(["x"])] * len(ids), Vocabulary("multilabel", "x"))
    for oracle, value in ((numbers, 0.5), (lists, ["x"])):
        assert oracle._answers(np.arange(2)) == [value, value]
        json.dumps(oracle._answers(np.arange(2)))


def test_latency_goes_on_over_a_restart(tmp_path, monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    order = ordered(bound(tmp_path, latency_s=60.0), [1, 2])
    clock[0] = 1_059.0
    oracle = bound(tmp_path, latency_s=60.0)
    events, cursor = oracle.fetch(order, "")
    assert (events, oracle.status(order).num_done) == ([], 0)
    clock[0] = 1_060.0
    events, cursor = oracle.fetch(order, cursor)
    assert sorted(event.sample_id for event in events) == [1, 2]
    assert events[0].at == "1970-01-01T00:17:40+00:00"
    assert oracle.fetch(order, cursor)[0] == []
    assert oracle.fetch(order, "")[0] == events


def test_each_poll_brings_one_part_more_until_all_are_there(tmp_path):
    ids = list(range(100, 140))
    settings = {"partial_share": 0.5, "rows_per_chunk": 30, "price_minor": 2}
    order = ordered(bound(tmp_path, **settings), ids)
    polls = []
    for num_out in (15 + 5, 23 + 8, 27 + 9, 29 + 10, 40, 40):
        oracle = bound(tmp_path, **settings)  # another process each time
        assert oracle.status(order).num_done == num_out
        polls.append(polled(oracle, order))
        assert len({event.sample_id for event in polls[-1]}) == len(polls[-1]) == num_out
    assert {event.sample_id for event in polls[0]} != {*ids[:15], *ids[30:35]}
    for before, after in itertools.pairwise(polls):
        assert all(event in after for event in before)
    whole = bound(tmp_path / "whole", rows_per_chunk=30, price_minor=2)
    (tmp_path / "whole").mkdir()
    everything = polled(whole, ordered(whole, ids))
    assert _without_times(everything) == _without_times(polls[-1])


def _without_times(events):
    return sorted((e.sample_id, e.value, e.event_id, e.annotator, e.cost_minor) for e in events)


def test_a_poll_goes_on_behind_a_cursor_that_was_kept(tmp_path):
    oracle = bound(tmp_path, partial_share=0.5)
    order = ordered(oracle, list(range(8)))
    first, cursor = oracle.fetch(order, "")
    assert (len(first), oracle.fetch(order, "")[0]) == (4, first)  # not asked to its end
    assert oracle.fetch(order, cursor) == ([], cursor)
    second, cursor = oracle.fetch(order, cursor)
    assert len({event.sample_id for event in first + second}) == 6
    assert oracle.fetch(order, "")[0] == first + second


def test_no_part_comes_before_the_latency_is_over(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    oracle = bound(tmp_path, partial_share=0.5, latency_s=10.0)
    order = ordered(oracle, [1, 2, 3, 4])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert polled(oracle, order) == polled(oracle, order) == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    clock[0] = 10.0
    assert [len(polled(oracle, order)) for _ in range(4)] == [2, 3, 4, 4]


def test_a_chunk_is_placed_once(tmp_path, monkeypatch):
    oracle, rows = bound(tmp_path), ids_table([1, 2])
    (chunk,) = oracle.plan("b0", rows)
    assert oracle.lookup(chunk.key) is None
    first = oracle.submit(chunk, rows)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(module.time, "time", lambda: 5.0)
    again = bound(tmp_path)
    assert again.submit(chunk, rows) == first == again.lookup(chunk.key)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    with pytest.raises(LabelError, match="chunk b0-0000 was planned as rows 0 to 2"):
        oracle.submit(chunk, ids_table([1, 3]))
    (other,) = oracle.plan("b0", ids_table([1, 3]))
    with pytest.raises(LabelError, match="chunk b0-0000 was placed before with payload"):
        oracle.submit(other, ids_table([1, 3]))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_sample_without_a_label_is_answered_by_a_refusal(tmp_path, noise):
    """One that costs nothing, and says nothing of the others: their noise is the same."""
    ids = list(range(30))
    whole = bound(tmp_path, noise=noise, price_minor=7)
    known = polled(whole, ordered(whole, ids))
    oracle = bound(
        tmp_path,
        lambda ids: [None if i % 10 == 5 else x for i, x in zip(ids, truth(ids), strict=True)],
        noise=noise,
        price_minor=7,
    )
    order = ordered(oracle, ids, "b1")
    for event, other in zip(polled(oracle, order), known, strict=True):
        refused = event.sample_id % 10 == 5
        assert (event.sample_id, event.event_id) == (other.sample_id, other.event_id)
        assert event.value == (None if refused else other.value)
        assert event.cost_minor == (0 if refused else 7)
    assert oracle.status(order).num_done == 30


def test_where_no_label_is_known_all_are_refused(tmp_path):
    oracle = bound(tmp_path, lambda ids: [None] * len(ids), noise=0.5)
    assert [event.value for event in polled(oracle, ordered(oracle, [4, 5]))] == [None, None]


def test_cancel_takes_back_what_is_not_there_yet(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    oracle = bound(tmp_path, latency_s=10.0, partial_share=0.5)
    early, late = ordered(oracle, [1, 2, 3, 4], "a"), ordered(oracle, [5], "b")
    oracle.cancel(late)
    clock[0] = 20.0
    first = polled(oracle, early)
    oracle.cancel(early)
    for _ in range(2):
        assert polled(oracle, late) == []
        assert len(polled(oracle, early)) == len(first) + 1 == 3  # the part that had come meanwhile


def test_erase(tmp_path):
    oracle = bound(tmp_path, lambda ids: [None if i == 4 else "ant" for i in ids])
    order = ordered(oracle, [1, 2, 3, 4], "a")
    oracle.erase(order, np.array([2]))
    oracle.erase(order, np.array([4, 2, 99]))
    placed = json.loads((tmp_path / "a-0000.json").read_text())
    assert (placed["values"], placed["erased"]) == (["ant", None, "ant", None], [2, 4])
    assert sorted(event.sample_id for event in polled(oracle, order)) == [1, 3]


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": -0.1},
        {"latency_s": -1},
        {"partial_share": 0.0},
        {"partial_share": 1.1},
        {"price_minor": -1},
        {"rows_per_chunk": 0},
    ],
)
def test_settings_that_cannot_be_meant(settings):
    with pytest.raises(ConfigError, match="give"):
        Oracle(**settings)


def test_noise_above_one_is_for_numbers_only(tmp_path):
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        bound(tmp_path, noise=1.5)
    bound(tmp_path, vocabulary=Vocabulary("number"), noise=1.5)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(LabelError, match="not bound"):
        Oracle().lookup("k")
    order = ordered(bound(tmp_path), [1])
    (tmp_path / "b0-0000.json").unlink()
    with pytest.raises(LabelError, match="knows no chunk b0-0000"):
        bound(tmp_path).fetch(order, "")
