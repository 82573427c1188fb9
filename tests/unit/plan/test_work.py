"""What parts state of their work: the laws that their docstrings give."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from runs import loop_of

from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.top_k import TopK
from rayal.types import Costed, CostedTrainer

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
        (ClusterMargin(num_clusters=7), lambda m, b, d: (m + 10 * 64 * 7) * 7 * d),
    ],
    ids=lambda one: type(one).__name__ if not callable(one) else "",
)
def test_selectors_state_their_work(part: Costed, amount: Callable[..., float]) -> None:
    assert isinstance(part, Costed)
    for sizes in ((M, B, D), (2 * M, B, D), (M, B // 5, D), (M, B, 2 * D)):
        assert part.work(*sizes).amount == pytest.approx(amount(*sizes))
        assert part.work(*sizes).steps >= 1


def test_a_selector_that_states_nothing() -> None:
    assert not isinstance(Badge(), Costed)


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
