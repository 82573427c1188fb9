"""How many rows a pass leaves, beside a pass that is played through."""

from __future__ import annotations

import numpy as np
import pytest

from rayal.plan.survive import most_held, shards_hit, survivors


def _played(shard_rows: list[int], keep: int, at_once: int) -> int:
    """Scores in no order; a shard begins with the threshold of those that have ended."""
    draws = np.random.default_rng(0)
    scores = [draws.uniform(size=rows) for rows in shard_rows]
    left = 0
    for place, mine in enumerate(scores):
        ended = scores[: max(0, place + 1 - at_once)]
        seen = np.sort(np.concatenate(ended))[::-1] if ended else np.empty(0)
        cut = seen[keep - 1] if len(seen) >= keep else -1.0
        left += min(keep, int((mine > cut).sum()))
    return left


@pytest.mark.parametrize(("keep", "at_once"), [(2_000, 1), (2_000, 4), (30_000, 4), (500, 2)])
def test_survivors_are_as_many_as_a_pass_leaves(keep: int, at_once: int) -> None:
    shard_rows = [5_000] * 40
    expected = _played(shard_rows, keep, at_once)
    assert survivors(shard_rows, keep, at_once) == pytest.approx(expected, rel=0.05)


def test_shards_need_not_be_alike() -> None:
    shard_rows = [1_000, 9_000] * 20
    expected = _played(shard_rows, 3_000, 4)
    assert survivors(shard_rows, 3_000, 4) == pytest.approx(expected, rel=0.05)


def test_without_m_every_row_survives() -> None:
    assert survivors([3, 4, 5], None, 2) == 12
    assert survivors([], None, 2) == 0


def test_a_worker_holds_twice_m_of_a_shard() -> None:
    assert most_held([10, 70, 20], None) == 70
    assert most_held([10, 70, 20], 30) == 60
    assert most_held([10, 70, 20], 50) == 70
    assert most_held([], 5) == 0


def test_shards_that_hold_a_pick() -> None:
    assert shards_hit(10, 0) == 0
    assert shards_hit(10, 1) == pytest.approx(1.0)
    assert shards_hit(10, 2) == pytest.approx(1.9)
    assert shards_hit(10, 10_000) == pytest.approx(10.0)
    assert shards_hit(0, 5) == 0
