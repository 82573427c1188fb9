"""Uncertain rows from as many clusters as possible."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.arguments import check_counts, check_feature
from rayal.selectors.cells import (
    AFTER_CENTROIDS,
    Clustering,
    fit_cells,
    stored_clusters,
    work_of_cells,
)
from rayal.selectors.grid import Grid, fit
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.turns import take_turns
from rayal.types import Candidates, Needs, Picks, Work


@dataclass(frozen=True)
class ClusterMargin:
    """Picks the best-scored row of each cluster in turn, the smallest clusters first. O(M K D).

    The candidates are the strategy's M best scores (the paper's k_m lowest margins), `feature` is
    (M, D) over them, (L, D) over labelled and pending rows; centroids are (K, D). Clusters that
    run dry leave the round; labelled and pending rows are turns their cluster has had already. Ties
    of score go to the smallest id, ties of size to the lowest cluster. The key is the score.

    `clusters` names a column of cluster ids that were computed once, as the paper does: any whole
    numbers. Without it they are k-means cells, of two levels above 100,000 of them.

    Departures: clusters are k-means cells of the candidates, trained on a keyed sample of 64 rows a
    cluster, not a hierarchical clustering of the pool (quadratic in its rows); a cluster gives its
    best score, not a random row; the turns of earlier rounds count.

    Raises:
        ConfigError: the feature is an id or a label, a count is below 1, or faiss is not installed.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Citovsky et al., Batch Active Learning at Scale, NeurIPS 2021, arXiv:2107.14263.
    """

    feature: str = "embeds"
    num_clusters: int | None = None  # None: the budget, at most 1,000
    sample_per_cluster: int = 64
    num_iterations: int = 10
    clusters: str | None = None  # a column of stored cluster ids, in place of the feature

    def __post_init__(self) -> None:
        check_feature(self, self.feature if self.clusters is None else self.clusters)
        check_counts(
            self,
            num_clusters=1 if self.num_clusters is None else self.num_clusters,
            sample_per_cluster=self.sample_per_cluster,
            num_iterations=self.num_iterations,
        )

    @property
    def needs(self) -> Needs:
        """The feature that is clustered, or the column that names clusters."""
        return (self.feature if self.clusters is None else self.clusters,)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: multiplications of the k-means on its sample, and of M assignments."""
        wanted = min(budget, 1_000) if self.num_clusters is None else self.num_clusters
        size = self.sample_per_cluster, self.num_iterations
        return work_of_cells(num_candidates, wanted, *size, width)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        clustering: Clustering
        if self.clusters is not None:
            clustering, note = stored_clusters(candidates, self.clusters), f"'{self.clusters}'"
        else:
            (grid,) = fit((Grid(self.feature),), candidates, labelled)
            wanted = min(budget, 1_000) if self.num_clusters is None else self.num_clusters
            clustering = fit_cells(
                (candidates,),
                grid,
                min(wanted, candidates.num_rows),
                self.sample_per_cluster,
                self.num_iterations,
                keys,
                "cluster_margin",
            )
            note = "k-means"
        turns = take_turns(
            candidates,
            labelled,
            budget,
            clustering,
            by_score=True,
            smallest_first=True,
            first_step=AFTER_CENTROIDS,
        )
        return to_picks(
            [
                Picked(
                    turn.sample_id,
                    turn.score,
                    turn.value,
                    f"rank {rank}: score {turn.score:.6g}, turn {turn.turn + 1} of cluster "
                    f"{turn.cluster} ({turn.num_rows} candidates)",
                    cluster=turn.cluster,
                )
                for rank, turn in enumerate(turns, start=1)
            ],
            f"{clustering.number} clusters of {note}",
        )
