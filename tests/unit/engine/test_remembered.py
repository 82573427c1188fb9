"""What is kept of a shard's rows between passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayal.engine import remembered
from rayal.engine.remembered import FARTHEST, UNIT, UNKNOWN, Remembered
from rayal.pool import Pool


def filled(num_rows: int) -> Remembered:
    rng = np.random.default_rng(0)
    kept, rows = Remembered.nothing(num_rows), np.arange(0, num_rows, 2)
    kept.set_cells(rows, rng.integers(0, 9, len(rows)), rng.uniform(0, 3, len(rows)), 1e-4)
    seen = [rng.normal(size=len(rows)) * 20 for _ in range(3)]
    kept.set_seen(rows, kept.number_of("a"), rng.integers(0, 300, (len(rows), 2)), *seen)
    return kept


def test_it_comes_back_and_only_for_the_same_shard(tmp_path: Path, class_pool: Pool) -> None:
    shard = class_pool.shards[0]
    kept = filled(shard.num_rows)
    remembered.write(str(tmp_path), shard, kept)
    found = remembered.read(str(tmp_path), shard)
    assert found.models == ["a"]
    for name, values in kept.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)
        assert found.arrays[name].dtype == values.dtype
    path = remembered.path_of(str(tmp_path), shard)
    assert path.stat().st_size < 14 * shard.num_rows + 4096
    other = replace(shard, content_hash="0" * 64)
    path.rename(remembered.path_of(str(tmp_path), other))
    unknown = remembered.read(str(tmp_path), other)
    assert unknown.models == []
    assert (unknown.arrays["model"] == UNKNOWN).all()
    assert (remembered.read(str(tmp_path), shard).arrays["cell"] == UNKNOWN).all()


@pytest.mark.parametrize("harm", ["flip", "short", "empty"])
def test_a_damaged_file_is_nothing_known(tmp_path: Path, class_pool: Pool, harm: str) -> None:
    shard = class_pool.shards[0]
    remembered.write(str(tmp_path), shard, filled(shard.num_rows))
    path = remembered.path_of(str(tmp_path), shard)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": content, "short": content[:-9], "empty": b""}[harm])
    assert remembered.read(str(tmp_path), shard).models == []


def test_numbers_are_rounded_to_the_safe_side() -> None:
    kept, rows = Remembered.nothing(6), np.arange(6)
    values_N = np.array([0.0, 1.0 + UNIT / 2, -0.3, 1e9, np.inf, -1e9])
    kept.set_seen(rows, 0, np.zeros((6, 2), np.intp), values_N, values_N, values_N)
    for name in ("odds", "gap", "third"):
        found = kept.logarithms(name, rows)
        assert (found[:5] <= values_N[:5]).all()
        assert (values_N[:3] - found[:3] <= UNIT).all()
        assert found[3] == found[4] == 32_767 * UNIT
    radius_N = np.array([0.0, 0.1, 0.3000001, FARTHEST * 0.1, FARTHEST * 0.1001, 1e9])
    kept.set_cells(rows, np.arange(6), radius_N, 0.1)
    steps = kept.arrays["radius"].astype(np.float64) * 0.1
    near = kept.arrays["cell"] != UNKNOWN
    assert near.tolist() == [True, True, True, False, False, False]  # at the edge: none is safe
    assert (steps[near] >= radius_N[near]).all()


def test_the_oldest_model_is_forgotten() -> None:
    kept, rows = Remembered.nothing(300), np.arange(300)
    nothing = np.zeros(1)
    for number in range(300):
        place = kept.number_of(f"model {number}")
        kept.set_seen(rows[number : number + 1], place, np.zeros((1, 2), int), *[nothing] * 3)
    assert len(kept.models) == 200
    assert kept.models[0] == "model 100"
    assert (kept.arrays["model"][:100] == UNKNOWN).all()
    named = [kept.models[place] for place in kept.arrays["model"][100:]]
    assert named == [f"model {number}" for number in range(100, 300)]
    assert kept.number_of("model 150") == 50
