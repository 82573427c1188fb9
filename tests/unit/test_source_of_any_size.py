"""The source that benchmarks/pool.py measures with: no row depends on how many there are."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

_PLACE = Path(__file__).resolve().parents[2] / "benchmarks" / "make_pool.py"
_SPEC = importlib.util.spec_from_file_location("make_pool", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
make_pool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_pool)


def test_a_row_is_a_function_of_its_number():
    whole = make_pool.features(0, 200)
    assert np.array_equal(make_pool.features(123, 50), whole[123:173])
    assert make_pool.keys(123, 50).equals(make_pool.keys(0, 200)[123:173])
    assert len(np.unique(whole)) == 256


def test_no_key_comes_twice():
    keys = make_pool.keys(2**27, 300_000)
    assert len(keys.unique()) == 300_000
    assert str(keys[0]).startswith("k-")
    assert len(str(keys[0])) == 14


def test_files_hold_the_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(make_pool, "FILE_ROWS", 64)
    monkeypatch.setattr(make_pool, "BLOCK_ROWS", 16)
    make_pool.make(tmp_path, 150)
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    table = pq.read_table(tmp_path, schema=make_pool.SCHEMA)
    found = np.asarray(table["embedding"].to_pylist(), np.int8)
    assert np.array_equal(found, make_pool.features(0, 150))
    assert table["key"].combine_chunks().to_pylist() == make_pool.keys(0, 150).to_pylist()


def test_a_source_that_is_whole_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(make_pool, "BLOCK_ROWS", 16)
    size_bytes = make_pool.make(tmp_path, 100)
    monkeypatch.setattr(make_pool, "files", None)
    assert make_pool.make(tmp_path, 100) == size_bytes
