"""Uncertain rows from as many clusters as possible."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors.grid import Grid, fit
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.sample import keyed_sample
from rayal.selectors.turns import take_turns
from rayal.types import Candidates, Needs, Picks


@dataclass(frozen=True)
class ClusterMargin:
    """Picks the best-scored row of each cluster in turn, the smallest clusters first. O(M K D).

    The candidates are the strategy's M best scores (the paper's k_m lowest margins). Clusters that
    run dry leave the round; labelled and pending rows are turns their cluster has had already. Ties
    of score go to the smallest id, ties of size to the lowest cluster. The key is the score.

    Departures: clusters are k-means cells of the candidates, trained on a keyed sample of 64 rows a
    cluster, not a hierarchical clustering of the pool (quadratic in its rows); a cluster gives its
    best score, not a random row; the turns of earlier rounds count.

    Raises:
        ScoringError: the feature holds NaN or infinite numbers.
        ConfigError: faiss is not installed.

    Reference: Citovsky et al., Batch Active Learning at Scale, NeurIPS 2021, arXiv:2107.14263.
    """

    feature: str = "embeds"
    num_clusters: int | None = None  # None: the budget, at most 1,000
    sample_per_cluster: int = 64
    num_iterations: int = 10

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
        num_clusters = min(self.num_clusters or min(budget, 1_000), candidates.num_rows)
        num_sampled = num_clusters * self.sample_per_cluster
        stream = keys.stream("cluster_margin sample")
        sample_MD = keyed_sample((candidates,), self.feature, num_sampled, stream, first_step=1)
        seed = keys.stream("cluster_margin").seed()
        centroids_KD = train_kmeans(sample_MD, num_clusters, seed, self.num_iterations)
        turns = take_turns(
            candidates,
            labelled,
            budget,
            grid,
            grid.place(centroids_KD),
            by_score=True,
            smallest_first=True,
            first_step=3,
        )
        return to_picks(
            [
                Picked(
                    turn.sample_id,
                    turn.score,
                    turn.value,
                    f"rank {rank}: score {turn.score:.6g}, turn {turn.turn + 1} of cluster "
                    f"{turn.cluster} ({turn.num_rows} candidates)",
                )
                for rank, turn in enumerate(turns, start=1)
            ]
        )
