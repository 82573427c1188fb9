import numpy as np
import pytest

from rayal.types import Picks


def picks_of(ids: list[int]) -> Picks:
    numbers = np.zeros(len(ids))
    return Picks(np.asarray(ids, np.int64), numbers, numbers, numbers, ("",) * len(ids))


@pytest.mark.parametrize("ids", [[3, 1, 3], [5, 5], [2**62, 0, -1, 2**62]])
def test_an_id_that_is_picked_twice_is_refused(ids):
    with pytest.raises(ValueError, match="picks hold an id twice"):
        picks_of(ids)


@pytest.mark.parametrize("ids", [[], [7], [3, 1, 2]])
def test_the_order_of_picks_stays(ids):
    assert picks_of(ids).ids.tolist() == ids
