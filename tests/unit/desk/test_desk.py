"""The desk: the order of rows, what is handed over when, what is taken back, and what survives."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from desks import PETS, Drop, holding, say, take_back, texts

from rayal.desk.choices import Choices
from rayal.desk.desk import Stale, file_name
from rayal.errors import LabelError
from rayal.types import Vocabulary

A, B = ("b0-0000", 10), ("b0-0000", 11)


def test_rows_come_in_the_order_of_the_batch_and_the_newest_answer_is_held_back(tmp_path: Path):
    drop = Drop(tmp_path)
    order = drop.order(texts(3))
    desk = drop.desk()
    assert say(desk, "dog", "cat") == [A, B]
    assert drop.lines() == [(10, "dog", 0)]
    assert desk.is_holding
    say(desk, None)
    assert desk.next_row() is None
    assert drop.lines() == [(10, "dog", 0), (11, "cat", 0)]
    assert drop.labeler.status(order).num_done == 2
    desk.close()
    events = drop.fetch(order)
    assert [(one.sample_id, one.value, one.annotator) for one in events] == [
        (10, "dog", "ann"),
        (11, "cat", "ann"),
        (12, None, "ann"),
    ]
    assert {one.event_id for one in events} == {"10/ann", "11/ann", "12/ann"}


def test_the_newest_answer_is_taken_back_as_if_it_never_was(tmp_path: Path):
    drop = Drop(tmp_path)
    order = drop.order(texts(3))
    desk = drop.desk()
    say(desk, "dog", "cat")
    assert take_back(desk) == B == desk.next_row()
    say(desk, "emu")
    desk.close()
    assert drop.lines() == [(10, "dog", 0), (11, "emu", 0)]
    assert holding(drop.fetch(order)) == {10: "dog", 11: "emu"}


def test_an_answer_that_a_run_may_have_read_is_withdrawn_by_a_higher_revision(tmp_path: Path):
    drop = Drop(tmp_path)
    order = drop.order(texts(3))
    desk = drop.desk()
    say(desk, "dog", "cat")
    seen = drop.fetch(order)
    take_back(desk)
    assert take_back(desk) == A == desk.next_row()
    seen += drop.fetch(order)
    assert holding(seen) == {10: None}  # nothing counts that the person took back
    assert drop.labeler.status(order).num_done == 1  # and the round stays open
    assert say(desk, "emu", "cat", "cat") == [A, B, ("b0-0000", 12)]
    desk.close()
    seen += drop.fetch(order)
    assert holding(seen) == {10: "emu", 11: "cat", 12: "cat"}
    assert drop.lines()[:3] == [(10, "dog", 0), (10, None, 1), (10, "emu", 2)]
    with pytest.raises(Stale, match="not the last one"):
        desk.undo(A, desk.version(A))


def test_no_round_closes_on_an_answer_that_was_taken_back(tmp_path: Path):
    """However deep the undo: rows after it are open in the inbox until it is answered again."""
    rng = random.Random(0)
    for attempt in range(30):
        drop = Drop(tmp_path / str(attempt))
        order = drop.order(texts(4))
        desk, mine = drop.desk(), {}
        for _ in range(40):
            if desk.last() is not None and rng.random() < 0.4:
                mine.pop(take_back(desk)[1])
            elif (where := desk.next_row()) is not None:
                mine[where[1]] = rng.choice(["cat", "dog"])
                say(desk, mine[where[1]])
            told = drop.labeler.status(order).num_done
            if told == order.num_rows:
                assert holding(_all(drop)) == mine
        while desk.next_row() is not None:
            mine[desk.next_row()[1]] = "emu"
            say(desk, "emu")
        desk.close()
        assert holding(_all(drop)) == mine
        assert len(mine) == 4


def _all(drop: Drop) -> list:
    return drop.labeler.fetch(drop.order(texts(4)), "")[0]


def test_a_held_answer_is_handed_over_in_time_or_when_told(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(3))
    clock = [1000.0]
    desk = drop.desk(hold_s=30, now=lambda: clock[0])
    say(desk, "dog")
    desk.settle()
    assert drop.lines() == []
    clock[0] += 30
    desk.settle()
    assert drop.lines() == [(10, "dog", 0)]
    say(desk, "cat")
    desk.hand_over()
    assert len(drop.lines()) == 2
    assert not desk.is_holding


def test_what_was_answered_is_there_again_and_can_be_taken_back(tmp_path: Path):
    drop = Drop(tmp_path)
    order = drop.order(texts(4))
    desk = drop.desk()
    say(desk, "dog", None)
    desk.close()
    desk = drop.desk()
    assert desk.next_row() == ("b0-0000", 12)
    assert desk.counts() == [("b0-0000", 4, 2)]
    assert desk.label_of(A) == "dog"
    assert take_back(desk) == B
    assert take_back(desk) == A
    assert desk.last() is None
    say(desk, "emu")
    desk.close()
    assert holding(drop.fetch(order)) == {10: "emu", 11: None}
    assert drop.desk().next_row() == B  # what was taken back is open, though it has a line


def test_writes_that_saw_another_version_change_nothing(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(3))
    desk = drop.desk()
    version = desk.version(A)
    say(desk, "dog")
    for number in (version, version + 1, -1):
        with pytest.raises(Stale, match="sample_id 10 was answered or changed"):
            desk.answer(A, number, "cat")
    take_back(desk)
    with pytest.raises(Stale):  # open as before, but it is not what this tab saw
        desk.answer(A, version, "cat")
    with pytest.raises(LabelError, match="sample_id 99 is no row of chunk b0-0000"):
        desk.answer(("b0-0000", 99), 0, "cat")
    desk.close()
    assert drop.lines() == []


def test_chunks_that_come_later_are_picked_up_and_the_older_go_first(tmp_path: Path):
    drop = Drop(tmp_path, rows_per_chunk=2)
    drop.order(texts(3), "b9")
    desk = drop.desk()
    say(desk, "dog", "dog", "dog")
    assert desk.next_row() is None
    drop.order(texts(2, start=50), "b1")
    assert [key for key, *_ in desk.counts()] == ["b9-0000", "b9-0001", "b1-0000"]
    assert desk.next_row() == ("b1-0000", 50)
    say(desk, "cat")
    assert [take_back(desk)[1] for _ in range(2)] == [50, 12]
    assert desk.next_row() == ("b9-0001", 12)


def test_rows_that_others_answered_are_not_asked_again(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(4))
    (drop.inbox / "b0-0000").mkdir(parents=True)
    (drop.inbox / "b0-0000" / "mail.csv").write_text("sample_id,label\n10,dog\n12,\n")
    desk = drop.desk()
    assert say(desk, "cat") == [B]
    assert desk.next_row() == ("b0-0000", 13)
    twice = Drop(tmp_path / "twice", overlap=2)
    twice.order(texts(1))
    for name in ("ann", "bob"):
        desk = twice.desk(name)
        say(desk, "cat")
        desk.close()
    assert twice.desk("eve").next_row() is None


def test_samples_that_were_erased_are_forgotten_by_the_desk_too(tmp_path: Path):
    drop = Drop(tmp_path)
    order = drop.order(texts(4))
    desk = drop.desk()
    say(desk, "dog", "cat", "dog")
    drop.labeler.erase(order, [11])
    assert desk.counts() == [("b0-0000", 3, 1)]
    say(desk, "emu")
    desk.close()
    assert [line[0] for line in drop.lines()] == [10, 12, 13]
    drop.labeler.cancel(order)
    assert drop.desk("bob").counts() == []


def test_one_desk_a_name_and_names_are_made_fit_for_files(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(1))
    desk = drop.desk("../Ann B/../c")
    assert desk.annotator == "Ann-B-..-c"
    with pytest.raises(LabelError, match=r"'Ann-B-\.\.-c' labels here already"):
        drop.desk("../Ann B/../c")
    desk.close()
    drop.desk("../Ann B/../c").close()
    assert [file_name(x) for x in ("", "...", "/", "å", "x" * 90)] == ["me"] * 4 + ["x" * 64]


def test_a_file_that_no_desk_wrote_is_named(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(1))
    (drop.inbox / "b0-0000").mkdir(parents=True)
    (drop.inbox / "b0-0000" / "ann.jsonl").write_text('{"label": 1}\n')
    with pytest.raises(LabelError, match=r"ann\.jsonl:1 is no answer that a desk wrote"):
        drop.desk()
    assert drop.desk("bob").next_row() == A  # the lock of the first was let go


_CHILD = """
import sys
from pathlib import Path
from rayal.desk.desk import Desk
desk = Desk(Path(sys.argv[1]), Path(sys.argv[2]), "ann", refresh_s=1e9)
for turn in range(10_000):
    where = desk.next_row()
    if where is None:
        break
    desk.answer(where, desk.version(where), ("cat", "dog", "emu")[where[1] % 3])
    print(where[1], flush=True)
