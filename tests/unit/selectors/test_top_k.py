import numpy as np
import pytest
from slices import cut, none_labelled

from rayal.keys import Keys
from rayal.selectors.top_k import TopK

KEYS = Keys(1, 0)


@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_best_first_with_ties_by_id(num_slices):
    rng = np.random.default_rng(0)
    ids = rng.permutation(300) - 150
    scores = rng.integers(0, 5, 300) / 4
    picks = TopK().select(cut(ids, scores, None, num_slices, seed=4), none_labelled(), 40, KEYS)
    order = np.lexsort((ids, -scores))[:40]
    assert (picks.ids == ids[order]).all()
    assert (picks.scores == scores[order]).all()
    assert (picks.keys == scores[order]).all()
    assert np.isnan(picks.probabilities).all()
    assert picks.reasons[2] == "rank 3 by score 1"


def test_more_asked_for_than_there_is():
    assert len(TopK().select(cut(np.arange(3)), none_labelled(), 10, KEYS).ids) == 3
    assert len(TopK().select(cut(np.arange(0)), none_labelled(), 10, KEYS).ids) == 0
    assert len(TopK().select(cut(np.arange(3)), none_labelled(), 0, KEYS).ids) == 0
