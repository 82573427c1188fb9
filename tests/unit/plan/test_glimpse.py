"""A part of a pool, read like the whole."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from rayal.plan.glimpse import Glimpse, spread
from rayal.pool import Pool


@pytest.fixture
def glimpse(class_pool: Pool) -> Glimpse:
    return Glimpse.of(class_pool)


def _ids(pool: Pool, batch_rows: int) -> list[list[int]]:
    return [
        rows.column("sample_id").to_pylist()
        for shard in pool.shards
        for rows in pool.batches(shard, ("sample_id",), batch_rows)
    ]


def test_all_of_it_is_the_pool(glimpse: Glimpse, class_pool: Pool) -> None:
    assert glimpse.num_rows == class_pool.num_rows
    assert _ids(glimpse, 64) == _ids(class_pool, 64)
    assert glimpse.content_hash == class_pool.content_hash


def test_first_rows_of_some_shards(glimpse: Glimpse, class_pool: Pool) -> None:
    part = glimpse.part([0, 3], 100)
    assert (len(part.shards), part.num_rows) == (2, 200)
    # Batches are cut where the whole shard's are, the last one where the part ends.
    assert [len(ids) for ids in _ids(part, 64)] == [64, 36, 64, 36]
    whole = _ids(class_pool, 10_000)
    assert _ids(part, 100) == [whole[0][:100], whole[3][:100]]
    assert glimpse.part([1], 10_000).num_rows == class_pool.shards[1].num_live


def test_ids_of_a_part_are_fetched_with_their_labels(glimpse: Glimpse) -> None:
    part = glimpse.part([2], 50)
    ids = np.concatenate(_ids(part, 50))
    assert part.rows(ids[::-1], ["sample_id"]).column("sample_id").to_pylist() == ids[::-1].tolist()
    assert part.secret_labels(ids) == glimpse.secret_labels(ids)


def test_test_labels_of_first_rows(glimpse: Glimpse, class_pool: Pool) -> None:
    part = glimpse.part([0], 7)
    (shard,) = part.test_shards
    assert part.test_labels(shard) == (class_pool.test_labels(class_pool.test_shards[0]) or [])[:7]
    assert part.num_test_rows == 7


def test_it_travels(glimpse: Glimpse) -> None:
    part = pickle.loads(pickle.dumps(glimpse.part([1, 2], 30)))
    assert _ids(part, 30) == _ids(glimpse.part([1, 2], 30), 30)


@pytest.mark.parametrize(
    ("num", "wanted", "places"),
    [(10, 1, [0]), (10, 2, [0, 9]), (10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (1, 5, [0])],
)
def test_places_are_spread(num: int, wanted: int, places: list[int]) -> None:
    assert spread(num, wanted) == places
