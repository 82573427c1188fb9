"""once(): recorded results, fingerprints, notes, digests; the configuration of a run."""

import math

import numpy as np
import pytest

from rayal.errors import ConfigError, LedgerError
from rayal.ledger import Ledger, compare_configs
from rayal.types import Ack, Batch, Checkpoint, LabelEvent, Order, Picks, TestResult

NOUNS = [
    Batch("picks/0.parquet", "ab" * 32, 3),
    Order("b0", (Ack("b0-0000", "folder-a", 2), Ack("b0-0001", "folder-b", 1)), 3),
    Ack("b0-0000", "folder-a", 2),
    Checkpoint("models/0", "m0"),
    TestResult("accuracy", True, 0.1 + 0.2, 10),
    {"rows": 3, "share": 0.1, "name": "é", "none": None, "list": [1, 2.0, True]},
    7,
]


def url(folder):
    return f"sqlite:///{folder}/ledger.db"


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
        yield ledger


def test_a_recorded_step_is_handed_back_and_not_run_again(ledger):
    for place, noun in enumerate(NOUNS):
        calls = []

        def step(*arguments, noun=noun, calls=calls):
            calls.append(arguments)
            return noun

        first = ledger.once(place, "selected", step, 1, "x")
        again = ledger.once(place, "selected", step, 1, "x")
        assert first == again == noun
        assert type(again) is type(noun)
        assert calls == [(1, "x")]
    assert [event.seq for event in ledger.events()] == list(range(len(NOUNS)))
    assert ledger.event(0, "selected").result == NOUNS[0]
    assert ledger.event(0, "trained") is None
    assert [event.round for event in ledger.events(step="selected")] == list(range(len(NOUNS)))


def test_records_survive_a_reopening(tmp_path):
    with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
        ledger.once(0, "selected", lambda: NOUNS[1])
    with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
        assert ledger.once(0, "selected", lambda: pytest.fail("ran again")) == NOUNS[1]
        assert ledger.events()[0].epoch == 1


def test_none_is_not_recorded(ledger):
    answers = iter([None, 5])
    assert ledger.once(0, "labelled", lambda: next(answers)) is None
    assert ledger.events() == []
    assert ledger.once(0, "labelled", lambda: next(answers)) == 5


def picks(key):
    floats = np.zeros(2)
    return Picks(np.array([3, 1]), floats, floats + key, floats + math.nan, ("a", "b"))


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        (1, 2),
        (1, 1.0),
        (None, 0),
        ("1", 1),
        (NOUNS[0], NOUNS[3]),
        (np.array([1, 2]), np.array([2, 1])),
        (np.array([1, 2]), np.array([1, 2], np.int32)),
        (picks(0.0), picks(1.0)),
        ([1, [2]], [1, 2]),
        (0.1, math.inf),
    ],
)
def test_other_inputs_are_refused(ledger, recorded, asked):
    ledger.once(2, "trained", lambda _: 1, recorded)
    assert ledger.once(2, "trained", lambda _: 2, recorded) == 1
    with pytest.raises(
        LedgerError, match=r"round 2, step 'trained' was recorded with other inputs.*new run_dir"
    ):
        ledger.once(2, "trained", lambda _: 1, asked)


def test_what_cannot_be_compared_or_recorded_is_refused(ledger):
    with pytest.raises(LedgerError, match="input of type object"):
        ledger.once(0, "a", lambda _: 1, object())
    for result in (object(), picks(0.0), math.nan, LabelEvent(1, "a", "e"), {1, 2}):
        with pytest.raises(LedgerError, match=r"step 'a' gave a .* which a ledger cannot hold"):
            ledger.once(0, "a", lambda result=result: result)
    assert ledger.events() == []


def test_notes_go_to_their_step_and_not_into_the_digest(tmp_path):
    digests = []
    for folder, seconds in ((tmp_path / "a", 1.5), (tmp_path / "b", 2.5)):
        with Ledger.open(url(folder), folder.name, writer=True) as ledger:

            def order(ledger=ledger, seconds=seconds):
                ledger.note(host=str(seconds))
                return ledger.once(0, "ack", acknowledge)

            def acknowledge(ledger=ledger, seconds=seconds):
                ledger.note(attempts=seconds)
                return NOUNS[2]

            ledger.note(warmup_s=seconds)
            ledger.once(0, "ordered", order)
            ledger.once(0, "tested", lambda: 1)
            notes = {event.step: event.notes for event in ledger.events()}
            assert notes == {
                "ack": {"attempts": seconds},
                "ordered": {"warmup_s": seconds, "host": str(seconds)},
                "tested": {},
            }
            digests.append(ledger.digest())
    assert digests[0] == digests[1]


