"""How many rows a pass leaves on disk, and how many of them a worker holds."""

from __future__ import annotations

from collections.abc import Sequence


def survivors(shard_rows: Sequence[int], keep: int | None, at_once: int) -> float:
    """Gives how many rows a pass leaves in files, where scores come in no order. O(shards) time.

    Shards begin in order, `at_once` of them before the first has ended: what these leave is bounded
    by M a shard alone. Each later one leaves the rows above the M-th best score so far, which of n
    rows seen are M / n of its own. About M (1 + ln(N / M)) in all.
    """
    if keep is None:
        return float(sum(shard_rows))
    left, seen = 0.0, 0
    waiting: list[int] = []
    for rows in shard_rows:
        share = 1.0 if seen <= keep else keep / seen
        left += min(rows * share, keep)
        waiting.append(rows)
        if len(waiting) >= at_once:  # the oldest is done when the next one begins
            seen += waiting.pop(0)
    return left


def most_held(shard_rows: Sequence[int], keep: int | None) -> int:
    """Gives how many rows of one shard a worker holds at most: twice M, then it prunes."""
    most = max(shard_rows, default=0)
    return most if keep is None else min(most, 2 * keep)


def shards_hit(num_shards: int, num_picks: int) -> float:
    """Gives how many shards hold at least one of some picks that lie anywhere."""
    if num_shards < 1:
        return 0.0
    return num_shards * (1.0 - (1.0 - 1.0 / num_shards) ** num_picks)
