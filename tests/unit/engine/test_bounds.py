"""Bounds of what a linear head's change can do, against what it did, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayal.engine import again as agains
from rayal.engine.again import Recall, head_path
from rayal.engine.bounds import AtMost, rules, seen_of, shrinkage, softmax_error
from rayal.engine.remembered import FARTHEST, Remembered
from rayal.engine.scoring import Again
from rayal.keys import Keys
from rayal.models.head import LinearHead
from rayal.probabilities import ROUGH, softmax, top_three
from rayal.scorers.least_confidence import LeastConfidence
from rayal.scorers.margin import Margin
from rayal.types import Outputs

NUM_ROWS = 400


def head_of(rng: np.random.Generator, shape: tuple[int, int], norm: float) -> LinearHead:
    weights = (rng.normal(size=shape) * norm).astype(np.float32)
    bias = (rng.normal(size=shape[0]) * norm).astype(np.float32)
    return LinearHead(weights.astype(np.float64), bias.astype(np.float64))


def moved(rng: np.random.Generator, head: LinearHead, share: float) -> LinearHead:
    other = head_of(rng, head.weights_CD.shape, float(np.abs(head.weights_CD).mean()) * share)
    weights = (head.weights_CD + other.weights_CD).astype(np.float32).astype(np.float64)
    bias = (head.bias_C + other.bias_C).astype(np.float32).astype(np.float64)
    return LinearHead(weights, bias)


def probs_of(head: LinearHead, inputs_ND: np.ndarray) -> Outputs:
    """What the predictor computes: a float32 product, and the softmax of the house."""
    weights, bias = (torch.from_numpy(a.astype(np.float32)) for a in (head.weights_CD, head.bias_C))
    logits = torch.nn.functional.linear(torch.from_numpy(inputs_ND), weights, bias)
    return Outputs(torch.arange(len(inputs_ND)), {"probs": softmax(logits)})


class World:
    """Rows, their cells, and what is remembered of them under one head."""

    def __init__(self, seed: int, num_classes: int, width: int, norm: float, spread: float) -> None:
        self.rng = np.random.default_rng(seed)
        centers_GD = self.rng.normal(size=(5, width)) * spread
        self.inputs_ND = (
            centers_GD[self.rng.integers(0, 5, NUM_ROWS)] + self.rng.normal(size=(NUM_ROWS, width))
        ).astype(np.float32)
        self.centers_GD = centers_GD
        self.then = head_of(self.rng, (num_classes, width), norm)
        self.kept = Remembered.nothing(NUM_ROWS)
        distances = np.linalg.norm(self.inputs_ND[:, None] - centers_GD, axis=2)
        radius_N = distances.min(1) * (1 + 1e-9)
        self.step = float(radius_N.max() * 2 / FARTHEST)
        rows = np.arange(NUM_ROWS)
        self.kept.set_cells(rows, distances.argmin(1), radius_N, self.step)
        classes_NK, ranked_NK = top_three(probs_of(self.then, self.inputs_ND))
        self.error = softmax_error(num_classes) + ROUGH
        number = self.kept.number_of("then")
        self.kept.set_seen(rows, number, classes_NK, *seen_of(ranked_NK, self.error))

    def out(self, scorer: Any, now: LinearHead, floor: float) -> np.ndarray:
        recall = Recall.__new__(Recall)
        recall.scorer, recall.step, recall._error = scorer, self.step, self.error
        recall.again = Again("", "", len(self.then.bias_C), floor)
        found = shrinkage(self.then, now, self.centers_GD, self.step * FARTHEST)
        recall._shrinkages = {"then": found}
        return recall.out_of_reach(self.kept, floor)


SHAPES = st.sampled_from([(2, 3), (3, 1), (5, 8), (21, 32), (40, 17)])


@given(
    seed=st.integers(0, 10_000), shape=SHAPES,
    norm=st.sampled_from([1e-3, 0.1, 1.0, 30.0]), spread=st.sampled_from([0.0, 1.0, 300.0]),
    share=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0]),
    kind=st.sampled_from([Margin, LeastConfidence]), part=st.floats(0.01, 0.99),
)  # fmt: skip
def test_who_is_out_scores_less_and_keeps_its_class(
    seed: int, shape: tuple[int, int], norm: float, spread: float, share: float, kind: Any,
    part: float,
) -> None:  # fmt: skip
    world = World(seed, *shape, norm, spread)
    now = moved(world.rng, world.then, share)
    outputs = probs_of(now, world.inputs_ND)
    scores_N = kind(multilabel=False).score(outputs, Keys(0, 0)).numpy()
    # The floor is a row's own score: rounding may not put that row out.
    floor = float(np.sort(scores_N)[int(part * NUM_ROWS)])
    out = world.out(kind(multilabel=False), now, floor)
    assert (scores_N[out] < floor).all()
    now_N = outputs.probs.argmax(1).numpy()
    np.testing.assert_array_equal(now_N[out], world.kept.arrays["top"][out])


@pytest.mark.parametrize("kind", [Margin, LeastConfidence])
def test_bounds_are_of_use(kind: Any) -> None:
    """A head that moved little puts most rows out, one that moved far none; a bound that is never
    right would pass the test above."""
    world = World(1, 5, 8, 1.0, 3.0)
    found = []
    for share in (0.0, 1e-3, 0.05, 3.0):
        now = moved(world.rng, world.then, share)
        scores_N = kind(multilabel=False).score(probs_of(now, world.inputs_ND), Keys(0, 0)).numpy()
        floor = float(np.sort(scores_N)[int(0.9 * NUM_ROWS)])
        found.append(len(world.out(kind(multilabel=False), now, floor)) / NUM_ROWS)
    assert found[0] > 0.85
    assert found[:3] == sorted(found[:3], reverse=True)
    assert found[2] > 0.5
    assert found[3] < 0.3


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-4])
@pytest.mark.parametrize(("norm", "spread"), [(1.0, 3.0), (3.0, 300.0), (0.05, 30_000.0)])
def test_no_gap_of_float32_shrinks_by_more(norm: float, spread: float, share: float) -> None:
    """With logits of thousands what a product is off by is far above what heads differ by."""
    world = World(4, 6, 16, norm, spread)
    world.inputs_ND[:, 1:] *= 1e-3  # long rows whose classes are near each other nevertheless
    world.centers_GD[:, 1:] *= 1e-3
    then = LinearHead(world.then.weights_CD.copy(), world.then.bias_C)
    then.weights_CD[:, 0] = 1.0
    now = moved(world.rng, then, share)
    now.weights_CD[:, 0] = 1.0
    rows = np.arange(NUM_ROWS)
    distances = np.linalg.norm(world.inputs_ND[:, None] - world.centers_GD, axis=2)
    cell_N, radius_N = distances.argmin(1), distances.min(1) * (1 + 1e-6)
    found = shrinkage(then, now, world.centers_GD, float(radius_N.max()))
    before_NC, after_NC = (
        np.log(np.maximum(probs_of(head, world.inputs_ND).probs.double().numpy(), 1e-300))
        for head in (then, now)
    )
    top_N = before_NC.argmax(1)
    slack = 4.0 * softmax_error(6)
    for other in range(6):
        shrunk_N = (before_NC[rows, top_N] - before_NC[:, other]) - (
            after_NC[rows, top_N] - after_NC[:, other]
        )
        sure = (top_N != other) & (np.minimum(before_NC, after_NC)[:, other] > np.log(1e-30))
        any_N, one_N = found(top_N, np.full(NUM_ROWS, other), cell_N, radius_N.astype(np.float32))
        assert (shrunk_N[sure] <= one_N[sure] + slack).all()
        assert (shrunk_N[sure] <= any_N[sure] + slack).all()


def test_a_third_class_may_come_first() -> None:
    """Far from the first two classes before, and ahead of them now."""
    inputs_ND = np.zeros((NUM_ROWS, 1), np.float32)
    world = World(5, 3, 1, 1.0, 0.0)
    world.inputs_ND, world.centers_GD = inputs_ND, np.zeros((5, 1))
    world.then = LinearHead(np.zeros((3, 1)), np.array([6.0, 2.0, 1.0]))
    now = LinearHead(np.zeros((3, 1)), np.array([6.0, 2.0, 5.99]))
    classes_NK, ranked_NK = top_three(probs_of(world.then, inputs_ND))
    world.kept.set_seen(np.arange(NUM_ROWS), 0, classes_NK, *seen_of(ranked_NK, world.error))
    world.kept.arrays["radius"][:] = 0
    assert len(world.out(Margin(multilabel=False), world.then, 0.95)) == NUM_ROWS
    assert len(world.out(Margin(multilabel=False), now, 0.95)) == 0


def test_a_head_that_became_surer_puts_more_out_than_one_that_became_less_sure() -> None:
    world = World(2, 5, 8, 1.0, 3.0)
    found = []
    for factor in (1.2, 1 / 1.2):
        now = LinearHead(world.then.weights_CD * factor, world.then.bias_C * factor)
        scores_N = Margin(multilabel=False).score(probs_of(now, world.inputs_ND), Keys(0, 0))
        floor = float(np.sort(scores_N.numpy())[int(0.9 * NUM_ROWS)])
        found.append(len(world.out(Margin(multilabel=False), now, floor)))
    assert found[0] > found[1]


def test_the_tables_bound_every_pair_in_exact_arithmetic() -> None:
    world = World(3, 6, 4, 1.0, 2.0)
    now = moved(world.rng, world.then, 0.5)
    found = shrinkage(world.then, now, world.centers_GD, world.step * FARTHEST)
    inputs_ND = world.inputs_ND.astype(np.float64)
    change_NC = (now.weights_CD - world.then.weights_CD) @ inputs_ND.T
    change_NC = change_NC.T + (now.bias_C - world.then.bias_C)
    cell_N = world.kept.arrays["cell"].astype(np.intp)
    radius_N = (world.kept.arrays["radius"] * world.step).astype(np.float32)
    rows = np.arange(NUM_ROWS)
    for top in range(6):
        for other in range(6):
            if top == other:
                continue
            top_N, other_N = np.full(NUM_ROWS, top), np.full(NUM_ROWS, other)
            any_N, one_N = found(top_N, other_N, cell_N, radius_N)
            real_N = change_NC[rows, other] - change_NC[rows, top]
            assert (real_N <= one_N).all()
            assert (one_N <= any_N + 1e-4).all()
            # No bound could be smaller at a row that lies in the worst direction.
            away_ND = inputs_ND - world.centers_GD[cell_N]
            assert (one_N - real_N <= 2.01 * found.norm[top * 6 + other] * radius_N + 1e-3).all()
            assert away_ND.shape == inputs_ND.shape


def test_one_number_for_all_where_nothing_better_is_known() -> None:
    any_N, one_N = AtMost(0.25)(*(np.zeros(3, np.intp) for _ in range(3)), np.zeros(3, np.float32))
    assert any_N.tolist() == one_N.tolist() == [0.25] * 3


def test_rules_say_what_a_score_can_be() -> None:
    found = rules(Margin(multilabel=False).highest, 0.9, 0.0)
    assert len(found) == 4  # a first of .03 or .06 leaves no margin of .1, and without a gap none
    for odds, gap in found:
        first = 1 / (1 + np.exp(-odds))
        assert first * (1 - np.exp(-gap)) == pytest.approx(0.1, abs=1e-6)
    sure = rules(LeastConfidence(multilabel=False).highest, 0.7, 0.0)
    assert min(1 / (1 + np.exp(-odds)) for odds, _ in sure) == pytest.approx(0.3, abs=1e-6)
    assert rules(Margin(multilabel=False).highest, 0.0, 0.0) == []


def test_memory_does_not_grow_with_the_models_that_are_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows of the oldest are scored; those of the newest are judged."""
    world = World(1, 5, 8, 1.0, 3.0)
    newest = world.kept.models[0]
    world.kept.models = [f"older {number}" for number in range(9)] + [newest]
    world.kept.arrays["model"][:] = np.arange(NUM_ROWS) % 10
    for model in world.kept.models:
        world.then.write(head_path(str(tmp_path), model))
    recall = Recall.__new__(Recall)
    recall.scorer, recall.step, recall._error = Margin(multilabel=False), world.step, world.error
    recall.centers_GD, recall.model_id, recall._shrinkages = world.centers_GD, newest, {}
    recall.again = Again(str(tmp_path), "", 5, 0.9)
    monkeypatch.setattr(agains, "_TABLES_BYTES", 3 * 4 * 5**2)
    out = recall.out_of_reach(world.kept, 0.9)
    assert set(world.kept.arrays["model"][out]) == {7, 8, 9}
    assert sum(one is not None for one in recall._shrinkages.values()) == 3


@pytest.mark.parametrize("num_classes", [2, 3, 21, 32, 33])
def test_the_top_three_are_those_of_topk(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(rng.dirichlet(np.full(num_classes, 0.3), 500).astype(np.float32))
    classes_NK, ranked_NK = top_three(Outputs(torch.arange(500), {"probs": probs}))
    expected = probs.topk(min(3, num_classes), dim=1)
    values = expected.values.numpy()
    assert (ranked_NK <= values).all()
    np.testing.assert_allclose(ranked_NK, values, rtol=ROUGH)
    clear = (values[:, 0] - values[:, 1] > 1e-4) & (values[:, 1] - values[:, -1] > 1e-4)
    np.testing.assert_array_equal(classes_NK[clear], expected.indices.numpy()[clear, :2])
    assert agains.CELLS  # the module is the one that is meant
