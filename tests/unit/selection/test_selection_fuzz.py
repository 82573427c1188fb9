"""Any rows, however they are cut into files, groups, shards and slices: one answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from given import only, outputs_of, rows_of, write_files

from rayal.engine.local import LocalEngine
from rayal.scorers.margin import Margin
from rayal.scorers.power import Power
from rayal.selection import Selection
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.k_center import KCenter
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy

STRATEGIES = {
    "k_center": Strategy(KCenter()),
    "k_center, floats": Strategy(KCenter(precision="float")),
    "badge": Strategy(Badge()),
    "margin": Strategy(TopK(), Margin()),
    "few candidates": Strategy(TopK(), Power(Margin()), num_candidates=40),
    "clusters": Strategy(ClusterMargin(num_clusters=5), Margin()),
}


def _rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Gives a few rows: some many times over, some on a lattice, or far from 0."""
    num_rows = int(rng.choice([1, 2, 7, 60, 200]))
    arrays = only(outputs_of(num_rows, int(rng.integers(1_000)), width=3), "embedding", "probs")
    what = rng.integers(4)
    if what == 0:
        some = rng.integers(0, max(1, num_rows // 4), num_rows)
        arrays = {**rows_of(arrays, some), "sample_id": arrays["sample_id"]}
    elif what == 1:
        arrays["embedding"] = np.rint(arrays["embedding"])
        arrays["probs"] = np.full_like(arrays["probs"], 0.25)
    elif what == 2:
        arrays["embedding"] = arrays["embedding"] + np.float32(1e4)
    return arrays


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_any_rows_gives_one_answer(
    name: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(100 * seed + len(name))
    arrays = _rows(rng)
    num_rows = len(arrays["sample_id"])
    is_labelled = rng.random(num_rows) < 0.2
    num_free = int((~is_labelled).sum())
    if not num_free:
        is_labelled[:] = False
        num_free = num_rows
    budget = num_free if rng.random() < 0.3 else int(rng.integers(1, num_free + 1))
    budget = min(budget, STRATEGIES[name].num_candidates or budget)
    labelled = rows_of(arrays, is_labelled)
    selection = Selection(STRATEGIES[name], LocalEngine(), budget, seed=seed)
    expected = selection.run(arrays, labelled)
    assert expected.num_rows == budget
    rest = rows_of(arrays, ~is_labelled | (rng.random(num_rows) < 0.5))
    for turn in range(3):
        monkeypatch.setattr("rayal.selection.pool._SHARD_ROWS", int(rng.integers(1, 80)))
        monkeypatch.setattr("rayal.selection.pool._BATCH_ROWS", int(rng.integers(1, 40)))
        per_slice = (int(rng.integers(1, 50)),)
        monkeypatch.setattr("rayal.engine.survivors.plan_slices.__defaults__", per_slice)
        outputs = write_files(
            tmp_path / f"{turn}", rest, int(rng.integers(1, 5)), int(rng.integers(1, 90)),
            int(rng.integers(1_000)),
        )  # fmt: skip
        found = selection.run(outputs, labelled)
        assert found["sample_id"].to_pylist() == expected["sample_id"].to_pylist(), turn
        assert found["key"].equals(expected["key"])
