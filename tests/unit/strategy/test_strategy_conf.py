import inspect
import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from rayal.errors import ConfigError
from rayal.strategy import Strategy
from rayal.types import OUTPUTS, source_of

CONF = Path(__file__).resolve().parents[3] / "conf" / "strategy"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
FOR_NUMBERS = {"gsy", "igs", "lcmd_grads", "predictive_variance"}
OF_INPUTS = ("gsx", "igs", "typiclust")
FOR_ANY = {
    *("facility_location", "gsx", "k_center", "kmeans", "kmeans_pp", "lcmd", "log_det"),
    *("max_herding", "prob_cover", "random", "typiclust"),
}
TOLD = {  # beside defaults: what makes a strategy of a selector that several share
    "k_center_weighted": {"weighted": True},
    "u_herding": {"weighted": True},
    "prob_cover": {"kernel": "ball", "normalise": True},
    "facility_location": {"kernel": "cosine"},
}


LIMITED = {
    "margin_balanced": {"group": "predicted_class", "balance": True},
    "margin_distinct": {"near": 0.95},
}
COLUMN = "embedding"  # what the model reads


def build(name):
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    tree = OmegaConf.create({"model": {"transform": {"column": COLUMN}}, "strategy": node})
    return instantiate(tree, _convert_="all")["strategy"]


def test_there_are_strategies():
    assert {"random", "margin", "power_margin", "k_center", "badge", "cluster_margin"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_builds(name):
    strategy = build(name)
    assert isinstance(strategy, Strategy)
    needs = {source_of(need) for need in (*strategy.needs_of_scorer, *strategy.selector.needs)}
    assert needs <= {*OUTPUTS, COLUMN}
    wants_all = strategy.scorer is None or name == "margin_balanced"
    assert strategy.keep(10) == (None if wants_all else 100_000)


@pytest.mark.parametrize("kind", ["class", "multilabel", "number"])
@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_takes_or_refuses_a_kind_of_labels(name, kind):
    strategy = build(name)
    if name in FOR_ANY or (name in FOR_NUMBERS) == (kind == "number"):
        told = strategy.for_kind(kind)
        assert f"multilabel={kind != 'multilabel'}" not in repr(told)
        assert "multilabel=None" not in repr(told)
        return
    with pytest.raises(ConfigError, match=f"these are of kind {kind}; take strategy=") as refused:
        strategy.for_kind(kind)
    offered = re.search("strategy=(.*), or say", str(refused.value))[1]
    for other in re.split(", | or ", offered):
        build(other).for_kind(kind)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_selector_may_be_told_is_listed_with_its_default(name):
    """`strategy.selector.feature=x` needs no `+`. Not so `multilabel` and `classes`: the labels
    decide them. Greedy sampling looks at the inputs, whose column only the model's node knows."""
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())["selector"]
    target = node.pop("_target_")
    parameters = inspect.signature(get_class(target)).parameters
    defaults = {key: one.default for key, one in parameters.items() if key != "multilabel"}
    if name in OF_INPUTS:
        assert node.pop("feature") == "${model.transform.column}"
        assert defaults.pop("feature") == "embeds"
    if name == "lcmd_grads":
        assert (node.pop("feature"), defaults.pop("feature")) == ("grads", "embeds")
    if "TopK" in target and name not in LIMITED:
        # A selector of one's own takes its place, and a key that is null cannot be deleted.
        assert defaults.pop("limits") is None
    if name in LIMITED:
        limits = node.pop("limits")
        assert defaults.pop("limits") is None
        parameters = inspect.signature(get_class(limits.pop("_target_"))).parameters
        plain = {key: one.default for key, one in parameters.items() if key != "classes"}
        assert limits == {**plain, **LIMITED[name]}
    assert node == {**defaults, **TOLD.get(name, {})}


def test_what_a_restriction_may_be_told_is_listed_with_its_default():
    node = yaml.safe_load((CONF / "seals.yaml").read_text())["restriction"]
    parameters = inspect.signature(get_class(node.pop("_target_"))).parameters
    assert node.pop("feature") == "${model.transform.column}"
    assert node == {key: one.default for key, one in parameters.items() if key != "feature"}
    assert build("seals").needs_of_restriction == (COLUMN,)
    assert build("margin").needs_of_restriction == ()


@pytest.mark.parametrize("name", OF_INPUTS)
def test_strategies_of_inputs_look_at_them(name):
    assert build(name).selector.needs[0] == COLUMN
