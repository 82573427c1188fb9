"""Stopped right before, in and right after each write, then the same command again: the same run.

A write is a transaction of the ledger, or a file that appears or disappears. The stop is an
exception at that point; from then on the dead process can write nothing, nor clean up.
"""

from __future__ import annotations

import collections
import dataclasses
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import Bucket, forget_copies
from doors import contents
from runs import digest, plain_config, write_embeddings
from vendor import Vendor

import rayal.report.build
from rayal import storage
from rayal.cli.config import build
from rayal.ledger.store import Store
from rayal.places import Place
from rayal.pool import Pool, ingest

BUDGET = 5
NUM_TEST_ROWS = 3
WHEN = ("before", "inside", "after")


class Killed(BaseException):
    """Not an Exception: nothing in rayal may catch it."""


@dataclass
class Fate:
    """Counts the writes of a run and ends it at one of them."""

    at: int = -1
    when: str = "before"
    writes: list[str] = field(default_factory=list)
    dead: bool = False

    def __call__(
        self, name: str, act: Callable[[], Any], inside: Callable[[], None] | None = None
    ) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return act()  # the lease's thread: when it writes is chance
        if self.dead:
            raise Killed
        here = len(self.writes) == self.at
        self.writes.append(name)
        self.dead = here
        if here and self.when == "inside" and inside is not None:
            inside()
        if here and self.when != "after":
            raise Killed
        done = act()
        if here:
            raise Killed
        return done


@pytest.fixture
def fated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fate], None]:
    """Puts every write under a fate; the report's text is cut short, its file is not."""
    write, commit_file, remove_folder = Store.write, storage.commit_file, storage.remove_folder

    def under(fate: Fate) -> None:
        def write_fated(store: Store, work: Any) -> Any:
            def half() -> None:  # the transaction is there, and is never committed
                def cut(connection: Any) -> None:
                    work(connection)
                    raise Killed

                write(store, cut)

            return fate(f"ledger: {work.__qualname__}", lambda: write(store, work), half)

        def commit_fated(temporary: Path, final: Path) -> None:
            def half() -> None:
                if temporary.is_dir() and final.is_dir():
                    shutil.rmtree(final)
                left = temporary.with_name(
                    temporary.name + "-left"
                )  # nobody cleans up after a kill
                (shutil.copytree if temporary.is_dir() else shutil.copy)(temporary, left)

            fate(f"file: {final.name}", lambda: commit_file(temporary, final), half)

        def remove_fated(folder: Path) -> None:
            def half() -> None:
                for path in sorted(folder.iterdir())[:1]:
                    path.unlink()

            fate(f"remove: {folder.name}", lambda: remove_folder(folder), half)

        monkeypatch.setattr(Store, "write", write_fated)
        monkeypatch.setattr(storage, "commit_file", commit_fated)
        monkeypatch.setattr(storage, "remove_folder", remove_fated)

    monkeypatch.setattr(rayal.report.build, "render", lambda view, *_: repr(view))
    return under


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """57 rows of three features in two shards, and three test rows."""
    folder = tmp_path_factory.mktemp("tiny")
    source = write_embeddings(folder / "rows.parquet", 60, width=3)
    pool = ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=30)
    assert (pool.num_rows, len(pool.shards), pool.num_test_rows) == (57, 2, NUM_TEST_ROWS)
    return pool


