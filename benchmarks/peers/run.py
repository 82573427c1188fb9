"""Times other people's selection on given arrays, in an environment of its own.

    .peers/bin/python benchmarks/peers/run.py [--quick]     the standard cases on made-up arrays
    .peers/bin/python benchmarks/peers/run.py FOLDER        the cases of FOLDER/cases.json

A case names a peer and a method (see METHODS), .npy files of FOLDER (`rows` (N, D), `labelled`
(L, D) or null, `probs` (N, C) or null), a budget `B`, a `seed` and ProbCover's `delta`. Every case
runs in a process of its own with one thread, and gives one JSON line: the case, CPU seconds of the
method alone (arrays are there, nothing is imported any more), peak memory of the process, and the
file of its picks (positions in `rows`); or an `error`. `make bench-peers` makes the environment;
benchmarks/select.py puts these lines into its table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_K_CENTER = ("textbook", "torch", "CoreSet", "greedy_coreset")


class Given(NamedTuple):
    """What a method is given: arrays in memory, C-contiguous, float32."""

    rows: Array  # (N, D) the candidates
    labelled: Array  # (L, D)
    probs: Array  # (N, C); C = 0 where there are none
    budget: int
    seed: int
    delta: float  # radius of a ball, for ProbCover

    @property
    def both(self) -> Array:
        """Candidates, then labelled rows: a candidate's position is the same in both."""
        return np.concatenate([self.rows, self.labelled])


# ------------------------------------------------------------------------------- scikit-activeml


def _labels(given: Given) -> Array:
    """Gives what scikit-activeml takes for labels: NaN where there is none."""
    return np.r_[np.full(len(given.rows), np.nan), np.zeros(len(given.labelled))]


def skactiveml_core_set(given: Given) -> Callable[[], Array]:
    """Euclidean k-center from the labelled rows; it keeps a (B, N) float64 matrix of distances."""
    from skactiveml.pool import CoreSet

    both, labels = given.both, _labels(given)
    return lambda: CoreSet(random_state=given.seed).query(both, labels, batch_size=given.budget)


def skactiveml_badge(given: Given) -> Callable[[], Array]:
    """Materialised (N, C x D) gradients; the first pick has the longest, as in rayal."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Head(SkactivemlClassifier):  # the classifier that it asks for says what was given
        def fit(self, X: Array, y: Array, sample_weight: Any = None) -> Head:
            return self

        def predict_proba(self, X: Array) -> Array:
            return given.probs

    labels = np.full(len(given.rows), np.nan)
    head = Head(classes=list(range(given.probs.shape[1])))
    query = Badge(random_state=given.seed).query
    return lambda: query(given.rows, labels, head, fit_clf=False, batch_size=given.budget)


def skactiveml_typi_clust(given: Given) -> Callable[[], Array]:
    """scikit-learn's k-means with L + B clusters on all rows; k = 20, as in the paper."""
    from skactiveml.pool import TypiClust

    both, labels = given.both, _labels(given)
    query = TypiClust(random_state=given.seed, k=20).query
    return lambda: query(both, labels, batch_size=given.budget)


def skactiveml_prob_cover(given: Given) -> Callable[[], Array]:
    """Given its radius, so that nothing is spent on finding one; (N, N) float64 distances."""
    from skactiveml.pool import ProbCover

    both, labels = given.both, _labels(given)
    query = ProbCover(random_state=given.seed, n_classes=2, deltas=[given.delta]).query
    return lambda: query(both, labels, batch_size=given.budget)


# ------------------------------------------------------------------------------------ small-text


def small_text_greedy_coreset(given: Given) -> Callable[[], Array]:
    """Euclidean k-center that measures all rows against all centers at every pick.

    10,000 rows at a time: its default of 100 takes 2.6 times as long. Its default distance is the
    cosine, another question, 0.7 times as long.
    """
    from small_text.query_strategies.coresets import greedy_coreset

    # It takes places among the unlabelled for places in the array: so these must come first.
    both, num_rows = given.both, len(given.rows)
    there, known = np.arange(num_rows), np.arange(num_rows, len(both))
    how = {"distance_metric": "euclidean", "batch_size": 10_000}
    return lambda: greedy_coreset(both, there, known, given.budget, **how)


def small_text_lightweight_coreset(given: Given) -> Callable[[], Array]:
    """One weighted draw by the angle to the mean: no greedy, so far less work."""
    from small_text.query_strategies.coresets import lightweight_coreset

    def select() -> Array:
        np.random.seed(given.seed)  # noqa: NPY002 - it draws from numpy's global generator
        return lightweight_coreset(given.rows, given.rows.mean(axis=0), given.budget)

    return select


def small_text_badge(given: Given) -> Callable[[], Array]:
    """Materialised float64 (N, C x D), without the one-hot part of the gradient; greedy k-means++
    of scikit-learn, which tries several rows a pick."""
    from small_text.integrations.pytorch.query_strategies.strategies import BADGE

    strategy = BADGE(given.probs.shape[1])
    there = np.arange(len(given.rows))
    none = there[:0]

    def select() -> Array:
        return strategy.sample(
            None, None, there, none, none, given.budget, given.rows, given.probs.copy()
        )

    return select


