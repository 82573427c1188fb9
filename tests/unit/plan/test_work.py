"""What parts state of their work: the laws that their docstrings give."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from runs import loop_of

from rayal.engine.survivors import ListedCandidates
from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.lcmd import LCMD
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.top_k import TopK
from rayal.types import Costed, CostedTrainer, Slice

M, B, D = 50_000, 500, 32


@pytest.mark.parametrize(
    ("part", "amount"),
    [
        (TopK(), lambda m, b, d: m + 40 * b),
        (KCenter(), lambda m, b, d: d * m * b / math.log(m / b)),
        (Pairwise(), lambda m, b, d: d * m * m),
        # K clusters of 64 rows, ten times; then M assignments.
        (ClusterMargin(), lambda m, b, d: (m + 10 * min(m, 64 * b)) * b * d),
        (KMeans(), lambda m, b, d: (m + 10 * min(m, 64 * b)) * b * d),
        (KMeansPP(), lambda m, b, d: (100 * m + b * b) * d),
        (Badge(), lambda m, b, d: (100 * m + b * b) * d),
        (LCMD(), lambda m, b, d: m * b * d),
        (Coverage(num_references=300), lambda m, b, d: m * 300 * d),
        (ClusterMargin(num_clusters=7), lambda m, b, d: (m + 10 * 64 * 7) * 7 * d),
    ],
    ids=lambda one: type(one).__name__ if not callable(one) else "",
)
def test_selectors_state_their_work(part: Costed, amount: Callable[..., float]) -> None:
    assert isinstance(part, Costed)
    for sizes in ((M, B, D), (2 * M, B, D), (M, B // 5, D), (M, B, 2 * D)):
        assert part.work(*sizes).amount == pytest.approx(amount(*sizes))
        assert part.work(*sizes).steps >= 1


@pytest.mark.parametrize("part", [KMeansPP(), Badge(), LCMD(), Coverage()])
def test_what_a_selection_holds_is_what_it_states(part: Any) -> None:
    # As many bytes more as 15,000 rows more leave in the slices; what is held once falls out.
    sizes = (5_000, 20_000)
    _, small, large = (_held_bytes(part, number) for number in (100, *sizes))  # first: imports
    stated = [part.work(number, 50, D).held_bytes for number in sizes]
    assert large - small == pytest.approx(stated[1] - stated[0], rel=0.1)


def _held_bytes(part: Any, num_rows: int) -> int:
    draws = np.random.default_rng(0)
    probs_NC = draws.dirichlet(np.ones(4), num_rows).astype(np.float32)
    features = {"embeds": draws.normal(size=(num_rows, D)).astype(np.float32), "probs": probs_NC}
    slices = [Slice(0, np.arange(num_rows), np.zeros(num_rows), features)]
    told = {"label": np.zeros(9), "pending": np.zeros(9, bool)}
    some = {name: array[:9] for name, array in features.items()} | told
    labelled = ListedCandidates([Slice(0, 10**6 + np.arange(9), np.zeros(9), some)])
    candidates = ListedCandidates(slices)
    tracemalloc.start()
    try:
        part.select(candidates, labelled, 50, Keys(0, 1))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_selector_that_states_nothing() -> None:
    assert not isinstance(LogDet(), Costed)


@pytest.mark.parametrize(
    ("words", "num_labels", "amount", "steps"),
    [
        ((), 1_000, 10 * 1_000, 40),
        (("trainer.min_steps=60",), 1_000, 15 * 1_000, 60),
        (("trainer.num_members=3",), 1_000, 3 * 10 * 1_000, 120),
        (("trainer.validation_share=0.2",), 1_000, 10 * 800, 40),
        ((), 5, 10 * 5, 10),
    ],
)
def test_a_trainer_states_its_work(
    class_pool: object, words: tuple[str, ...], num_labels: int, amount: float, steps: int
) -> None:
    run, _ = loop_of(
        f"pool.path={class_pool.path}",  # type: ignore[attr-defined]
        "trainer.epochs=10", "trainer.rows_per_step=256", "trainer.min_steps=0",
        "run_dir=nowhere", *words,
    )  # fmt: skip
    trainer = run.trainer
    assert isinstance(trainer, CostedTrainer)
    work = trainer.work(num_labels)
    assert (work.amount, work.steps) == (amount, steps)
    brief = trainer.brief(7).work(num_labels)
    assert brief.steps >= 7 * trainer.num_members
