"""A run stopped right before and after each write and gone on with equals an undisturbed one."""

import pytest

from rayal.errors import RayalError
from rayal.ledger import Ledger
from rayal.types import Ack, Batch, LabelEvent, Order, Snapshot, TestResult


class Killed(BaseException):
    """Not an Exception: nothing in the ledger may catch it."""


def go_on(url, effects):
    """Two rounds in the form of the loop; `effects` counts what a step did outside."""

    def effect(name, result):
        effects.append(name)
        return result

    with Ledger.open(url, "run", writer=True) as ledger:
        ledger.start_run({"seed": 1})
        for t in range(2):
            batch = ledger.once(t, "selected", effect, f"select {t}", Batch(f"b{t}", "h", 2))
            acks = []
            for key in (f"j{t}-0000", f"j{t}-0001"):
                ledger.once(t, f"intent/{key}", lambda _: {"cost_minor": 3}, batch)
                ack = Ack(key, key, 1)
                acks.append(ledger.once(t, f"ack/{key}", effect, f"submit {key}", ack))
            order = Order(f"j{t}", tuple(acks), 2)
            job = ledger.once(t, "ordered", effect, f"order {t}", order)
            for i in range(2):
                events = [LabelEvent(10 * t + j, "a", f"e{j}", cost_minor=1) for j in range(i + 1)]
                ledger.append_labels(t, job.job_id, events)
            rows = ledger.spend(round=t)["labels"]
            ledger.once(t, "labelled", effect, f"snapshot {t}", Snapshot(f"s{t}", "h", rows))
            ledger.once(t, "tested", lambda: TestResult("accuracy", True, 0.5, 3))
        ledger.set_state("done")
        return ledger.digest()


def test_stopped_before_and_after_each_write(tmp_path, monkeypatch):
    commit = Ledger._commit
    count = 0

    def stops(at, after):
        def stopping(self, work):
            nonlocal count
            count += 1
            if count == at and not after:
                raise Killed
            result = commit(self, work)
            if count == at:
                raise Killed
            return result

        return stopping

    monkeypatch.setattr(Ledger, "_commit", stops(-1, False))
    whole = go_on(f"sqlite:///{tmp_path}/whole.db", [])
    writes = count
    assert writes == 22
    for at in range(1, writes + 1):
        for after in (False, True):
            url, count, effects = f"sqlite:///{tmp_path}/{at}-{after}.db", 0, []
            monkeypatch.setattr(Ledger, "_commit", stops(at, after))
            with pytest.raises(Killed):
                go_on(url, effects)
            monkeypatch.setattr(Ledger, "_commit", stops(-1, False))
            assert go_on(url, effects) == whole
            # Only the step whose record was cut off may have its effect twice.
            assert len(effects) - len(set(effects)) <= (0 if after else 1)


def test_a_step_that_fails_leaves_nothing(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", "run", writer=True) as ledger:
        with pytest.raises(ZeroDivisionError):
            ledger.once(0, "selected", lambda: 1 / 0)
        assert ledger.events() == []
        assert ledger.once(0, "selected", lambda: 1) == 1


def test_a_full_disk_is_one_line_and_half_writes_nothing(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", "run", writer=True) as ledger:
        ledger.once(0, "selected", lambda: 1)
        with (
            ledger._store._engine.connect() as connection
        ):  # SQLite then says what a full disk says
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        events = [LabelEvent(i, "x" * 100, f"e{i}") for i in range(2_000)]
        with pytest.raises(RayalError, match="the disk is full while writing the ledger") as error:
            ledger.append_labels(0, "j", events)
        assert "\n" not in str(error.value)
        assert ledger.labels() == []
        with ledger._store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        assert ledger.append_labels(0, "j", events) == 2_000