"""


def test_killed_at_any_moment_no_answer_that_was_taken_is_lost(tmp_path: Path):
    drop = Drop(tmp_path, rows_per_chunk=40)
    order = drop.order(texts(200))
    rng, told = random.Random(1), set()
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(drop.outbox), str(drop.inbox)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(rng.randint(3, 20)):
            told.add(int(child.stdout.readline()))
        os.kill(child.pid, signal.SIGKILL)
        told |= {int(line) for line in child.stdout.read().split()}
        child.wait()
        child.stdout.close()
    assert len(told) > 24
    desk = drop.desk()
    assert told <= {one[1] for one in desk._done}
    while (where := desk.next_row()) is not None:
        say(desk, ("cat", "dog", "emu")[where[1] % 3])
    desk.close()
    events = drop.fetch(order)
    assert len(events) == 200  # each once
    assert all(one.value == ("cat", "dog", "emu")[one.sample_id % 3] for one in events)


def test_a_desk_that_died_between_its_two_files_goes_on(tmp_path: Path, monkeypatch):
    drop = Drop(tmp_path)
    drop.order(texts(3))
    desk = drop.desk()
    say(desk, "dog")

    def die(*_: object) -> None:
        raise OSError(28, "the disk is full", "ann.jsonl")

    monkeypatch.setattr(desk, "_hand_over", die)
    with pytest.raises(OSError, match="disk is full"):
        say(desk, "cat")
    assert desk.next_row() == ("b0-0000", 12)  # it was kept
    desk._lock_file.close()
    desk = drop.desk()
    assert drop.lines() == [(10, "dog", 0)]
    assert desk.last() == B
    take_back(desk)
    desk.close()
    assert drop.lines() == [(10, "dog", 0)]


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        (("cat", "dog"), "12"),
        (tuple(range(10)), "0123456789"),
        (("B", "a"), "ba"),
        (tuple(f"c{i}" for i in range(32)), "123456789abcdefghijklmnoprtvwxyz"),
        (tuple(f"c{i}" for i in range(33)), ""),
        (("u", "v"), "12"),
    ],
)
def test_keys(classes: tuple, keys: str):
    assert "".join(Choices("class", classes).keys) == keys


def test_what_is_said_becomes_a_label_or_is_refused():
    assert Choices("class", PETS.classes).label(1) == "dog"
    assert Choices("multilabel", PETS.classes).label([2, 0, 2]) == ["cat", "emu"]
    assert Choices("multilabel", PETS.classes).label([]) == []
    assert Choices("number").label("-1.5e2") == -150.0
    for kind, said, part in [
        ("class", 3, "3 is not a place among the 3 classes"),
        ("class", -1, "not a place"),
        ("class", True, "not a place"),
        ("class", "cat", "not a place"),
        ("class", None, "not a place"),
        ("multilabel", 1, "not a list of places"),
        ("multilabel", [5], "not a list"),
        ("number", "nan", "'nan' is not a finite number"),
        ("number", "", "not a finite"),
        ("number", True, "not a finite"),
        ("number", [1], "not a finite"),
    ]:
        with pytest.raises(LabelError, match=part):
            Choices(kind, () if kind == "number" else PETS.classes).label(said)


def test_a_chunk_without_a_vocabulary_is_refused(tmp_path: Path):
    drop = Drop(tmp_path, vocabulary=None)
    drop.order(texts(1))
    with pytest.raises(LabelError, match="asks for labels of kind 'any', and a desk takes class"):
        drop.desk()


def test_many_labels_and_numbers_reach_the_run_as_it_reads_them(tmp_path: Path):
    for name, words, label in [
        ("m", Vocabulary("multilabel", ("x", "y")), ["x", "y"]),
        ("n", Vocabulary("number"), 2.5),
        ("i", Vocabulary("class", (3, 4)), 4),
    ]:
        drop = Drop(tmp_path / name, words)
        order = drop.order(texts(2))
        desk = drop.desk()
        say(desk, label, [] if name == "m" else label)
        desk.close()
        assert drop.fetch(order)[0].value == label
        assert json.loads((drop.inbox / "b0-0000/ann.jsonl").read_text().split("\n")[0])
