"""Rows of all kinds, and the plain farthest-first greedy over all pairs."""

import numpy as np

KINDS = ("plain", "duplicates", "lattice", "wild norms", "offset", "one value", "spikes")


def rows_of_kind(kind, rng, n, width):
    x = rng.standard_normal((n, width)).astype(np.float32)
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 3), n)]
    elif kind == "lattice":
        x = np.round(2 * x)
    elif kind == "wild norms":
        x *= rng.lognormal(0, 2, (n, 1)).astype(np.float32)
    elif kind == "offset":
        x += 100
    elif kind == "one value":
        x[:] = x[0]
    elif kind == "spikes":
        x[rng.random(n) < 0.05, 0] *= 50
    return x


def by_hand(ids, x, known, budget, weights=None):
    """The plain greedy in float64, every distance a sum over differences; ties by id."""
    x, known = x.astype(np.float64), known.astype(np.float64)
    weights = np.ones(len(ids)) if weights is None else weights
    order = np.argsort(ids)  # so that argmax gives the smallest id
    ids, x, weights = ids[order], x[order], weights[order]

    def squared(center):
        return ((x - center) ** 2).sum(axis=1)

    near = np.full(len(ids), np.inf)
    for center in known:
        near = np.minimum(near, squared(center))
    picked = []
    while len(picked) < min(budget, len(ids)):
        gains = near * weights**2 if len(known) or picked else squared(x.mean(axis=0))
        gains = np.where(np.isin(np.arange(len(ids)), picked), -1.0, gains)
        row = int(gains.argmax())
        picked.append(row)
        near = np.minimum(near, squared(x[row]))
    return ids[picked]
