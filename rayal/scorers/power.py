"""Noise on the logarithm of a utility, so that near-duplicates do not fill the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.scorers.asked import scores_of
from rayal.types import Float64s, Ids, Needs, Outputs, Scorer, Scores

_TINY = 2.0**-1000  # stands for a utility of 0, whose logarithm must be finite


@dataclass(frozen=True)
class Power:
    """Gives log u + Gumbel / beta, u the non-negative score of another scorer. O(N) beside it.

    The best B of it are a sample without replacement with chances proportional to u^beta: beta
    near 0 is random, a large one the plain order. Noise is one draw an id, float64, so the sample
    depends neither on shards nor on workers; every scorer has a stream of noise of its own.

    Raises:
        ConfigError: beta is not above 0.
        ScoringError: the other scorer gave no (N,) tensor, or a number below 0: no utility.

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
        utility_N = scores_of(self.scorer, outputs, keys)
        negative_N = utility_N < 0.0
        if outputs.rejected is not None:  # their scores mean nothing
            negative_N = negative_N & ~outputs.rejected
        if bool(negative_N.any()):
            first = int(negative_N.nonzero()[0, 0])
            raise ScoringError(
                f"{type(self.scorer).__name__} gave {int(negative_N.sum())} scores below 0 of "
                f"{len(utility_N)} (first sample_id {int(outputs.ids[first])}: "
                f"{float(utility_N[first]):.6g}), expected utilities of at least 0 under Power; "
                "take rayal.scorers.softmax.Softmax, which allows any score"
            )
        noise_N = keys.stream(self._stream).gumbel(outputs.ids)
        return torch.log(utility_N.clamp(min=_TINY)) + noise_N / self.beta

    def chances(self, ids: Ids, scores: Float64s, edge: float, keys: Keys) -> Float64s:
        """Gives (B,) the probability that each of the best B rows was among them: see
        `chances_above`."""
        return chances_above(scores, keys.stream(self._stream).gumbel(ids), self.beta, edge)

    @property
    def _stream(self) -> str:
        return f"power {type(self.scorer).__name__}"


def chances_above(scores: Float64s, noise: Float64s, beta: float, edge: float) -> Float64s:
    """Gives (B,) the probability that a row's noisy score came above that of the best row left out,
    given that score: 1 - exp(-w exp(-beta edge)), w what the row's chance is proportional to.

    Horvitz-Thompson weights made of it are unbiased: bottom-k sampling, rank conditioning.

    Reference: Cohen & Kaplan, Tighter Estimation Using Bottom-k Sketches, 2008, arXiv:0802.3448.
    """
    exponent = np.minimum(beta * (scores - edge) - noise, 700.0)
    found: Float64s = -np.expm1(-np.exp(exponent))
    return found


def check_beta(beta: float) -> None:
    """Refuses a temperature that no noise can have."""
    if not (beta > 0.0 and math.isfinite(beta)):
        raise ConfigError(
            f"beta is {beta}, expected a finite number above 0; for no model at all take "
            "rayal.scorers.random.Random, for no noise the scorer itself"
        )
