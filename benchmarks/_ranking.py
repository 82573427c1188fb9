"""Lines 11 and 12 of the table: the best rows of many slices, and the keys of random draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _slices import Counted, cut
from _table import Goal, Line, at_least, at_most, cpu_seconds

from rayal.keys import Keys, hash_u64, uniform
from rayal.ranking import top

_NUM_SLICES = 16


def best_rows(quick: bool) -> Iterator[Line]:
    """Line 11: histograms and the rows of the exact cut, beside every slice's best B."""
    num_rows, budget = 10_000_000, 1_000_000
    scores_N = np.random.default_rng(0).standard_normal(num_rows).astype(np.float32)
    # Rounded: some scores tie, also at the threshold.
    candidates = cut({}, _NUM_SLICES, np.round(scores_N, 4).astype(np.float64))
    sides = []
    for gather_rows in (None, num_rows * _NUM_SLICES):
        counted = Counted(candidates)
        how = {} if gather_rows is None else {"gather_rows": gather_rows}
        found, seconds = cpu_seconds(lambda c=counted, h=how: top(c, budget, **h))
        sides.append((found, seconds, counted.answer_bytes))
    (ours, ours_s, few_bytes), (gathered, plain_s, many_bytes) = sides
    is_same = all(map(np.array_equal, ours, gathered))
    ratio, fewer = plain_s / ours_s, many_bytes / few_bytes
    yield Line(
        f"top B of {_NUM_SLICES} slices, push-down",
        "rounded",
        num_rows,
        budget=budget,
        ours_s=ours_s,
        plain_s=plain_s,
        timed="gathered",
        ratio=ratio,
        identical="yes" if is_same else "NO",
        goals=[
            at_least("ratio", ratio, 3.0),
            at_least("fewer bytes", fewer, 3.0),
            Goal("identical", is_same),
        ],
        note=f"{few_bytes / 1e6:.0f} MB by {many_bytes / 1e6:.0f} MB, {fewer:.1f} times fewer",
    )


def random_keys(quick: bool) -> Iterator[Line]:
    """Line 12: no two of the best keys are equal, and hashing costs little."""
    num_rows, best = 10_000_000, 100_000
    salt = Keys(0, 0).stream("benchmark").salt
    ids_N = np.arange(num_rows)
    keys_N, keys_s = cpu_seconds(lambda: uniform(salt, ids_N))
    top_B = np.partition(keys_N, num_rows - best)[num_rows - best :]
    num_equal = best - len(np.unique(top_B))
    hash_s = min(cpu_seconds(lambda: hash_u64(salt, ids_N))[1] for _ in range(3))
    rate = num_rows / hash_s / 1e6
    yield Line(
        "random keys: equal ones in the top B",
        "",
        num_rows,
        budget=best,
        ours_s=keys_s,
        ratio=num_equal,
        goals=[at_most("equal", num_equal, 0), at_least("hashes M/s", rate, 40.0)],
        note=f"{rate:.0f} M hashes/s, {num_rows / keys_s / 1e6:.0f} M uniform numbers/s, one core",
    )
