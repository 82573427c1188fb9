"""Lines 13 and 14 of the table: what exact selection is worth beside the usual shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from _embeddings import embeddings
from _slices import Features, cut, none_labelled
from _table import Line, at_least, at_most, cpu_seconds

from rayal.engine.survivors import ListedCandidates
from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors.farthest import Precision
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.types import Picks

_KEYS = Keys(0, 0)
_NUM_SLICES = 16
_SHORTCUT = 1.3  # times the covering radius of the exact greedy, at least, on clustered rows
_GATED = 1.02  # times the covering radius of mode f, at most, where the gate lets mode q pass


class Cover(NamedTuple):
    """How near rows are to some centers."""

    radius: float  # the largest distance
    mean: float
    squared: float  # the sum of squared distances


def quality(quick: bool) -> Iterator[Line]:
    """Line 13: covering radius and mean distance to the nearest pick, by those of the exact greedy
    in mode f; of the batches that shortcuts give, too."""
    num_rows, budget = (50_000, 1_600) if quick else (200_000, 2_000)
    for kind in ("mixture", "low") if quick else ("mixture", "low", "sphere", "lognormal"):
        rows_ND = embeddings(kind, num_rows, 128)
        features = {"embeds": rows_ND}
        exact, exact_s = cpu_seconds(lambda: _k_center(features, budget, "float"))  # noqa: B023
        best = _cover(rows_ND, rows_ND[exact.ids])
        ways: dict[str, Callable[[], np.ndarray]] = {
            "mode q": lambda: _k_center(features, budget, None).ids,  # noqa: B023
            "quota B/16 a slice": lambda: _by_quota(features, budget // _NUM_SLICES),  # noqa: B023
            "two-round core-set": lambda: _two_rounds(features, budget),  # noqa: B023
            "k-means++": lambda: _seeds(features, budget),  # noqa: B023
            "random": lambda: np.random.default_rng(0).permutation(num_rows)[:budget],
        }
        for what, pick in ways.items():
            picks, seconds = cpu_seconds(pick)
            found = _cover(rows_ND, rows_ND[picks])
            share = found.radius / best.radius
            goals = []
            if what == "mode q":
                goals = [at_most("radius", share, _GATED)]
            if what.startswith("quota") and kind == "mixture":
                goals = [at_least("radius", share, _SHORTCUT)]
            yield Line(
                f"radius by exact: {what}",
                kind,
                *rows_ND.shape,
                len(picks),
                seconds,
                exact_s,
                "mode f",
                share,
                goals=goals,
                note=f"mean distance {found.mean / best.mean:.2f} times that of the exact greedy",
            )


def k_means(quick: bool) -> Iterator[Line]:
    """Line 14: centroids of 64 rows each, beside those of all rows. Where there are as many of them
    as clusters in the data, which local optimum is found is luck: means over seeds."""
    sizes = ((100_000, 200),) if quick else ((250_000, 500), (500_000, 1_000))
    for num_rows, num_clusters in sizes:
        rows_ND = embeddings("mixture", num_rows, 128)
        objectives: tuple[list[float], list[float]] = ([], [])
        seconds = [0.0, 0.0]
        seeds = range(1 if quick else 3)
        for seed in seeds:
            drawn = np.random.default_rng(seed).permutation(num_rows)
            for side, rows in enumerate((drawn[: 64 * num_clusters], drawn)):
                sample_MD = rows_ND[rows]
                centroids_KD, took_s = cpu_seconds(
                    lambda m=sample_MD, k=num_clusters, s=seed: train_kmeans(m, k, s)
                )
                objectives[side].append(_cover(rows_ND, centroids_KD).squared)
                seconds[side] += took_s / len(seeds)
        worse = sum(objectives[0]) / sum(objectives[1])
        each = [few / every for few, every in zip(*objectives, strict=True)]
        ratio = seconds[1] / seconds[0]
        yield Line(
            f"k-means, 64 rows for each of {num_clusters:,}",
            "mixture",
            *rows_ND.shape,
            ours_s=seconds[0],
            plain_s=seconds[1],
            timed="all rows",
            ratio=ratio,
            goals=[at_least("ratio", ratio, 5.0), at_most("objective", worse, 1.05)],
            note=f"objective {worse:.3f} times that of all {num_rows // num_clusters} a centroid "
            f"(by seed {', '.join(f'{one:.3f}' for one in each)})",
        )


def _k_center(features: Features, budget: int, precision: Precision | None) -> Picks:
    method = KCenter(precision=precision)
    return method.select(cut(features), none_labelled(features), budget, _KEYS)


def _by_quota(features: Features, quota: int) -> np.ndarray:
    """Gives k-center's picks of every slice by itself: what a loop over shards would do."""
    none = none_labelled(features)
    return np.concatenate(
        [
            KCenter().select(ListedCandidates([part]), none, quota, _KEYS).ids
            for part in cut(features, _NUM_SLICES).slices
        ]
    )


def _two_rounds(features: Features, budget: int) -> np.ndarray:
    """Gives k-center's picks among those that it makes in every slice, B each."""
    merged = np.sort(_by_quota(features, budget))
    among = {name: array[merged] for name, array in features.items()}
    picks = KCenter().select(cut(among), none_labelled(among), budget, _KEYS)
    return merged[picks.ids]


def _seeds(features: Features, budget: int) -> np.ndarray:
    return KMeansPP().select(cut(features), none_labelled(features), budget, _KEYS).ids


def _cover(rows_ND: np.ndarray, centers_JD: np.ndarray) -> Cover:
    centers = torch.from_numpy(centers_JD)
    norms_J = (centers * centers).sum(dim=1)
    nearest = []
    for block in torch.from_numpy(rows_ND).split(4_096):
        least = torch.addmm(norms_J, block, centers.T, alpha=-2.0).numpy().min(axis=1)
        nearest.append(least + (block * block).sum(dim=1).numpy())
    squared_N = np.maximum(np.concatenate(nearest), 0.0).astype(np.float64)
    distances_N = np.sqrt(squared_N)
    return Cover(distances_N.max(), distances_N.mean(), squared_N.sum())
