"""Money that is set aside, answers kept apart, the chain, and ledgers of an older rayal."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rayal.errors import LabelError, LedgerError
from rayal.ledger import Ledger, Odd, Terms
from rayal.types import Chunk, LabelEvent


def _ledger(tmp_path: Path, writer: bool = True) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path}/ledger.db", "run", writer=writer)


def _chunk(place: int, cost_minor: int = 20, sha: str = "a" * 64) -> Chunk:
    return Chunk(f"j-{place:04d}", 10 * place, 10 * place + 10, sha, cost_minor)


def test_all_chunks_are_set_aside_or_none(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        with pytest.raises(LabelError, match="would cost 40 minor units, with 0 spent and 0 on or"):
            ledger.intend(0, "j", [_chunk(0), _chunk(1)], 39)
        assert ledger.events() == []
        assert ledger.promised() == 0
        ledger.intend(0, "j", [_chunk(0), _chunk(1)], 40)
        ledger.intend(0, "j", [_chunk(0), _chunk(1)], 40)  # once
        assert ledger.promised() == 40
        with pytest.raises(LedgerError, match="was going to leave as payload aaaaaaaaaaaa, now"):
            ledger.intend(0, "j", [_chunk(0, sha="b" * 64)], None)
        with pytest.raises(LabelError, match="with 0 spent and 40 on order"):
            ledger.intend(1, "k", [Chunk("k-0000", 0, 1, "c" * 64, 1)], 40)
        ledger.append_labels(0, "j", [LabelEvent(i, "a", f"{i}", cost_minor=3) for i in range(5)])
        assert ledger.promised() == 30  # 15 of 20 answers to come, at 2 each
        ledger.log(0, "j", "closed")
        assert ledger.promised() == 0
        ledger.intend(1, "k", [Chunk("k-0000", 0, 1, "c" * 64, 1)], 16)
        assert ledger.problems() == []


def test_what_is_beyond_the_terms_is_kept_apart(tmp_path: Path) -> None:
    terms = Terms(overlap=1, limit_minor=10)

    def event(sample: int, name: str, revision: int = 0, cost: int = 0, value: str | None = "a"):
        return LabelEvent(sample, value, name, revision, name, cost)

    with _ledger(tmp_path) as ledger:
        assert ledger.append_labels(0, "j", [event(1, "x"), event(1, "y")], terms=terms) == 1
        assert [one["event_id"] for one in ledger.quarantine()] == ["y"]
        # Out for good, also with a correction, and when its sample's place is free again.
        ledger.append_labels(0, "j", [event(1, "y", 1), event(1, "x", 1, value=None)], terms=terms)
        ledger.append_labels(0, "j", [event(1, "y")], terms=terms)
        assert [(q["event_id"], q["revision"]) for q in ledger.quarantine()] == [("y", 0), ("y", 1)]
        assert ledger.labels() == []
        ledger.append_labels(0, "j", [event(1, "z")], terms=terms)  # a place is free
        ledger.append_labels(0, "j", [event(2, "u", cost=9), event(3, "v", cost=2)], terms=terms)
        assert ledger.spend()["amount_minor"] == 9
        assert "costs 2 where 1 are left of the limit" in ledger.quarantine()[0]["why"]
        assert ledger.append_labels(0, "j", [], terms=terms) == 0
        refund = [event(2, "u", 1, cost=-9, value=None)]
        assert ledger.append_labels(0, "j", refund, terms=terms) == 2  # and what was too dear
        assert ledger.spend()["amount_minor"] == 2
        assert {one.event.event_id for one in ledger.labels()} == {"z", "v"}
        assert ledger.problems() == []


def test_an_edit_to_what_is_no_label_ends_the_label(tmp_path: Path) -> None:
    for first in (0, 1):  # whichever comes first
        folder = tmp_path / str(first)
        folder.mkdir()
        with _ledger(folder) as ledger:
            good = [LabelEvent(1, "cat", "e")]
            odd = [Odd(LabelEvent(1, "mouse", "e", 1), "outside the vocabulary")]
            for turn in (first, 1 - first):
                ledger.append_labels(0, "j", good if turn else [], odd=[] if turn else odd)
            assert ledger.labels() == []
            assert ledger.append_labels(0, "j", [LabelEvent(1, "dog", "e", 2)]) == 1
            assert [one.event.value for one in ledger.labels()] == ["dog"]


def test_what_is_to_be_given_again_is_no_answer(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        ledger.append_labels(0, "j", [LabelEvent(1, "a", "e"), LabelEvent(2, None, "refused")])
        assert ledger.answered_ids(0) == {1, 2}
        ledger.append_labels(0, "j", [LabelEvent(1, None, "e", 1, is_open=True)])
        assert ledger.answered_ids(0) == {2}
        ledger.append_labels(0, "j", [LabelEvent(1, "b", "e", 2)])
        assert ledger.answered_ids(0) == {1, 2}
        ledger.append_labels(0, "j", [LabelEvent(1, None, "price", cost_minor=2, is_open=True)])
        assert ledger.answered_ids(0, 2) == set()
        assert ledger.spend()["amount_minor"] == 2


def test_a_ledger_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        ledger.start_run({"a": 1})
        ledger.once(0, "selected", lambda: 3)
        ledger.append_labels(0, "j", [LabelEvent(i, "a", f"{i}") for i in range(4)])
        before = ledger.digest()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        for name in ("chain", "reservations", "quarantine"):
            database.execute(f"DROP TABLE {name}")
        database.execute("ALTER TABLE label_events DROP COLUMN is_open")
        database.execute("UPDATE rayal_schema SET version = 1")
    database.close()
    with _ledger(tmp_path, writer=False) as ledger:
        assert len(ledger.labels()) == 4
        assert ledger.digest() == before
        assert ledger.answered_ids(0) == {0, 1, 2, 3}
        assert (ledger.promised(), ledger.quarantine(), ledger.problems()) == (0, [], [])
        assert ledger.logged() == []
    with _ledger(tmp_path) as ledger:
        ledger.once(0, "ordered", lambda: 4)
        ledger.append_labels(0, "j", [LabelEvent(9, "b", "9")])
        assert ledger.problems() == []
        assert len(ledger.labels()) == 5
        ledger.erase([2])
        assert ledger.problems() == []
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE label_events SET value = '\"c\"' WHERE event_id = '0'")
    database.close()
    with _ledger(tmp_path, writer=False) as ledger:
        assert ledger.problems() == ["answers: one or more of 5 are not what came"]
