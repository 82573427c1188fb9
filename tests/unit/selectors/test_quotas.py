"""Water-filling and shares, on numbers small enough to count."""

import numpy as np
import pytest

from rayal.selectors.quotas import balanced, in_shares


def test_what_balance_leaves_over_goes_to_the_smallest_group_above_of_equals_to_the_first():
    assert balanced(np.array([9, 2, 5, 5]), 15).tolist() == [4, 2, 5, 4]
    assert balanced(np.array([9, 2, 5, 5]), 99).tolist() == [9, 2, 5, 5]
    assert balanced(np.array([9, 2]), 0).tolist() == [0, 0]


def test_what_shares_leave_over_goes_to_the_largest_remainder_of_equals_to_the_first():
    plenty = np.array([99, 99, 99])
    assert in_shares(plenty, np.array([1.0, 1.0, 1.0]), 4).tolist() == [2, 1, 1]
    assert in_shares(plenty, np.array([1.0, 1.0, 1.0]), 5).tolist() == [2, 2, 1]
    assert in_shares(plenty, np.array([1.0, 2.0, 3.0]), 7).tolist() == [1, 2, 4]
    assert in_shares(np.array([99, 3, 99]), np.array([1.0, 8.0, 1.0]), 20).tolist() == [9, 3, 8]


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.7, 1e-9, 7e8])
def test_shares_are_the_decimals_that_were_written(scale):
    # In binary 0.3 is a little less than a third of 0.9, and a tie would go to the second group.
    shares = np.array([float(f"{scale:g}"), float(f"{3 * scale:g}")])
    for budget in range(60):
        found = in_shares(np.array([99, 99]), shares, budget).tolist()
        assert found == in_shares(np.array([99, 99]), np.array([1.0, 3.0]), budget).tolist()