# ---------------------------------------------------------------------------------- plain loops


def plain_torch_loop(given: Given) -> Callable[[], Array]:
    """k-center as a careful person writes it: float32, one matrix-vector product a pick."""
    import torch

    torch.set_num_threads(1)

    def select() -> Array:
        rows, labelled = torch.from_numpy(given.rows), torch.from_numpy(given.labelled)
        norms_N = (rows * rows).sum(1)
        near_N = torch.full((len(rows),), torch.inf)
        picks: list[int] = []
        for center_D in labelled:
            torch.minimum(near_N, _to(rows, norms_N, center_D), out=near_N)
        while True:
            picks.append(int(near_N.argmax()))
            if len(picks) == given.budget:
                return np.array(picks)
            torch.minimum(near_N, _to(rows, norms_N, rows[picks[-1]]), out=near_N)
            near_N[picks[-1]] = -1.0

    return select


def _to(rows: Any, norms_N: Any, center_D: Any) -> Any:
    squared_N = rows.mv(center_D).mul_(-2.0)
    return squared_N.add_(norms_N).add_(center_D @ center_D)


def textbook_k_center(given: Given) -> Callable[[], Array]:
    """k-center in float64 by differences, ties to the first: the picks that others are held to."""

    def select() -> Array:
        rows = given.rows.astype(np.float64)
        near_N = np.full(len(rows), np.inf)
        picks: list[int] = []
        for center_D in given.labelled.astype(np.float64):
            np.minimum(near_N, np.square(rows - center_D).sum(1), out=near_N)
        while True:
            picks.append(int(near_N.argmax()))
            if len(picks) == given.budget:
                return np.array(picks)
            np.minimum(near_N, np.square(rows - rows[picks[-1]]).sum(1), out=near_N)
            near_N[picks] = -1.0

    return select


METHODS: dict[str, dict[str, Callable[[Given], Callable[[], Array]]]] = {
    "scikit-activeml": {
        "CoreSet": skactiveml_core_set,
        "Badge": skactiveml_badge,
        "TypiClust": skactiveml_typi_clust,
        "ProbCover": skactiveml_prob_cover,
    },
    "small-text": {
        "greedy_coreset": small_text_greedy_coreset,
        "lightweight_coreset": small_text_lightweight_coreset,
        "BADGE": small_text_badge,
    },
    "plain loop": {"torch": plain_torch_loop, "textbook": textbook_k_center},
}


# ------------------------------------------------------------------------------------- the runs


def run(folder: Path, number: int) -> dict[str, Any]:
    """Gives what one case took, and leaves its picks beside the arrays."""
    case = json.loads((folder / "cases.json").read_text())[number]
    rows = np.load(folder / case["rows"])
    labelled, probs = (case.get(name) for name in ("labelled", "probs"))
    given = Given(
        rows,
        rows[:0] if labelled is None else np.load(folder / labelled),
        np.empty((len(rows), 0), np.float32) if probs is None else np.load(folder / probs),
        case["B"],
        case.get("seed", 0),
        case.get("delta", 0.0),
    )
    warnings.simplefilter("ignore")
    select = METHODS[case["peer"]][case["method"]](given)
    start = time.process_time()
    picks = np.asarray(select(), np.int64)
    cpu_s = time.process_time() - start
    np.save(folder / f"picks-{number}.npy", picks)
    return {
        "cpu_s": round(cpu_s, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "picks": f"picks-{number}.npy",
    }


def run_all(folder: Path, limit_s: float) -> Iterator[dict[str, Any]]:
    """Gives a line a case; one that fails or takes too long has an error and stops no other.

    Where the textbook's k-center ran before on the same rows, it is said whether picks are equal.
    """
    textbook: dict[str, Array] = {}
    environment = {**os.environ, **_ONE_THREAD}
    for number, case in enumerate(json.loads((folder / "cases.json").read_text())):
        command = [sys.executable, __file__, str(folder), "--case", str(number)]
        version = "" if case["peer"] == "plain loop" else importlib.metadata.version(case["peer"])
        line = {**case, "version": version}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s, env=environment
            )
        except subprocess.TimeoutExpired:
            yield {**line, "error": f"not done in {limit_s:g} s"}
            continue
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
            yield {**line, "error": last[0]}
            continue
        line |= json.loads(done.stdout.splitlines()[-1])
        if case["method"] in _K_CENTER:
            picks = np.load(folder / line["picks"])
            if case["method"] == "textbook":
                textbook[case["rows"]] = picks
            elif case["rows"] in textbook:
                line["textbook_picks"] = bool(np.array_equal(picks, textbook[case["rows"]]))
        yield line


def main() -> None:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--limit", type=float, default=1_800.0, help="seconds a case may take")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(run(asked.folder, asked.case)))
    elif asked.folder is not None:
        _print(run_all(asked.folder, asked.limit))
    else:
        sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: select.py lies there
        from _peers import save, standard_cases

        with tempfile.TemporaryDirectory() as name:
            save(standard_cases(asked.quick), Path(name))
            _print(run_all(Path(name), asked.limit))


def _print(lines: Iterator[dict[str, Any]]) -> None:
    for line in lines:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
