"""From a pass to a batch: the strategy picks, and every pick says what is known of it."""

from __future__ import annotations

from rayal.engine.scoring import Pass
from rayal.keys import Keys
from rayal.models.explain import is_own
from rayal.selectors.picked_near import feature_of, with_nearest
from rayal.strategy import Strategy
from rayal.types import Picks


def pick(strategy: Strategy, done: Pass, budget: int, keys: Keys) -> Picks:
    """Gives the batch of a pass, in the order picked, with the chances of a uniform draw and, where
    a selector of ours decides by distances of a feature or beside them, with what is near.

    Raises:
        ConfigError: the selector is the user's, and raised something.
    """
    picks = strategy.select(done.candidates, done.labelled, budget, keys)
    picks = strategy.with_chances(picks, done.tallies.num_scored)
    feature = None if is_own(strategy.selector) else feature_of(strategy.selector)
    if feature is None:
        return picks
    return with_nearest(picks, done.candidates, done.labelled, feature)
