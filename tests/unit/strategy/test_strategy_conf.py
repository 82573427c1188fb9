from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from rayal.strategy import Strategy
from rayal.types import OUTPUTS

CONF = Path(__file__).resolve().parents[3] / "conf" / "strategy"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_there_are_strategies():
    assert {"random", "margin", "power_margin", "k_center", "badge", "cluster_margin"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_builds(name):
    strategy = instantiate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    assert isinstance(strategy, Strategy)
    assert set(strategy.needs_of_scorer) | set(strategy.selector.needs) <= set(OUTPUTS)
    assert strategy.keep(10) == (None if strategy.scorer is None else 100_000)
