"""Labels of the test split that the pool does not hold: from a file, or ordered as round `test`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import run, write_embeddings

from rayal.cli.main import main
from rayal.pool import Pool, ingest

VOCABULARY = (
    "vocabulary={_target_: rayal.types.Vocabulary, kind: class, classes: [ant, bee, cat, dog]}"
)


@pytest.fixture
def bare(tmp_path):
    """A pool without labels, the labels by sample_id, and the words of a run over it."""
    source = write_embeddings(tmp_path / "rows.parquet", 400)
    table = pq.read_table(source)
    labels = dict(enumerate(table.column("label").to_pylist()))
    pq.write_table(table.drop_columns(["label"]), source)
    pool = ingest(str(source), str(tmp_path / "pool"))
    words = [
        f"pool.path={pool.path}", "model=linear", "num_rounds=2", "budget=10", VOCABULARY,
        "predictor.batch_rows=64", "trainer.min_steps=20", "labeler=file_drop",
        "labeler.columns=all", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    return pool, labels, words, tmp_path


def _answer(folder, labels):
    """Answers every row of the outbox, as a vendor would; gives the sample_ids asked for."""
    asked = []
    for part in sorted((folder / "run/labeler/outbox").glob("*/*.jsonl")):
        rows = [json.loads(line) for line in part.read_text().splitlines()]
        asked += [row["sample_id"] for row in rows]
        lines = [
            json.dumps({"sample_id": row["sample_id"], "label": labels[row["sample_id"]]})
            for row in rows
        ]
        inbox = folder / "run/labeler/inbox" / part.parent.name
        inbox.mkdir(parents=True, exist_ok=True)
        (inbox / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return asked


def _status(folder, capsys):
    capsys.readouterr()
    assert main(["status", str(folder / "run"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _test_ids(pool: Pool) -> np.ndarray:
    parts = [
        rows for shard in pool.test_shards for rows in pool.batches(shard, ("sample_id",), 999)
    ]
    return np.concatenate([rows.column("sample_id").to_numpy() for rows in parts])


def test_labels_of_the_test_split_from_a_file(bare, capsys):
    pool, labels, words, folder = bare
    ids = _test_ids(pool)[:20]
    path = folder / "exam.parquet"
    pq.write_table(pa.table({"sample_id": ids, "label": [labels[i] for i in ids]}), path)
    words = [*words, f"test_labels={path}"]
    while run(*words) == "waiting":
        _answer(folder, labels)
    rounds = _status(folder, capsys)["rounds"]
    assert len(rounds) == 2
    assert all(one["test_metric"] is not None for one in rounds)
    assert [one["num_labels"] for one in rounds] == [10, 20]  # the exam trains nobody


def test_an_order_for_the_test_split_comes_first(bare, capsys):
    pool, labels, words, folder = bare
    words = [*words, "test_budget=15", "stopping=target_metric", "stopping.value=1.1"]
    assert run(*words) == "waiting"
    assert _status(folder, capsys)["waiting_for"] == "15 of 15 labels of the test split"
    asked = _answer(folder, labels)
    assert len(asked) == 15
    assert np.isin(asked, _test_ids(pool)).all()
    while run(*words) == "waiting":
        asked = _answer(folder, labels)
    found = _status(folder, capsys)
    assert found["spend"]["labels"] == 15 + 20
    assert [one["num_labels"] for one in found["rounds"]] == [10, 20]
    assert all(one["test_metric"] is not None for one in found["rounds"])
    assert len(set(asked)) == len(asked) == 35


def test_without_test_labels_the_metric_is_null(bare, capsys):
    _, labels, words, folder = bare
    while run(*words) == "waiting":
        _answer(folder, labels)
    assert [one["test_metric"] for one in _status(folder, capsys)["rounds"]] == [None, None]


def test_a_file_that_was_corrected_is_taken_by_the_same_command(bare, capsys):
    pool, labels, words, folder = bare
    (sample_id,) = _test_ids(pool)[:1]
    path = folder / "exam.csv"
    words = [*words, f"test_labels={path}"]
    for content in ("sample_id,label\nx,ant\n", f"sample_id,label\n{sample_id},cow\n"):
        path.write_text(content)
        capsys.readouterr()
        assert main(["run", *words]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith(f"error: {path}:2: ")
    path.write_text(f"sample_id,label\n{sample_id},{labels[sample_id]}\n")
    while run(*words) == "waiting":
        _answer(folder, labels)
    assert [one["test_metric"] for one in _status(folder, capsys)["rounds"]] != [None, None]
