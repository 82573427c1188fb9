from dataclasses import dataclass

import pytest

from rayal.errors import ConfigError
from rayal.strategy import Strategy


@dataclass(frozen=True)
class Named:
    needs: tuple[str, ...] = ("probs",)


def test_number_of_candidates():
    assert Strategy(Named()).keep(10) is None
    assert Strategy(Named(), Named()).keep(10) == 100_000
    assert Strategy(Named(), Named()).keep(20_000) == 200_000
    assert Strategy(Named(), Named(), 500).keep(500) == 500


def test_needs_of_scorer():
    assert Strategy(Named()).needs_of_scorer == ()
    assert Strategy(Named(), Named(("draws",))).needs_of_scorer == ("draws",)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"budget is 501, more than strategy.num_candidates = 500"
    ):
        Strategy(Named(), Named(), 500).keep(501)
    with pytest.raises(ConfigError, match="num_candidates is 0, expected at least 1"):
        Strategy(Named(), Named(), 0)
    with pytest.raises(ConfigError, match="has no scorer"):
        Strategy(Named(), None, 500)
