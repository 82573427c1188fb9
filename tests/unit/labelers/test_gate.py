"""What leaves: nothing that was not named, under ids that say nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rayal.errors import ConfigError, LabelError
from rayal.labelers import gate as room
from rayal.labelers.gate import Gate

ROWS = pa.table(
    {
        "sample_id": pa.array([7, 5, 9], pa.int64()),
        "source_id": ["a/b.png", "c.png", "d.png"],
        "text": ["call 555 1234", "x", None],
        "patient": ["Anna", "Ben", "Cem"],
        "rank": [0, 1, 2],
        "score": [0.1, 0.2, 0.3],
        "reason": ["margin"] * 3,
    }
)


def test_nothing_leaves_that_was_not_named() -> None:
    assert Gate(["text"]).passed(ROWS).schema.names == ["sample_id", "text"]
    assert Gate([]).passed(ROWS).schema.names == ["sample_id"]
    assert Gate(["text", "source_id"]).passed(ROWS).schema.names[:2] == ["sample_id", "source_id"]
    names = Gate("all").passed(ROWS).schema.names
    assert names == ["sample_id", "source_id", "text", "patient"]  # never why it was picked
    with pytest.raises(LabelError, match=r"nothing leaves .* 'labeler.columns=\[source_id, text"):
        Gate(None).passed(ROWS)
    with pytest.raises(ConfigError, match=r"labeler.columns is 'text'; give a list: \[text\]"):
        Gate("text")
    with pytest.raises(ConfigError, match="to send name, which the batch does not have"):
        Gate(["name"]).check(ROWS.schema.names)


def test_ids_leave_hashed_with_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = Gate(["text"], pseudonyms="RAYAL_TEST_SECRET")
    monkeypatch.setenv("RAYAL_TEST_SECRET", "too short")
    with pytest.raises(ConfigError, match=r"RAYAL_TEST_SECRET, which has 9 bytes; set it to a sec"):
        hashed.check(ROWS.schema.names)
    monkeypatch.setenv("RAYAL_TEST_SECRET", "a secret of some length")
    hashed.check(ROWS.schema.names)
    ids = np.asarray(hashed.passed(ROWS).column("sample_id"))
    assert ids.dtype == np.int64
    assert ((ids >= 0) & (ids < 2**53)).all()
    assert not set(ids.tolist()) & {5, 7, 9}
    again = hashed.ids(np.asarray([9, 5, 7]))
    assert again.tolist() == ids[[2, 1, 0]].tolist()
    monkeypatch.setenv("RAYAL_TEST_SECRET", "another secret of some length")
    assert not set(hashed.ids(np.asarray([5, 7, 9])).tolist()) & set(ids.tolist())


def test_two_that_hash_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYAL_TEST_SECRET", "a secret of some length")
    monkeypatch.setattr(room, "_SAFE", 300)
    hashed = Gate([], pseudonyms="RAYAL_TEST_SECRET")
    ids = np.arange(250)
    given = hashed.ids(ids)
    assert len(set(given.tolist())) == 250
    assert (given < 300).all()
    back = hashed.ids(ids[::-1])
    assert back[::-1].tolist() == given.tolist()  # whatever the order


class Masked:
    """Masks digits."""

    def redact(self, rows: pa.Table) -> pa.Table:
        texts = [
            None if one is None else "".join("*" if c.isdigit() else c for c in one)
            for one in rows.column("text").to_pylist()
        ]
        return rows.set_column(rows.schema.get_field_index("text"), "text", pa.array(texts))


class Short:
    """Loses a row."""

    def redact(self, rows: pa.Table) -> pa.Table:
        return rows.slice(1)


class Turned:
    """Turns the rows around."""

    def redact(self, rows: pa.Table) -> pa.Table:
        return rows.take([2, 1, 0])


class Talkative:
    """Adds a column."""

    def redact(self, rows: pa.Table) -> pa.Table:
        return rows.append_column("more", pa.array(["x"] * rows.num_rows))


def test_rows_are_redacted() -> None:
    let = Gate(["text"], redact=Masked()).passed(ROWS)
    assert let.column("text").to_pylist() == ["call *** ****", "x", None]
    assert let.column("sample_id").to_pylist() == [7, 5, 9]
    for wrong in (Short(), Turned(), Talkative()):
        with pytest.raises(LabelError, match=r"labeler.redact .* it must keep rows, their order"):
            Gate(["text"], redact=wrong).passed(ROWS)
