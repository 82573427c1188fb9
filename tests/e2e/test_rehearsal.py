"""What no trained model could give is refused before a label is bought, and can be put right."""

from __future__ import annotations

import json

import pytest
from doors import Doors

from rayal.pool import Pool


def _num_labels(doors: Doors) -> int:
    if not (doors.folder / "r" / "ledger.db").exists():
        return 0
    return json.loads(doors("status", "r", "--json").done().out)["spend"]["labels"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["strategy=bald"], ["'draws' was asked for", "one member", "trainer.num_members"]),
        (["strategy=vote_entropy"], ["'draws' was asked for"]),
        (["strategy=k_center", "model.module._target_=faults.NoEmbeds"], ["'embeds' was asked"]),
        (["model.module._target_=faults.Wide"], ["5 outputs", "4"]),
        (["strategy=gsy"], ["GSy", "k_center"]),
        (["trainer.class_weights=[1,2]"], ["class_weights"]),
        (["strategy=bald", "predictor.num_draws=4"], ["dropout"]),
    ],
)
def test_it_costs_nothing(
    doors: Doors, class_pool: Pool, words: list[str], parts: list[str]
) -> None:
    doors.run(class_pool, "r", *words).refused(*parts)
    assert _num_labels(doors) == 0
    doors.run(class_pool, "r", "num_rounds=1").done()  # the same folder, put right
    assert _num_labels(doors) == 20


def test_a_regression_is_not_asked_for_probabilities(doors: Doors, number_pool: Pool) -> None:
    words = ["model.kind=number", "model.transform.column=features"]
    doors.run(number_pool, "r", *words).refused("Margin", "number", "predictive_variance")
    doors.run(number_pool, "r", *words, "strategy=predictive_variance").refused("'draws'")
    assert _num_labels(doors) == 0
    members = "trainer.num_members=2"
    doors.run(number_pool, "r", *words, "strategy=predictive_variance", members).done()


@pytest.mark.ray
def test_workers_of_ray_rehearse_too(doors: Doors, small_ray: object, class_pool: Pool) -> None:
    ray = ["engine=ray", "engine.num_workers=1", "engine.num_cpus=0.5"]
    doors.run(class_pool, "r", "strategy=bald", *ray).refused("'draws' was asked for")
    assert _num_labels(doors) == 0
