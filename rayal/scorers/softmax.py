"""Noise on a score, so that near-duplicates do not fill the batch."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.scorers.asked import scores_of
from rayal.scorers.power import chances_above, check_beta
from rayal.types import Float64s, Ids, Needs, Outputs, Scorer, Scores


@dataclass(frozen=True)
class Softmax:
    """Gives s + Gumbel / beta, s the score of another scorer, of any sign. O(N) beside it.

    The best B of it are a sample without replacement with chances proportional to exp(beta s).
    Where `Power` looks at ratios of scores, this looks at differences, so beta has the inverse unit
    of the score: entropies and margins of the same data want different ones.

    Raises:
        ConfigError: beta is not above 0.
        ScoringError: the other scorer gave no (N,) tensor.

    Reference: Kirsch et al., Stochastic Batch Acquisition, TMLR 2023, arXiv:2106.12059.
    """

    scorer: Scorer
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_beta(self.beta)

    @property
    def needs(self) -> Needs:
        """What the scorer under the noise needs."""
        return tuple(self.scorer.needs)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64."""
        scores_N = scores_of(self.scorer, outputs, keys)
        noise_N = keys.stream(self._stream).gumbel(outputs.ids)
        return scores_N + noise_N / self.beta

    def chances(self, ids: Ids, scores: Float64s, edge: float, keys: Keys) -> Float64s:
        """Gives (B,) the probability that each of the best B rows was among them."""
        return chances_above(scores, keys.stream(self._stream).gumbel(ids), self.beta, edge)

    @property
    def _stream(self) -> str:
        return f"softmax {type(self.scorer).__name__}"
