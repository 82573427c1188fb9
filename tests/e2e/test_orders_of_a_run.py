"""Orders of a whole run: what left, what is in doubt, what the record says, what money allows."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import Doors
from runs import picked
from vendor import Vendor

from rayal.errors import InDoubt, LabelError
from rayal.labelers.file_drop import FileDrop
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir
from rayal.types import Capabilities

DROP = ["labeler=file_drop", "labeler.columns=[embedding]", "labeler.price_minor=10"]


def _orders(doors: Doors) -> dict[str, Any]:
    return json.loads(doors("orders", "r", "--json").done().out)


def _status(doors: Doors) -> dict[str, Any]:
    return json.loads(doors("status", "r", "--json").done().out)


def test_the_record_says_what_left_and_is_found_changed(doors: Doors, class_pool: Pool) -> None:
    words = [*DROP, "labeler.rows_per_chunk=15", "num_rounds=2"]
    doors.run(class_pool, "r", *words).done()
    told = _orders(doors)
    assert [(one["num_rows"], one["state"]) for one in told["orders"]] == [
        (15, "placed"), (5, "placed"),
    ]  # fmt: skip
    assert told["promised_minor"] == 200
    stands = _status(doors)["orders"]
    assert (stands["promised_minor"], stands["forecast_minor"]) == (200, 400)
    assert "2.00 USD on order; the whole run is going to cost about 4.00 USD" in (
        doors("status", "r").done().out
    )
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *words).done()
    assert _orders(doors)["promised_minor"] == 200  # round 0 is settled, round 1 on order
    first = json.loads(doors("audit", "sent", "r").done().out.splitlines()[0])
    assert first["columns"] == ["sample_id", "embedding"]
    assert (first["vendor"], first["num_rows"], first["rows"]) == ("FileDrop", 15, [0, 15])
    assert first["why"].startswith("batch ")
    said = doors("audit", "verify", "r").done().out
    head = said.split()[-1]
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *words).done()
    doors("audit", "verify", "r", "--head", head).done()
    doors("audit", "verify", "r", "--head", "0" * 64).refused("1 things differ")
    for change, where in (
        ("UPDATE chain SET detail = replace(detail, 'embedding', 'embeddinG') WHERE what='attempt'",
         "its content is not what was written"),
        ("DELETE FROM chain WHERE seq = 3", "entry 3 is missing before it"),
        ("UPDATE label_events SET value = '\"ant\"' WHERE value = '\"bee\"'", "are not what came"),
        ("DELETE FROM label_events WHERE rowid IN (SELECT rowid FROM label_events LIMIT 1)",
         "answers: 40 were taken and 0 kept apart, there are 39 and 0"),
        ("UPDATE events SET record = replace(record, '20', '21') WHERE step = 'selected'",
         "step 'selected': it is not what was recorded"),
        ("DELETE FROM events WHERE step = 'trained'", "it was recorded and is gone"),
    ):  # fmt: skip
        copy = Path("r/ledger.db").read_bytes()
        with sqlite3.connect("r/ledger.db") as database:
            database.execute(change)
        database.close()
        said = doors("audit", "verify", "r")
        said.refused("is not as it was written")
        assert where in said.out, change
        Path("r/ledger.db").write_bytes(copy)
    doors("audit", "verify", "r").done()
    batch = next(Path("r").glob("rounds/*/batch.parquet"), None) or next(
        path for path in Path("r").rglob("*.parquet")
    )
    content = bytearray(batch.read_bytes())
    content[len(content) // 2] ^= 1
    batch.write_bytes(bytes(content))
    doors("audit", "verify", "r").refused("is not as it was written")


def test_nothing_is_ordered_beyond_the_limit(doors: Doors, class_pool: Pool) -> None:
    words = [*DROP, "num_rounds=3"]
    doors.run(class_pool, "r", *words, "max_amount_minor=150").done()
    assert not Path("r/labeler/outbox").exists() or not list(Path("r/labeler/outbox").iterdir())
    assert _status(doors)["state"] == "done"
    said = doors.run(class_pool, "r", *words, "max_amount_minor=450").done()
    assert "waiting for 20 of 20 labels" in said.err
    for _ in range(2):
        Vendor(class_pool, "r").answer()
        said = doors.run(class_pool, "r", *words, "max_amount_minor=450").done()
    assert "cost 400 minor units, with those on order, and the next batch 200" in said.err
    assert _status(doors)["spend"]["amount_minor"] == 400


class Deaf(FileDrop):
    """A vendor that cannot be asked, and whose first call is cut off on its way."""

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self.capabilities = Capabilities("none")

    def submit(self, chunk: Any, rows: Any) -> Any:
        flag = Path("cut")
        if flag.exists():
            has_come = flag.read_text() == "sent"
            flag.unlink()
            if has_come:
                super().submit(chunk, rows)
            raise InDoubt("the call was cut off")
        return super().submit(chunk, rows)


@pytest.mark.parametrize("assumed", ["sent", "lost"])
def test_a_vendor_that_cannot_be_asked(doors: Doors, class_pool: Pool, assumed: str) -> None:
    doors.monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = [*DROP, "labeler._target_=test_orders_of_a_run.Deaf", "num_rounds=1"]
    Path("cut").write_text(assumed)
    said = doors.run(class_pool, "r", *words).refused("may or may not have reached the vendor")
    key = said.split("chunk ")[1].split()[0]
    assert f"rayal orders RUN_DIR --assume-sent {key}" in said
    assert key in doors.run(class_pool, "r", *words).refused("may or may not have reached")
    assert _status(doors)["orders"]["in_doubt"] == [key]
    assert f"in doubt: {key}" in doors("status", "r").done().out
    doors("orders", "r", "--assume-sent", "b0").refused(f"no chunk b0; in doubt are: {key}")
    doors("orders", "r", f"--assume-{assumed}", key).done()
    doors.run(class_pool, "r", *words).done()
    there = list(Path("r/labeler/outbox").glob("*/manifest.json"))
    assert len(there) == 1
    attempts = _orders(doors)["orders"][0]["num_attempts"]
    assert attempts == (1 if assumed == "sent" else 2)
    doors("orders", "r", "--assume-lost", key).refused("is not in doubt: it is placed")
    assert "placed" in doors("orders", "r").done().out
    doors("audit", "verify", "r").done()


class Odd(FileDrop):
    """Delivers, beside what it was asked for, what no label is."""

    def fetch(self, order: Any, cursor: str) -> Any:
        events, after = super().fetch(order, cursor)
        if not events:
            return events, after
        strange = type(events[0])
        more = [
            strange(events[0].sample_id, "mouse", "m"),
            strange(2**40, events[0].value, "never ordered"),
            strange(events[0].sample_id, events[0].value, "second", annotator="x"),
        ]
        return [*events, *more], after


def test_answers_that_fit_no_order_are_kept_apart(doors: Doors, class_pool: Pool) -> None:
    doors.monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = [*DROP, "labeler._target_=test_orders_of_a_run.Odd", "labeler.overlap=1"]
    words.append("num_rounds=1")
    doors.run(class_pool, "r", *words).done()
    Vendor(class_pool, "r").answer()
    doors.run(class_pool, "r", *words).done()
    assert _status(doors)["state"] == "done"
    assert _status(doors)["spend"]["labels"] == 20
    why = {one["event_id"]: one["why"] for one in _orders(doors)["quarantine"]}
    assert len(why) == 3
    assert "'mouse' is outside the vocabulary" in why["m"]
    assert "never ordered" in why["never ordered"]
    assert "one answer too many: 1 were ordered a sample" in why["second"]
    assert "3 answers were not taken; see rayal orders" in doors("status", "r").done().out
    said = doors("orders", "r", "--quarantine").done().out
    assert f"sample_id {2**40}" in said


def test_ids_leave_as_pseudonyms_and_come_back(doors: Doors, class_pool: Pool) -> None:
    doors.monkeypatch.setenv("RAYAL_TEST_SECRET", "a secret of some length")
    words = [*DROP, "labeler.pseudonyms=RAYAL_TEST_SECRET", "num_rounds=1"]
    doors.run(class_pool, "r", *words).done()
    (part,) = Path("r/labeler/outbox").glob("*/part-*.jsonl")
    told = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
    assert min(told) > class_pool.num_rows
    Path("r/labeler/inbox/back.jsonl").write_text(
        "".join(json.dumps({"sample_id": i, "label": "ant"}) + "\n" for i in told)
    )
    doors.run(class_pool, "r", *words).done()
    doors("export", "r", "--out", "labels.parquet").done()
    import pyarrow.parquet as pq

    ids = pq.read_table("labels.parquet").column("sample_id").to_numpy()
    assert len(ids) == 20
    assert ids.max() < class_pool.num_rows + class_pool.num_test_rows
    doors.monkeypatch.delenv("RAYAL_TEST_SECRET")
    doors.run(class_pool, "s", *words).refused("names the environment variable RAYAL_TEST_SECRET")
    for path in Path("r").rglob("*"):
        if path.is_file():
            assert b"a secret of some length" not in path.read_bytes()
    assert np.all(np.asarray(told) < 2**53)


def test_a_refused_chunk_is_sent_again_by_the_same_command(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FileDrop.submit

    def refuses(self: FileDrop, chunk: Any, rows: Any) -> Any:
        raise LabelError("the vendor says no")

    monkeypatch.setattr(FileDrop, "submit", refuses)
    doors.run(class_pool, "r", *DROP, "num_rounds=1").refused("the vendor says no")
    assert _orders(doors)["orders"][0]["state"] == "refused"
    monkeypatch.setattr(FileDrop, "submit", whole)
    doors.run(class_pool, "r", *DROP, "num_rounds=1").done()
    assert _orders(doors)["orders"][0]["state"] == "placed"
    assert _orders(doors)["orders"][0]["num_attempts"] == 2


def test_a_process_that_begins_again_reads_what_is_new(doors: Doors, class_pool: Pool) -> None:
    """The cursor is where the answers are: nothing is read twice, and nothing is passed by."""
    words = ["labeler=file_drop", "labeler.columns=[embedding]", "num_rounds=1"]
    doors.run(class_pool, "r", *words).done()
    ids = picked("r")[0]
    truth = dict(zip(ids, map(str, class_pool.secret_labels(ids)), strict=True))
    (chunk,) = Path("r/labeler/outbox").iterdir()
    inbox = Path("r/labeler/inbox") / chunk.name
    inbox.mkdir(parents=True)
    folder = RunDir("r")
    seen = []
    for place, sample_id in enumerate(ids):
        line = {"sample_id": sample_id, "label": truth[sample_id]}
        (inbox / f"{place}.jsonl").write_text(json.dumps(line) + "\n")
        if place % 10 == 9:
            doors.run(class_pool, "r", *words).done()
            with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
                order = ledger.event(0, "ordered").result
                seen.append(sorted(json.loads(ledger.cursor(order.job_id))))
                assert ledger.spend()["labels"] == place + 1
    assert [len(one) for one in seen] == [10, 20]


class Tardy(FileDrop):
    """A vendor that is asked by tag, and whose first call is done long after it was given up."""

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self.capabilities = Capabilities("tag", in_doubt_s=0.0)

    def submit(self, chunk: Any, rows: Any) -> Any:
        ids = rows.column("sample_id").to_pylist()
        if not Path("ids.json").exists():
            Path("ids.json").write_text(json.dumps(ids))
            raise InDoubt("the call was cut off")
        return super().submit(chunk, rows)

    def lookup(self, key: str) -> Any:
        return super().lookup(key) if list(Path("r/labeler/outbox").glob("*")) else None

    def held(self, key: str) -> dict[int, list[str]]:
        late = ["second"] if Path("late").exists() else []
        return {i: ["first", *late] for i in json.loads(Path("ids.json").read_text())}

    def withdraw(self, key: str, items: Any) -> None:
        assert set(items) == {"second"}
        Path("late").unlink()
        with Path("withdrawn").open("a") as file:
            file.write(f"{len(items)}\n")

    supply = submit


@pytest.mark.parametrize("when", ["between", "at the end"])
def test_what_comes_long_after_its_call_was_given_up_is_taken_back(
    doors: Doors, class_pool: Pool, when: str
) -> None:
    doors.monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = [*DROP, "labeler._target_=test_orders_of_a_run.Tardy", "num_rounds=1"]
    said = doors.run(class_pool, "r", *words).done().err
    assert "were there twice" not in said
    if when == "between":
        Path("late").write_text("")
        said = doors.run(class_pool, "r", *words).done().err
        assert "20 items were there twice, now once" in said
        assert "0 items" not in said.replace("20 items", "")
        Vendor(class_pool, "r").answer()
    else:
        Vendor(class_pool, "r").answer()
        Path("late").write_text("")
    doors.run(class_pool, "r", *words).done()
    assert _status(doors)["state"] == "done"
    assert Path("withdrawn").read_text() == "20\n"
    what = [one["num_attempts"] for one in _orders(doors)["orders"]]
    assert what == [2]
    doors("audit", "verify", "r").done()
