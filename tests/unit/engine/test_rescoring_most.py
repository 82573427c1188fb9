"""What the driver makes of the probes of a pass."""

from __future__ import annotations

import numpy as np
import pytest

from rayal.engine.again import SHRINK_STEP, Probed
from rayal.engine.rescoring import _most
from rayal.ranking import sketch

NOTHING = sketch(np.zeros(0), np.zeros(0, np.int64), 1)


def probed(**rows_by_steps: int) -> Probed:
    steps = [int(name.removeprefix("s")) for name in rows_by_steps]
    return Probed(NOTHING, np.array(steps, np.intp), np.array([*rows_by_steps.values()]))


def test_one_in_a_thousand_of_all_rows_may_shrink_by_more_wherever_they_lie() -> None:
    """A pool may be sorted: one row in a hundred, all of the first of ten shards, is too many."""
    calm = [probed(s0=1000) for _ in range(9)]
    assert _most([probed(s0=900, s320=100), *calm]) == 320 * SHRINK_STEP
    assert _most([probed(s0=989, s10=1, s320=10), *calm]) == 10 * SHRINK_STEP
    assert _most([probed(s0=990, s320=10), *calm]) == 0.0


@pytest.mark.parametrize("number", [0, 99])
def test_too_few_rows_say_nothing(number: int) -> None:
    assert _most([probed(s0=number) for _ in range(10)]) is None
