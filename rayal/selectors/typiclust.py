"""The most typical row of every cluster that has no label yet: a first batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayal.keys import Keys
from rayal.selectors.arguments import check_counts, check_feature
from rayal.selectors.grid import Grid, fit, resolution
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.sample import AFTER_CENTROIDS, centroids
from rayal.selectors.turns import count_clusters, fill
from rayal.selectors.typical import settle, typical_rows
from rayal.types import Candidates, Needs, Picks


@dataclass(frozen=True)
class TypiClust:
    """Picks the row in the densest place of each cluster, the largest uncovered clusters first.

    `feature` is (M, D) over candidates, (L, D) over labelled and pending rows; centroids are (K,
    D). There are as many k-means clusters as picks and labelled or pending rows, at most
    `max_clusters`, so that enough of them have no label; a cluster with t such rows has had t
    turns. Typical is the row whose `num_neighbors` nearest rows of the same cluster (half the
    cluster where that is fewer) are nearest on average. Clusters of up to `small_cluster` rows,
    labelled ones counted, come last. Ties go to the smallest id, ties of size to the lowest
    cluster. The deciding key is the mean distance to those neighbors; a pick's typicality is its
    inverse.

    O(M K D) time for the clusters, and M times `max_reference` x D at most for the neighbors: the
    rows of a cluster travel to every slice, some clusters at a time, 65,536 rows or one cluster, so
    that no process holds more; all of them together are at most the clusters picked from times
    `max_reference` rows. For a first batch without a model name a column of the pool.

    Departures: a cluster of more than `max_reference` candidates is represented by so many of them,
    drawn by id, as neighbors of all its rows; centroids are trained on a keyed sample of 64 rows a
    cluster, labelled ones among them; a cluster's second pick is its second most typical row of
    the start, where the authors' code measures anew without the first; there clusters go round in
    one order, here one with t labels waits t turns. Distances are Euclidean, as in the paper, not
    squared, as in the code.

    Raises:
        ConfigError: the feature is an id or a label, a count is below 1, or faiss is not installed.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Hacohen, Dekel & Weinshall, Active Learning on a Budget: Opposite Strategies Suit
    High and Low Budgets, ICML 2022, arXiv:2202.02794.
    """

    feature: str = "embeds"
    max_clusters: int = 500
    num_neighbors: int = 20
    small_cluster: int = 5
    max_reference: int = 2_048
    sample_per_cluster: int = 64
    num_iterations: int = 10

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_counts(
            self,
            max_clusters=self.max_clusters,
            num_neighbors=self.num_neighbors,
            small_cluster=self.small_cluster,
            max_reference=self.max_reference,
            sample_per_cluster=self.sample_per_cluster,
            num_iterations=self.num_iterations,
        )

    @property
    def needs(self) -> Needs:
        """The feature that is clustered."""
        return (self.feature,)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        (grid,) = fit((Grid(self.feature),), candidates, labelled)
        centroids_KD = centroids(
            (candidates, labelled),
            grid,
            min(budget + labelled.num_rows, self.max_clusters),
            self.sample_per_cluster,
            self.num_iterations,
            keys,
            "typiclust",
        )
        sizes_K = np.sum(candidates.each(settle, AFTER_CENTROIDS, grid, centroids_KD), axis=0)
        drawn_K = np.zeros_like(sizes_K)
        for counts_K in labelled.each(count_clusters, AFTER_CENTROIDS, grid, centroids_KD):
            drawn_K += counts_K
        by_size = np.lexsort((np.arange(len(sizes_K)), -(sizes_K + drawn_K)))
        is_small_K = sizes_K + drawn_K <= self.small_cluster
        quotas_K = fill(np.where(is_small_K, 0, sizes_K), drawn_K, by_size, budget)
        left = budget - int(quotas_K.sum())
        quotas_K += fill(np.where(is_small_K, sizes_K, 0), drawn_K, by_size, left)
        numbers_K = np.minimum(self.num_neighbors, np.minimum(sizes_K, self.max_reference) // 2)
        found = typical_rows(
            candidates,
            grid,
            sizes_K,
            quotas_K,
            numbers_K,
            self.max_reference,
            keys.stream("typiclust reference"),
            AFTER_CENTROIDS + 1,
        )

        order = np.lexsort((found.ids, found.means, found.clusters))
        of = found.clusters[order]
        places = np.arange(len(of)) - np.searchsorted(of, of)
        given = places < quotas_K[of]
        order, of, turns = order[given], of[given], drawn_K[of[given]] + places[given]
        rank_of_cluster = np.empty_like(by_size)
        rank_of_cluster[by_size] = np.arange(len(by_size))
        picked: list[Picked] = []
        for j in np.lexsort((rank_of_cluster[of], turns, is_small_K[of])):
            row, cluster, mean = order[j], int(of[j]), float(found.means[order[j]])
            reason = (
                f"rank {len(picked) + 1}: {mean:.6g} from its {numbers_K[cluster]} nearest rows of "
                f"cluster {cluster} ({sizes_K[cluster]} candidates) on average, turn {turns[j] + 1}"
                f"{resolution([(mean * grid.scale) ** 2], (grid,))}"
            )
            named = int(found.ids[row]), float(found.scores[row])
            picked.append(Picked(*named, mean, reason, cluster=cluster))
        return to_picks(picked)