def test_notes_of_an_attempt_that_failed_are_kept(ledger):
    def fails():
        ledger.note(attempts=1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ledger.once(0, "tested", fails)
    ledger.once(0, "tested", lambda: 1)
    assert ledger.events()[0].notes == {"attempts": 1}


def one_run(folder, run_id, ack="h", portions=1, reverse=False, changed=0, swap=False):
    with Ledger.open(url(folder), run_id, writer=True) as ledger:
        ledger.start_run({"seed": 1, "run_dir": str(folder)})
        order = Order("b0", (Ack("b0-0000", ack, 2),), 2)
        names = ["a", "b"][:: -1 if swap else 1]
        for name in names:
            ledger.once(0, name, lambda _: order, order)
        events = [LabelEvent(i, f"c{i % 3 + changed}", f"{i}", at=ack) for i in range(30)]
        events += [LabelEvent(4, None, "4", revision=1), LabelEvent(4, "z", "o", annotator="x")]
        for part in np.array_split(np.arange(len(events))[:: -1 if reverse else 1], portions):
            ledger.append_labels(0, "b0", [events[i] for i in part])
        ledger.append_labels(0, "b0", events[:7])
        ledger.set_state("done")
        return ledger.digest()


def test_digest_sees_the_answer_and_nothing_else(tmp_path):
    plain = one_run(tmp_path / "a", "a")
    assert plain == one_run(tmp_path / "b", "b", ack="other", portions=5, reverse=True, swap=True)
    assert plain != one_run(tmp_path / "c", "a", changed=1)
    with Ledger.open(url(tmp_path / "a"), "a", writer=True) as ledger:
        assert ledger.digest() == plain
        ledger.once(0, "c", lambda: 1)
        assert ledger.digest() != plain


def test_two_runs_share_a_database(tmp_path):
    assert one_run(tmp_path, "a") == one_run(tmp_path, "b")
    with Ledger.open(url(tmp_path), "a", writer=False) as ledger:
        assert len(ledger.events()) == 2
        assert ledger.spend() == {"labels": 30, "amount_minor": 0}


def test_compare_configs():
    old = {
        "seed": 1,
        "engine": {"kind": "local"},
        "labeler": {"poll_s": 5, "price_minor": 2},
        "num_rounds": 3,
        "stop": {"labels": 100, "rules": [{"v": 1}, {"v": 2}]},
    }
    new = {
        "seed": 2,
        "engine": {"kind": "ray", "num_workers": 2},
        "labeler": {"poll_s": 9, "price_minor": 3},
        "num_rounds": 4,
        "stop": {"labels": None, "rules": [{"v": 1}, {"v": True}]},
        "extra": "x",
    }
    allowed = (("engine.", "labeler.poll"), ("num_rounds", "stop.labels"))
    assert compare_configs(old, old) == []
    assert compare_configs(old, new, *allowed) == [
        'extra: (absent) -> "x"',
        "labeler.price_minor: 2 -> 3",
        "seed: 1 -> 2",
        "stop.rules.1.v: 2 -> true",
    ]
    assert "num_rounds: 4 -> 3" in compare_configs(new, old, *allowed)
    assert "stop.labels: null -> 100" in compare_configs(new, old, *allowed)
    assert compare_configs({"engine": None}, {"engine": {"a": 1}}, ("engine.",)) == []
    assert compare_configs({"engines": 1}, {"engines": 2}, ("engine.",)) != []
    assert compare_configs({"a": 1}, {"a": True}) == ["a: 1 -> true"]


def test_start_run_refuses_changes_and_lists_the_keys(tmp_path):
    with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
        first = ledger.start_run({"seed": 1, "num_rounds": 2, "engine": {"x": 1}})
        assert (first.state, first.config["seed"]) == ("running", 1)
        assert ledger.start_run({"seed": 5}).config == {"seed": 5}  # nothing depends on it yet
        ledger.start_run({"seed": 1, "num_rounds": 2, "engine": {"x": 1}})
        ledger.once(0, "step", lambda: 1)
        allowed = {"may_change": ("engine.",), "may_grow": ("num_rounds",)}
        grown = ledger.start_run({"seed": 1, "num_rounds": 3, "engine": {"x": 2}}, **allowed)
        assert grown.config == {"seed": 1, "num_rounds": 3, "engine": {"x": 2}}
        assert grown.created == first.created
        with pytest.raises(ConfigError) as error:
            ledger.start_run({"seed": 2, "num_rounds": 2}, **allowed)
        assert "seed: 1 -> 2" in str(error.value)
        assert "num_rounds: 3 -> 2" in str(error.value)
        assert "engine" not in str(error.value)
        assert ledger.run() == grown


def test_states(tmp_path):
    with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
        with pytest.raises(LedgerError, match=r"knows no run 'run' \(it has: none\)"):
            ledger.state()
        ledger.start_run({})
        assert ledger.state() == "running"
        ledger.set_state("waiting", waiting_for="30 labels of round 1")
        assert (ledger.state(), ledger.run().waiting_for) == ("waiting", "30 labels of round 1")
        ledger.start_run({})
        assert ledger.run().waiting_for is None
        with Ledger.open(url(tmp_path), "run", writer=False) as reader:
            assert reader.state() == "running"
    with Ledger.open(url(tmp_path), "run", writer=False) as reader:
        assert reader.state() == "interrupted"
    for state in ("done", "failed"):
        with Ledger.open(url(tmp_path), "run", writer=True) as ledger:
            ledger.set_state(state, error="no" if state == "failed" else None)
            assert ledger.state() == state
