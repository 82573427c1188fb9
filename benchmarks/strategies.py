"""Which strategy when: accuracy for labels on real data, by `rayal.select` and a model beside it.

    python benchmarks/strategies.py [--quick] [--seeds N] [--only NAME ...]

Digits (1,797 images of 8 x 8, scikit-learn) with a logistic regression, retrained from zero each
round. Cases: a first batch without a model, small batches, large batches, rare classes (five of the
ten kept at 4 %, mean accuracy over classes), rows that are each there four times (a pool with
duplicates), regression (diabetes, 442 rows, scikit-learn: ridge, root mean squared error), and
many labels a row (words of wordfreq, and the languages they belong to: mean average precision).
`seals` has 10 neighbors a labelled row here: with its usual 100 it would score all of such a pool.
Means over seeds with the standard error of the difference from random; what is worse than random by
more than two of them is marked.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _words import words_in_languages

import rayal
from rayal.errors import RayalError
from rayal.types import Kind

CLASSES = (
    "random", "entropy", "margin", "power_margin", "cluster_margin", "margin_balanced", "k_center",
    "k_center_weighted", "kmeans", "kmeans_pp", "typiclust", "badge", "max_herding", "u_herding",
    "prob_cover", "facility_location", "log_det", "pairwise", "direct", "galaxy", "margin_distinct",
    "seals num_neighbors=10",
)  # fmt: skip
NO_MODEL = (
    "random", "k_center", "kmeans", "kmeans_pp", "typiclust", "max_herding", "prob_cover",
    "facility_location", "log_det",
)  # fmt: skip
MANY = (
    "random", "entropy", "margin", "power_margin", "cluster_margin", "k_center", "kmeans",
    "kmeans_pp", "badge", "max_herding", "u_herding",
)  # fmt: skip
NUMBERS = ("random", "k_center", "kmeans", "max_herding", "log_det", "gsx", "gsy", "igs", "lcmd")


_MEASURES = {
    "class": "accuracy",
    "number": "RMSE, lower is better",
    "multilabel": "mean average precision",
}
_MOST_ROWS = 9_000  # of pool and test split together


@dataclass(frozen=True)
class Case:
    """One way of labelling one pool."""

    name: str
    strategies: tuple[str, ...]
    rounds: tuple[int, ...]  # labels a round; the first is random, unless it is the only one
    rare: bool = False
    copies: int = 1
    kind: Kind = "class"


CASES = (
    Case("a first batch of 20, no model", NO_MODEL, (20,)),
    Case("small batches, 20 + 5 x 10", CLASSES, (20, 10, 10, 10, 10, 10)),
    Case("large batches, 100 + 2 x 200", CLASSES, (100, 200, 200)),
    Case("rare classes, 50 + 4 x 25", CLASSES, (50, 25, 25, 25, 25), rare=True),
    Case("each row four times, 50 + 3 x 50", CLASSES, (50, 50, 50, 50), copies=4),
    Case("regression, 20 + 4 x 10", NUMBERS, (20, 10, 10, 10, 10), kind="number"),
    Case("many labels a row, 100 + 4 x 100", MANY, (100, 100, 100, 100, 100), kind="multilabel"),
)


@dataclass(frozen=True)
class Data:
    """A pool and a test split."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def split(case: Case, seed: int) -> Data:
    """Gives the case's pool, another split for each seed."""
    rng = np.random.default_rng(seed)
    x, y = loaded(case)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1).astype(np.float32)
    order = rng.permutation(len(x))[:_MOST_ROWS]
    test, pool = order[: len(order) // 3], order[len(order) // 3 :]
    if case.rare:
        pool = pool[(y[pool] < 5) | (rng.random(len(pool)) < 0.04)]
    pool = rng.permutation(np.repeat(pool, case.copies))
    return Data(x[pool], y[pool], x[test], y[test])


def loaded(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Gives (N, D) float32 features and their labels: (N,), or (N, L) of 0 and 1."""
    from sklearn.datasets import load_diabetes, load_digits

    if case.kind == "multilabel":
        return words_in_languages()
    found = load_diabetes() if case.kind == "number" else load_digits()
    return found.data.astype(np.float32), found.target


def run(case: Case, strategy: str, data: Data, seed: int) -> tuple[float, float]:
    """Gives the test score after the last round, and the seconds of selection a round."""
    rng = np.random.default_rng(1_000 + seed)
    ids, taken, seconds = np.arange(len(data.x)), np.empty(0, np.int64), 0.0
    name, *options = strategy.split()
    model = None
    for turn, budget in enumerate(case.rounds):
        if turn == 0 and len(case.rounds) > 1:
            picked = rng.choice(ids, budget, replace=False)
        else:
            outputs = {"sample_id": ids, "embedding": data.x, **said(case, model, data.x)}
            labelled = {"sample_id": taken, "label": labels(case, data.y[taken])}
            started = time.process_time()
            batch = rayal.select(
                outputs,
                strategy=name,
                budget=budget,
                seed=seed,
                round=turn,
                labelled=labelled if len(taken) else None,
                kind=case.kind,
                **{key: int(value) for key, value in (one.split("=") for one in options)},
            )
            seconds += time.process_time() - started
            picked = batch["sample_id"].to_numpy()
        taken = np.concatenate([taken, picked])
        model = fit(case, data.x[taken], data.y[taken])
    return score(case, model, data), seconds / len(case.rounds)


def labels(case: Case, y: np.ndarray) -> Any:
    """Gives labels as `rayal.select` takes them."""
    if case.kind == "multilabel":
        return [np.flatnonzero(row).tolist() for row in y]
    return y.astype(float) if case.kind == "number" else y


def fit(case: Case, x: np.ndarray, y: np.ndarray) -> Any:
    """Gives a model trained from zero."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case.kind == "number":
            return Ridge(alpha=10.0).fit(x, y)
        one = LogisticRegression(C=0.1)
        return (OneVsRestClassifier(one) if case.kind == "multilabel" else one).fit(x, y)


def said(case: Case, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Gives what the model says of rows; a class that it never saw has no probability."""
    if model is None:
        return {}
    if case.kind == "number":
        return {"preds": model.predict(x)[:, None]}
    if case.kind == "multilabel":
        return {"probs": model.predict_proba(x).astype(np.float32)}
    probs = np.zeros((len(x), 10), np.float32)
    probs[:, model.classes_] = model.predict_proba(x)
    return {"probs": probs}


def score(case: Case, model: Any, data: Data) -> float:
    """Gives test accuracy, mean accuracy over classes, mean average precision over labels, or the
    root mean squared error."""
    from sklearn.metrics import average_precision_score

    if case.kind == "multilabel":
        return float(average_precision_score(data.test_y, model.predict_proba(data.test_x)))
    said = model.predict(data.test_x)
    if case.kind == "number":
        return float(np.sqrt(np.mean((said - data.test_y) ** 2)))
    if case.rare:
        return float(np.mean([(said == c)[data.test_y == c].mean() for c in range(10)]))
    return float((said == data.test_y).mean())


def report(case: Case, seeds: int, only: Sequence[str], say: Callable[[str], None]) -> None:
    """Prints a case's table, best first."""
    data = [split(case, seed) for seed in range(seeds)]
    found: dict[str, tuple[np.ndarray, float]] = {}
    for strategy in case.strategies:
        if only and strategy.split()[0] not in only and strategy != "random":
            continue
        try:
            runs = [run(case, strategy, one, seed) for seed, one in enumerate(data)]
        except RayalError as error:
            say(f"  {strategy:22} cannot: {error}")
            continue
        found[strategy] = np.array([one[0] for one in runs]), float(np.mean([s for _, s in runs]))
    random = found["random"][0]
    sign = -1.0 if case.kind == "number" else 1.0
    what = _MEASURES[case.kind]
    say(f"\n{case.name} ({what}, {seeds} seeds)")
    say(f"  {'strategy':22} {'mean':>7} {'beside random':>15} {'select s':>9}")
    for strategy in sorted(found, key=lambda one: -sign * found[one][0].mean()):
        values, seconds = found[strategy]
        gap = values - random
        error = gap.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
        worse = "  worse" if sign * gap.mean() < -2 * error else ""
        beside = f"{gap.mean():+.4f} ± {error:.4f}"
        say(f"  {strategy:22} {values.mean():7.4f} {beside:>15} {seconds:9.3f}{worse}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 seeds, three of the cases")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="strategies beside random")
    words = parser.parse_args()
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    seeds = 3 if words.quick else words.seeds
    cases = (CASES[0], CASES[3], CASES[5]) if words.quick else CASES
    print(f"{Path(__file__).name}: rayal {rayal.__version__}")
    for case in cases:
        report(case, seeds, words.only, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
