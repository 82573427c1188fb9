"""Several rounds' labels awaited at once, deadlines, and several answers a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doors import Doors
from runs import picked
from vendor import Vendor

from rayal.pool import Pool

DROP = ["labeler=file_drop", "labeler.columns=[embedding]", "labeler.price_minor=10"]


def _status(doors: Doors, run_dir: str = "r") -> dict[str, Any]:
    return json.loads(doors("status", run_dir, "--json").done().out)


def _answer(pool: Pool, ids: list[int], name: str, annotator: str = "") -> None:
    labels = [str(one) for one in pool.secret_labels(ids)]
    told = [
        {"sample_id": i, "label": x, **({"annotator": annotator} if annotator else {})}
        for i, x in zip(ids, labels, strict=True)
    ]
    inbox = Path("r/labeler/inbox")
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))


@pytest.mark.parametrize("strategy", ["margin", "k_center"])
def test_rounds_in_flight_pick_the_same_whatever_comes_first(
    doors: Doors, class_pool: Pool, strategy: str
) -> None:
    words = ["max_open_rounds=2", "num_rounds=4", f"strategy={strategy}"]
    doors.run(class_pool, "whole", *words).done()
    assert [one["num_labels"] for one in _status(doors, "whole")["rounds"]] == [20, 40, 60, 80]
    doors.run(class_pool, "r", *DROP, *words).done()
    assert len(picked("r")) == 2
    _answer(class_pool, picked("r")[1], "second")  # the later round comes first
    said = doors.run(class_pool, "r", *DROP, *words).done()
    assert "waiting for 20 of 20 labels of round 0" in said.err
    assert len(picked("r")) == 2
    _answer(class_pool, picked("r")[0], "first")
    doors.run(class_pool, "r", *DROP, *words).done()  # rounds 0 and 1 end, 2 and 3 are ordered
    assert len(picked("r")) == 4
    assert len(_status(doors)["rounds"]) == 2
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *DROP, *words).done()
    assert _status(doors)["state"] == "done"
    assert picked("r") == picked("whole")
    rows = [i for batch in picked("r") for i in batch]
    assert len(set(rows)) == 80  # what is pending counts as picked
    one, other = ([x["test_metric"] for x in _status(doors, r)["rounds"]] for r in ("r", "whole"))
    assert one == other
    doors.run(class_pool, "alone", "num_rounds=4", f"strategy={strategy}").done()
    assert picked("alone") != picked("whole")  # which were chosen by an older model


def test_pending_labels_count_where_a_run_ends(doors: Doors, class_pool: Pool) -> None:
    words = ["max_open_rounds=3", "num_rounds=9", "stopping=max_labels", "stopping.num_labels=50"]
    doors.run(class_pool, "r", *DROP, *words).done()
    assert len(picked("r")) == 2  # a third batch would be 60
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *DROP, *words).done()
    assert (_status(doors)["state"], _status(doors)["spend"]["labels"]) == ("done", 40)
    words = ["max_open_rounds=3", "num_rounds=9", "max_amount_minor=450"]
    doors.run(class_pool, "s", *DROP, *words).done()
    assert len(picked("s")) == 2
    assert _status(doors, "s")["orders"]["promised_minor"] == 400
    doors.run(class_pool, "t", "max_open_rounds=0").refused("max_open_rounds is 0, expected 1")


def test_a_round_goes_on_with_what_came_in_time(doors: Doors, class_pool: Pool) -> None:
    words = [*DROP, "num_rounds=3", "deadline_s=0", "least_share=0.5"]
    doors.run(class_pool, "r", *words).done()
    first = picked("r")[0]
    _answer(class_pool, first[:9], "a")
    said = doors.run(class_pool, "r", *words).done()
    assert "waiting for 11 of 20 labels of round 0" in said.err  # less than half
    _answer(class_pool, first[9:12], "b")
    said = doors.run(class_pool, "r", *words).done()
    assert "round 0 goes on without 8 of 20 labels, which did not come in time" in said.err
    stands = _status(doors)
    assert [one["num_labels"] for one in stands["rounds"]] == [12]
    assert stands["orders"]["promised_minor"] == 8 * 10 + 200  # they may still come
    _answer(class_pool, first[12:], "late")
    _answer(class_pool, picked("r")[1], "c")
    doors.run(class_pool, "r", *words).done()
    stands = _status(doors)
    assert [one["num_labels"] for one in stands["rounds"]] == [12, 40]  # with the late ones
    assert stands["orders"]["promised_minor"] == 200
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *words).done()
    assert _status(doors)["state"] == "done"
    doors("audit", "verify", "r").done()
    for wrong, said in (
        (["least_share=0.5"], "no deadline_s after which a round goes on"),
        (["deadline_s=1", "least_share=2"], "least_share is 2, expected 0 to 1"),
        (["deadline_s=-1"], "deadline_s is -1, expected 0 or more"),
    ):
        doors.run(class_pool, "w", *wrong).refused(said)


def test_a_deadline_may_be_set_while_a_run_waits(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", *DROP, "num_rounds=1").done()
    _answer(class_pool, picked("r")[0][:15], "a")
    doors.run(class_pool, "r", *DROP, "num_rounds=1").done()
    assert _status(doors)["state"] == "waiting"
    doors.run(class_pool, "r", *DROP, "num_rounds=1", "deadline_s=0.01", "least_share=0.7").done()
    assert _status(doors)["state"] == "done"


def test_as_many_answers_are_awaited_as_were_ordered(doors: Doors, class_pool: Pool) -> None:
    words = [*DROP, "num_rounds=1", "labeler.overlap=2"]
    doors.run(class_pool, "r", *words).done()
    assert _status(doors)["orders"]["promised_minor"] == 400
    ids = picked("r")[0]
    _answer(class_pool, ids, "a", "anna")
    said = doors.run(class_pool, "r", *words).done()
    assert "waiting for 20 of 20 labels" in said.err
    _answer(class_pool, ids[:19], "b", "ben")
    _answer(class_pool, ids, "c", "cem")
    doors.run(class_pool, "r", *words).done()
    stands = _status(doors)
    assert stands["state"] == "done"
    assert stands["spend"]["amount_minor"] == 400
    assert stands["orders"]["num_quarantined"] == 19  # a third one of 19 samples
