"""What is refused of labelers and rules before a run's folder is claimed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import write_embeddings

from rayal import preflight
from rayal.errors import ConfigError
from rayal.labelers.file_drop import FileDrop
from rayal.labelers.oracle import Oracle
from rayal.pool import Pool, ingest
from rayal.stopping.rules import AnyOf, TargetMetric


def _pool(folder, labels) -> Pool:
    """A pool of 300 rows in shards of 50, with these labels in order of the rows."""
    source = write_embeddings(folder / "rows.parquet", 300)
    table = pq.read_table(source).drop_columns(["label"])
    table = table.append_column("took", pa.array([1] * 300, pa.duration("s")))
    pq.write_table(table.append_column("label", pa.array(labels)), source)
    return ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=50)


def test_a_target_needs_one_test_row_with_a_label(tmp_path):
    """Rows of the pool have labels here, test rows none; then a single one, in the last shard."""
    labels: list[str | None] = ["ant", "bee"] * 150
    (tmp_path / "all").mkdir()
    whole = _pool(tmp_path / "all", labels)
    parts = [whole.rows(_ids(whole, shard), ["sample_id"]) for shard in whole.test_shards]
    tests = [i for part in parts for i in part.column("sample_id").to_pylist()]
    for name, kept in (("none", []), ("last", tests[-1:])):
        (tmp_path / name).mkdir()
        pool = _pool(
            tmp_path / name,
            [x if i not in tests or i in kept else None for i, x in enumerate(labels)],
        )
        known = [x for shard in pool.test_shards for x in pool.test_labels(shard)]
        assert [x is not None for x in known] == [i in kept for i in tests]
        for rule in (TargetMetric(0.9), AnyOf([TargetMetric(0.9)])):
            preflight.check_stopping(whole, rule, has_test_labels=False)
            preflight.check_stopping(pool, rule, has_test_labels=True)
            if kept:
                preflight.check_stopping(pool, rule, has_test_labels=False)
                continue
            with pytest.raises(ConfigError, match="no test row has a label; ingest with"):
                preflight.check_stopping(pool, rule, has_test_labels=False)
        preflight.check_stopping(pool, AnyOf(), has_test_labels=False)


def _ids(pool, shard):
    batches = pool.batches(shard, ("sample_id",), 999)
    return [i for rows in batches for i in rows.column("sample_id").to_pylist()]


def test_a_labeler_sees_the_columns_before_the_first_order(tmp_path):
    pool = _pool(tmp_path, ["ant", "bee"] * 150)
    for labeler in (Oracle(), FileDrop(columns=["embedding"]), FileDrop(columns=[])):
        preflight.check_labeler(pool, labeler)
    with pytest.raises(ConfigError, match=r"to send foo, .*\(it has: sample_id, embedding, took, "):
        preflight.check_labeler(pool, FileDrop(columns=["foo"]))
    with pytest.raises(ConfigError, match=r"'took', which is duration.*columns=\[embedding\]'"):
        preflight.check_labeler(pool, FileDrop(columns="all"))
