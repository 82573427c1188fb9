"""A pass over some rows of the pool alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import loop_of, picked, run

from rayal.columns import vectors
from rayal.engine.local import LocalEngine
from rayal.engine.restricted import restricted
from rayal.engine.scoring import Scoring
from rayal.engine.survivors import Taken, read_allowed, write_allowed, write_taken
from rayal.errors import ConfigError
from rayal.history import History
from rayal.keys import Keys
from rayal.ledger import Ledger
from rayal.pool import ingest
from rayal.rundir import RunDir
from rayal.scorers.random import Random
from rayal.selectors.seals import Seals
from rayal.types import Allowed, Checkpoint, Outputs


class Seen:
    """A predictor that remembers which rows it was given."""

    batch_rows = 64
    num_threads = 1

    def __init__(self):
        self.ids, self.sizes = set(), []

    def columns(self):
        return ("embedding",)

    def load(self, checkpoint, path, keys):
        pass

    def encode(self, rows):
        return vectors(rows, "embedding").copy()

    def predict(self, ids, encoded, needs):
        self.ids |= set(ids.tolist())
        self.sizes.append(len(ids))
        return Outputs(ids, {"embeds": ids[:, None].float()})


@dataclass(frozen=True)
class Only:
    """Allows some rows; remembers what it was shown."""

    ids: tuple[int, ...] | None
    shown: list
    needs = ("embedding",)

    def restrict(self, candidates, labelled, budget, keys):
        self.shown.append((candidates, labelled, budget))
        return Allowed(None if self.ids is None else np.array(self.ids), "only some")


def _engine(pool, predictor):
    engine = LocalEngine()
    engine.open(pool, predictor, None)
    return engine


def _scoring(folder, taken, scorer=None):
    ids = np.array(sorted(taken), np.int64)
    write_taken(folder / "taken.arrow", Taken(ids, np.ones(len(ids)), np.zeros(len(ids), bool)))
    (folder / "pass").mkdir()
    return Scoring(
        Keys(0, 1), scorer, ("embeds",), None, Checkpoint("c", "m"), "",
        str(folder / "taken.arrow"), str(folder / "pass"), "p",
    )  # fmt: skip


def _ids(pool):
    parts = [
        rows.column("sample_id").to_numpy()
        for shard in pool.shards
        for rows in pool.batches(shard, ("sample_id",), 1_000)
    ]
    return np.concatenate(parts)


def test_no_other_row_reaches_the_model(class_pool, tmp_path):
    ids = _ids(class_pool)
    taken, allowed = ids[[3, 150, 401, 880]], np.sort(ids[[1, 2, 4, 399, 885, *range(600, 790)]])
    predictor, shown = Seen(), []
    engine = _engine(class_pool, predictor)
    scoring = _scoring(tmp_path, taken)
    only = Only(tuple(allowed.tolist()), shown)
    narrow, note = restricted(engine, scoring, only, 7)
    assert note == "only some"
    assert not predictor.ids  # what comes before reads columns alone
    ((candidates, labelled, budget),) = shown
    assert (candidates.num_rows, labelled.num_rows, budget) == (len(ids) - 4, 4, 7)
    assert (read_allowed(narrow.allowed_path) == allowed).all()

    done = engine.score(narrow)
    assert predictor.ids == set(allowed.tolist()) | set(taken.tolist())
    assert set(predictor.sizes) == {64}  # short batches are padded
    found = np.concatenate([one.ids for one in done.candidates.slices])
    assert found.tolist() == allowed.tolist()
    for one in done.candidates.slices:
        assert (one.feature("embeds")[:, 0] == one.ids).all()
    assert sorted(np.concatenate([one.ids for one in done.labelled.slices])) == sorted(taken)
    tallies = done.tallies
    assert tallies.num_scored == len(found)
    assert tallies.num_rows + tallies.num_left_out == class_pool.num_rows
    assert tallies.num_rows == len(predictor.ids)


def test_a_shard_without_allowed_rows_is_not_read(class_pool, tmp_path, monkeypatch):
    ids = _ids(class_pool)
    engine = _engine(class_pool, Seen())
    scoring = _scoring(tmp_path, ids[:2])
    write_allowed(tmp_path / "allowed.arrow", np.sort(ids[10:20]))
    from rayal.pool import reader

    opened = []
    open_shard = reader.open_shard
    monkeypatch.setattr(
        reader, "open_shard", lambda *a, **k: (opened.append(a[1].index), open_shard(*a, **k))[1]
    )
    done = engine.score(replace(scoring, allowed_path=str(tmp_path / "allowed.arrow")))
    assert done.candidates.num_rows == 10
    assert opened == [0]


def test_what_allows_every_row_leaves_the_pass_as_it_is(class_pool, tmp_path):
    engine = _engine(class_pool, Seen())
    scoring = _scoring(tmp_path, [])
    assert restricted(engine, scoring, Only(None, []), 3) == (scoring, "only some")
    assert restricted(engine, scoring, None, 3) == (scoring, "")


def test_other_rows_have_another_pass(class_pool, tmp_path):
    engine = _engine(class_pool, Seen())
    scoring = _scoring(tmp_path, [], Random())
    ids = np.sort(_ids(class_pool))
    one, _ = restricted(engine, scoring, Only(tuple(ids[:9].tolist()), []), 3)
    two, _ = restricted(engine, scoring, Only(tuple(ids[:10].tolist()), []), 3)
    assert len({scoring.folder, one.folder, two.folder}) == 3
    assert len({scoring.pass_id, one.pass_id, two.pass_id}) == 3
    assert (engine.score(one).candidates.num_rows, engine.score(two).candidates.num_rows) == (9, 10)


# ------------------------------------------------------------------------------------ in a run


COMMON = (
    "model=mlp", "model.module.hidden=[16]", "num_rounds=3", "budget=15",
    "predictor.batch_rows=64", "trainer.min_steps=30", "strategy=seals",
    "strategy.restriction.num_neighbors=5",
)  # fmt: skip


def test_a_run_picks_neighbors_of_its_labelled_rows(class_pool, tmp_path):
    pytest.importorskip("faiss")
    assert run(f"pool.path={class_pool.path}", *COMMON, f"run_dir={tmp_path / 'a'}") == "done"
    batches = picked(tmp_path / "a")
    every = np.sort(_ids(class_pool))
    rows = vectors(class_pool.rows(every, ["embedding"]), "embedding").astype(float)
    place = {int(i): row for i, row in zip(every, rows, strict=True)}
    labelled: list[int] = []
    for batch in batches:
        if labelled:
            left = np.setdiff1d(every, labelled)
            at = np.array([place[int(i)] for i in left])
            near: set[int] = set()
            for one in labelled:
                squared = ((at - place[one]) ** 2).sum(axis=1)
                near |= set(left[np.lexsort((left, squared))[:5]].tolist())
            assert set(batch) <= near
        labelled += batch
    folder = RunDir(str(tmp_path / "a"))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        notes = [event.notes for event in ledger.events(step="selected")]
    assert "selection" not in notes[0]  # the cold start
    for one in notes[1:]:
        assert "rows are scored: the 5 nearest of each of" in one["selection"]
        assert one["tallies"]["num_left_out"] > 700
    assert not list(Path(tmp_path / "a" / "passes").glob("*"))


def test_a_run_goes_on_until_every_row_is_labelled(class_pool, tmp_path):
    pytest.importorskip("faiss")
    asked = (*COMMON, "budget=400", "num_rounds=9")
    assert run(f"pool.path={class_pool.path}", *asked, f"run_dir={tmp_path / 'b'}") == "done"
    sizes = [len(batch) for batch in picked(tmp_path / "b")]
    assert sizes == [400, 400, class_pool.num_rows - 800]


def test_rows_left_out_are_left_for_later_rounds(monkeypatch):
    tallies = {"num_scored": 20, "num_left_out": 900}
    last = SimpleNamespace(notes={"tallies": tallies}, result=SimpleNamespace(num_rows=20))
    past = History(SimpleNamespace(event=lambda t, step: last), None, None)
    monkeypatch.setattr(History, "taken_ids", lambda self, t: np.arange(60))
    assert past.num_left(3, 1_000) == 900  # of the 940 not taken, 40 could not be decoded
    del tallies["num_left_out"]
    assert past.num_left(3, 1_000) == 0


def test_a_column_of_text_is_refused_before_a_label_is_bought(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    table = pa.table({"embedding": rows.tolist(), "word": ["a", "b"] * 30, "label": [0, 1] * 30})
    pq.write_table(table, tmp_path / "rows.parquet")
    pool = ingest(str(tmp_path / "rows.parquet"), str(tmp_path / "pool"), label_column="label")
    asked = (f"pool.path={pool.path}", *COMMON, f"run_dir={tmp_path / 'run'}", "budget=5")
    loop_of(*asked)
    found = "needs numbers, and column 'word' is string, expected numbers or a vector column"
    with pytest.raises(ConfigError, match=found):
        loop_of(*asked, "strategy.restriction.feature=word")
    with pytest.raises(ConfigError, match=found):
        loop_of(*asked, "strategy@cold_start=typiclust", "cold_start.selector.feature=word")


def test_a_column_that_the_pool_lacks_is_refused(class_pool, tmp_path):
    asked = (f"pool.path={class_pool.path}", *COMMON, f"run_dir={tmp_path}")
    with pytest.raises(ConfigError, match="'vector' is neither an output"):
        loop_of(*asked, "strategy.restriction.feature=vector")
    with pytest.raises(ConfigError, match=r"Seals.feature is 'embeds', an output of the model"):
        loop_of(*asked, "strategy.restriction.feature=embeds")
    assert Seals("embedding").needs == ("embedding",)