@pytest.fixture(scope="module")
def other(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, whose round 0 others may begin from."""
    run_dir = tmp_path_factory.mktemp("other") / "run"
    Case.of(pool, 1, "strategy=random").go_on(run_dir, Vendor(pool, run_dir))
    return run_dir


@dataclass
class Case:
    """One run of some rounds over the tiny pool, by the same command again and again."""

    pool: Pool
    config: dict[str, Any]
    num_rounds: int  # of its own: those that it selects, orders, trains and tests
    num_ordered: int
    names: dict[str, int]  # how many of its writes have a name that begins so
    store: str = ""  # the URL of a folder for the run's, which else is that of its vendor

    @classmethod
    def of(cls, pool: Pool, num_rounds: int, *more: str) -> Case:
        """Rounds alone."""
        config = plain_config(
            f"pool.path={pool.path}", "model=linear", f"num_rounds={num_rounds}",
            f"budget={BUDGET}", "predictor.batch_rows=16", "trainer.min_steps=2",
            "trainer.epochs=1", "strategy=k_center", "labeler=file_drop", "labeler.columns=all",
            "labeler.rows_per_chunk=3", "run_dir=RUN_DIR", *more,
        )  # fmt: skip
        a_round = (
            "file: taken.arrow", "file: shard-00000.arrow", "file: shard-00001.arrow",
            "file: batch.parquet", "file: snapshot.parquet", "file: r000", "remove: r000",
        )  # fmt: skip
        names = dict.fromkeys(a_round, num_rounds) | {
            "file: manifest.json": 2 * num_rounds,
            "file: part-00000.jsonl": 2 * num_rounds,
            "file: run.json": 1,
        }
        return cls(pool, config, num_rounds, num_rounds * BUDGET, names)

    @classmethod
    def with_test_order(cls, pool: Pool, num_rounds: int) -> Case:
        """Rounds after an order of test labels, of one chunk."""
        case = cls.of(pool, num_rounds, f"test_budget={NUM_TEST_ROWS}")
        case.num_ordered += NUM_TEST_ROWS
        files = ("batch.parquet", "snapshot.parquet", "manifest.json", "part-00000.jsonl")
        for name in files:
            case.names[f"file: {name}"] += 1
        return case

    @classmethod
    def begun_from(cls, pool: Pool, other: Path, num_rounds: int) -> Case:
        """Rounds after round 0 of another run, taken over with its checkpoint."""
        case = cls.of(pool, num_rounds)
        case.config |= {"begin_from": str(other), "num_rounds": num_rounds + 1}
        case.names["file: r000"] += 2  # folders taken over: the round's and its checkpoint's
        return case

    @classmethod
    def in_a_store(cls, pool: Pool, num_rounds: int, bucket: Bucket, postgres: str) -> Case:
        """Pool and run in a bucket, the ledger in PostgreSQL; the vendor's boxes on the disk."""
        name = uuid.uuid4().hex
        there = f"pool.path={bucket.take(pool.path, f'{name}/pool')}"
        case = cls.of(pool, num_rounds, there, f"ledger_url={postgres}")
        case.names["file: run.json"] += 1  # where the ledger is
        return dataclasses.replace(case, store=f"{bucket.url}/{name}")

    def run_dir(self, folder: Path) -> Path | str:
        """The run's folder, by the vendor's."""
        return f"{self.store}/{folder.name}" if self.store else folder

    def command(self, folder: Path) -> str:
        config = {**self.config, "run_dir": str(self.run_dir(folder))}
        if self.store:
            boxes = {box: str(folder / "labeler" / box) for box in ("outbox", "inbox")}
            config["labeler"] = {**config["labeler"], **boxes}
            forget_copies()  # as another process would
        state: str = build(config).run(config)
        return state

    def go_on(self, folder: Path, vendor: Vendor) -> None:
        """The same command until the run is done, the vendor answering in between."""
        for _ in range(10 * self.num_rounds):
            if self.command(folder) == "done":
                return
            assert vendor.answer() > 0, "the run waits, and nothing is open at the vendor"
        raise AssertionError("the run does not end")

    def check(self, folder: Path, vendor: Vendor, expected: str) -> None:
        """Same digest; every sample ordered once; nothing left of the passes."""
        assert digest(self.run_dir(folder)) == expected
        ordered = vendor.ordered()
        assert len(ordered) == self.num_ordered
        assert set(ordered.values()) == {1}
        if self.store:
            assert Place.of(f"{self.run_dir(folder)}/passes").list() == []
        else:
            assert list((folder / "passes").iterdir()) == []


def _undisturbed(case: Case, fated: Any, folder: Path) -> tuple[str, list[str]]:
    fate = Fate()
    fated(fate)
    vendor = Vendor(case.pool, folder)
    case.go_on(folder, vendor)
    expected = digest(case.run_dir(folder))
    case.check(folder, vendor, expected)
    return expected, fate.writes


def _check_names(writes: list[str], case: Case) -> None:
    """The points are those that the design names: a write that went around them would be missed."""
    for name, expected in case.names.items():
        found = sum(write.startswith(name) for write in writes)
        assert found == expected, (name, collections.Counter(writes))
    assert writes.count("file: report.html") > case.num_rounds
    # selected, ordered, labelled, trained, tested; intent and ack of two chunks
    commits = writes.count("ledger: Ledger._commit.<locals>.fenced")
    assert commits > (5 + 4) * case.num_rounds


def _everywhere(
    case: Case,
    fated: Any,
    tmp_path: Path,
    whens: tuple[str, ...],
    in_turn: bool = False,
    wanted: str = "",
) -> int:
    """Stops a run at all of its writes, at all those moments of each or at one of them in turn."""
    expected, writes = _undisturbed(case, fated, tmp_path / "whole")
    assert wanted in ("", expected)
    _check_names(writes, case)
    for at, name in enumerate(writes):
        for when in (whens[at % len(whens)],) if in_turn else whens:
            run_dir = tmp_path / f"{at}-{when}"
            fate = Fate(at, when)
            fated(fate)
            vendor = Vendor(case.pool, run_dir, seed=at)
            with pytest.raises(Killed):
                case.go_on(run_dir, vendor)
            assert fate.writes[-1] == name
            fated(Fate())
            vendor.answer(float(vendor.rng.random()))
            try:
                case.go_on(run_dir, vendor)
                case.check(run_dir, vendor, expected)
            except Exception as error:
                raise AssertionError(f"stopped {when} write {at}, {name}: {error}") from error
            shutil.rmtree(run_dir)
    return len(writes)


def test_stopped_before_and_after_every_write_of_two_rounds(pool, fated, tmp_path):
    assert _everywhere(Case.of(pool, 2), fated, tmp_path, ("before", "after")) > 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stopped_before_in_and_after_every_write_of_three_rounds(pool, fated, tmp_path):
    assert _everywhere(Case.of(pool, 3), fated, tmp_path, WHEN) > 75


IN_TURN = [
    pytest.param(True, id="in-turn"),
    pytest.param(False, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
]


@pytest.mark.parametrize("in_turn", IN_TURN)
def test_stopped_at_every_write_of_a_run_in_a_store(
    in_turn, pool, fated, bucket, postgres, tmp_path, monkeypatch
):
    """The same run as on a disk, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    num_rounds = 1 if in_turn else 2
    expected, _ = _undisturbed(Case.of(pool, num_rounds), fated, tmp_path / "disk")
    case = Case.in_a_store(pool, num_rounds, bucket, postgres)
    assert _everywhere(case, fated, tmp_path, WHEN, in_turn, expected) > 25


@pytest.mark.parametrize("in_turn", IN_TURN)
def test_stopped_at_every_write_of_a_run_that_orders_its_test_labels(
    in_turn, pool, fated, tmp_path
):
    assert _everywhere(Case.with_test_order(pool, 1), fated, tmp_path, WHEN, in_turn) > 35


@pytest.mark.parametrize("in_turn", IN_TURN)
def test_stopped_at_every_write_of_a_run_that_begins_from_another(
    in_turn, pool, other, fated, tmp_path
):
    before = contents(other)
    assert _everywhere(Case.begun_from(pool, other, 1), fated, tmp_path, WHEN, in_turn) > 25
    assert contents(other) == before


@pytest.mark.parametrize("seed", range(4))
def test_stopped_again_and_again(seed, pool, fated, tmp_path):
    """A kill while going on after a kill, until the run is done in spite of them all."""
    case = Case.of(pool, 2)
    expected, _ = _undisturbed(case, fated, tmp_path / "whole")
    rng = np.random.default_rng(seed)
    run_dir = tmp_path / "run"
    vendor = Vendor(pool, run_dir, seed)
    num_kills, done = 0, False
    while not done:
        fated(Fate(int(rng.integers(2, 14)), WHEN[int(rng.integers(3))]))
        try:
            done = case.command(run_dir) == "done"
        except Killed:
            num_kills += 1
            assert num_kills < 200, "the run makes no headway"
        vendor.answer(float(rng.random()))
    assert num_kills >= 5
    fated(Fate())
    case.check(run_dir, vendor, expected)
