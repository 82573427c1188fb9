"""The most typical row of every cluster that has no label yet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.arguments import check_counts, check_feature
from rayal.selectors.cells import AFTER_CENTROIDS, fit_cells, work_of_cells
from rayal.selectors.grid import Grid, fit, resolution
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.turns import take_turns
from rayal.types import Candidates, Needs, Picks, Work


@dataclass(frozen=True)
class KMeans:
    """Picks the row nearest to each centroid, the largest uncovered clusters first. O(M K D) time.

    `feature` is (M, D) over candidates, (L, D) over labelled and pending rows; centroids are (K,
    D). There are as many clusters as picks and labelled or pending rows, so that enough of them are
    uncovered; a cluster with t such rows has had t turns. Where clusters are fewer (a bound, or
    equal rows) they go on with their second nearest row, and so on. Ties go to the smallest id,
    ties of size to the lowest cluster. The deciding key is the distance to the centroid.

    Departures: every row weighs the same; centroids are trained on a keyed sample of at most 64
    rows a cluster, labelled rows among them, and there are at most `max_clusters`.

    Raises:
        ConfigError: the feature is an id or a label, a count is below 1, or faiss is not installed.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Zhdanov, Diverse Mini-Batch Active Learning, arXiv:1901.05954 (nearest to centroid,
    without its weights); Hacohen, Dekel & Weinshall, Active Learning on a Budget, ICML 2022,
    arXiv:2202.02794 (uncovered clusters, the largest first).
    """

    feature: str = "embeds"
    max_clusters: int = 4_096
    sample_per_cluster: int = 64
    num_iterations: int = 10

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_counts(
            self,
            max_clusters=self.max_clusters,
            sample_per_cluster=self.sample_per_cluster,
            num_iterations=self.num_iterations,
        )

    @property
    def needs(self) -> Needs:
        """The feature that is clustered."""
        return (self.feature,)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: multiplications of the k-means on its sample, and of M assignments."""
        size = self.sample_per_cluster, self.num_iterations
        return work_of_cells(num_candidates, min(budget, self.max_clusters), *size, width)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        (grid,) = fit((Grid(self.feature),), candidates, labelled)
        num_clusters = min(budget + labelled.num_rows, self.max_clusters)
        clustering = fit_cells(
            (candidates, labelled),
            grid,
            num_clusters,
            self.sample_per_cluster,
            self.num_iterations,
            keys,
            "kmeans",
        )
        turns = take_turns(
            candidates,
            labelled,
            budget,
            clustering,
            by_score=False,
            smallest_first=False,
            first_step=AFTER_CENTROIDS,
        )
        picked = []
        for rank, turn in enumerate(turns, start=1):
            distance = math.sqrt(-turn.value) / grid.scale
            reason = (
                f"rank {rank}: {distance:.6g} from the centroid of cluster {turn.cluster} "
                f"({turn.num_rows} candidates), turn {turn.turn + 1}"
                f"{resolution([-turn.value], (grid,))}"
            )
            picked.append(
                Picked(turn.sample_id, turn.score, distance, reason, cluster=turn.cluster)
            )
        return to_picks(picked)
