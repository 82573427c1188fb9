"""Lines 1 to 5 of the table: k-center by lazy greedy, beside one pass over all rows a pick."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from _embeddings import embeddings
from _plain import farthest, textbook
from _slices import cut, labelled, none_labelled
from _table import Goal, Line, agreement, at_least, at_most, cpu_seconds, said, whole

from rayal.engine.survivors import ListedCandidates
from rayal.keys import Keys
from rayal.selectors import lazy, nearest_center
from rayal.selectors.farthest import fit_space
from rayal.selectors.k_center import KCenter
from rayal.selectors.space import sample_of
from rayal.types import Picks

_KEYS = Keys(0, 0)
_TEXTBOOK = 300  # picks in float64, 16 to 20 ms each


def k_center(quick: bool) -> Iterator[Line]:
    """Line 1: N = 200,000."""
    for kind in ("mixture", "sphere"):
        rows_ND = embeddings(kind, 200_000, 128)
        yield _beside_loop("k-center", kind, rows_ND, 5_000, 100 if quick else 5_000, 15.0)
        if not quick:
            yield _in_floats(kind, rows_ND, 5_000)


def k_center_kinds(quick: bool) -> Iterator[Line]:
    """What is hard: other kinds of rows, and as many picks as there are clusters. Nothing is
    wanted of these but the plain loop's picks."""
    num_rows, budget = (50_000, 1_000) if quick else (200_000, 5_000)
    for kind in ("tight", "low", "gauss", "lognormal", "wild", "spikes"):
        rows_ND = embeddings(kind, num_rows, 128)
        yield _beside_loop("k-center", kind, rows_ND, budget, 50)
        if kind == "tight":
            yield _beside_loop("k-center, a pick a cluster", kind, rows_ND, budget // 5, 50)


def k_center_large(quick: bool) -> Iterator[Line]:
    """Line 2: N = 1,000,000."""
    num_rows, budget = (400_000, 2_000) if quick else (1_000_000, 5_000)
    for kind in ("mixture",) if quick else ("mixture", "sphere"):
        rows_ND = embeddings(kind, num_rows, 128)
        wanted = None if quick else 20.0
        yield _beside_loop("k-center, large", kind, rows_ND, budget, 50, wanted)


def same_picks(quick: bool) -> Iterator[Line]:
    """Line 3: the same picks however rows are cut, and whatever blocks and threads there are."""
    num_rows, budget = (50_000, 1_000) if quick else (200_000, 5_000)
    for kind in ("mixture", "sphere"):
        yield from _cut_otherwise(kind, embeddings(kind, num_rows, 128), budget)
    yield _fuzz(100 if quick else 1_000)


def slices(quick: bool) -> Iterator[Line]:
    """Line 4: what many slices cost, with 12,500 rows each."""
    for kind in ("mixture", "sphere"):
        rows_ND = embeddings(kind, 200_000, 128)
        features = {"embeds": rows_ND}
        none = none_labelled(features)
        taken = []
        for _ in range(1 if quick else 3):
            both = [_select(KCenter(), cut(features, one), none, 5_000) for one in (1, 16)]
            taken.append([seconds for _, seconds in both])
        one_s, many_s = (statistics.median(side) for side in zip(*taken, strict=True))
        ratio = statistics.median(many / one for one, many in taken)
        identical, is_same = agreement(*(picks.ids.tolist() for picks, _ in both))
        yield Line(
            "16 slices by 1 slice (as plain)",
            kind,
            *rows_ND.shape,
            5_000,
            many_s,
            one_s,
            "full",
            ratio,
            identical=identical,
            goals=[at_most("ratio", ratio, 1.5), Goal("identical", is_same)],
        )


def small_batch(quick: bool) -> Iterator[Line]:
    """Line 5: up to 50 picks go the plain way, which must cost no more than a plain loop."""
    for kind in ("mixture", "sphere"):
        rows_ND = embeddings(kind, 200_000, 128)
        features = {"embeds": rows_ND}
        for budget in (10, 50):
            taken: list[tuple[float, float]] = []
            for _ in range(3 if quick else 5):
                candidates, none = cut(features), none_labelled(features)
                picks, ours_s = _select(KCenter(), candidates, none, budget)
                plain = whole(lambda r=rows_ND: farthest(r), budget, budget)
                taken.append((ours_s, plain.seconds))
            ours_s, plain_s = (statistics.median(side) for side in zip(*taken, strict=True))
            ratio = statistics.median(ours / plain for ours, plain in taken)
            in_float64 = farthest(rows_ND.astype(np.float64), int(picks.ids[0]))
            identical, is_same = agreement(picks.ids.tolist(), itertools.islice(in_float64, budget))
            yield Line(
                "k-center, small batch: ours/plain",
                kind,
                *rows_ND.shape,
                budget,
                ours_s,
                plain_s,
                "full",
                ratio,
                identical=identical,
                goals=(at_most("ratio", ratio, 1.3), Goal("identical", is_same)),
            )


def _beside_loop(
    what: str,
    kind: str,
    rows_ND: np.ndarray,
    budget: int,
    timed: int,
    wanted: float | None = None,
) -> Line:
    """Measures ours and the loop; the loop is given ours' integers as float32, for the same cost,
    so that it picks by the same distances."""
    features = {"embeds": rows_ND}
    candidates, none = cut(features), none_labelled(features)
    picks, ours_s = _select(KCenter(), candidates, none, budget)
    codes_ND = codes_of(candidates, none, budget)
    first = int(picks.ids[0])
    plain, plain_s, how = whole(lambda: farthest(codes_ND, first), budget, timed)
    identical, is_same = agreement(picks.ids.tolist(), plain)
    evaluations = said(picks.note, "evaluations") / (len(rows_ND) * budget)
    rounds = said(picks.note, "rounds")
    ratio = plain_s / ours_s
    goals = [Goal("identical", is_same)]
    if wanted is not None:
        goals[:0] = [
            at_least("ratio", ratio, wanted),
            at_most("evals/NB", evaluations, 0.4),
            at_most("rounds", rounds, 40),
        ]
    mode = "q" if picks.note.startswith("mode q") else "f"
    return Line(
        f"{what}, mode {mode}",
        kind,
        *rows_ND.shape,
        budget,
        ours_s,
        plain_s,
        how,
        ratio,
        evaluations,
        rounds,
        identical,
        goals,
    )


def _in_floats(kind: str, rows_ND: np.ndarray, budget: int) -> Line:
    """Measures `precision: float` against the float64 loop, which it must equal."""
    features = {"embeds": rows_ND}
    candidates, none = cut(features), none_labelled(features)
    picks, ours_s = _select(KCenter(precision="float"), candidates, none, budget)
    first = int(picks.ids[0])
    _, plain_s, how = whole(lambda: farthest(rows_ND, first), budget, 100)
    in_float64 = farthest(rows_ND.astype(np.float64), first)
    identical, is_same = agreement(picks.ids.tolist(), itertools.islice(in_float64, _TEXTBOOK))
    return Line(
        "k-center, precision: float",
        kind,
        *rows_ND.shape,
        budget,
        ours_s,
        plain_s,
        how,
        plain_s / ours_s,
        said(picks.note, "evaluations") / (len(rows_ND) * budget),
        said(picks.note, "rounds"),
        identical,
        [Goal("identical", is_same)],
        "beside a float32 loop; identical to one in float64",
    )


def _cut_otherwise(kind: str, rows_ND: np.ndarray, budget: int) -> Iterator[Line]:
    features = {"embeds": rows_ND}
    none = none_labelled(features)
    by_first = np.argsort(rows_ND[:, 0], kind="stable")
    few = {"BLOCK_ROWS": 333, "BLOCK_CENTERS": 100, "_INNER": 64}
    expected: list[int] = []
    for what, num_slices, order, threads, patched in (
        ("1 slice: as the plain loop", 1, None, 1, {}),
        ("4 slices: as 1", 4, None, 1, {}),
        ("16 slices: as 1", 16, None, 1, {}),
        ("16 slices sorted by a coordinate", 16, by_first, 1, {}),
        ("4 slices, 2 threads", 4, None, 2, {}),
        ("4 slices, other blocks and pools", 4, None, 1, few),
    ):
        candidates = cut(features, num_slices, order=order)
        aimed = {"_AIM": 700} if patched else {}
        torch.set_num_threads(threads)
        with patch.dict(vars(nearest_center), patched), patch.dict(vars(lazy), aimed):
            picks, ours_s = _select(KCenter(), candidates, none, budget)
        torch.set_num_threads(1)
        if not expected:
            expected = picks.ids.tolist()
            codes_ND = codes_of(candidates, none, budget)
            plain = itertools.islice(farthest(codes_ND, expected[0]), 500)
            identical, is_same = agreement(expected, plain)
        else:
            identical, is_same = agreement(picks.ids.tolist(), expected)
        yield Line(
            what,
            kind,
            *rows_ND.shape,
            budget,
            ours_s,
            evaluations=said(picks.note, "evaluations") / (len(rows_ND) * budget),
            rounds=said(picks.note, "rounds"),
            identical=identical,
            goals=[Goal("identical", is_same)],
        )


def _fuzz(num_cases: int) -> Line:
    """Counts small cases with ties and wild norms that do not equal the textbook, in 1, 3 and 7
    slices of shuffled rows."""
    wrong, num_runs, num_codes, ours_s = 0, 0, 0, 0.0
    for case in range(num_cases):
        rng = np.random.default_rng([7, case])
        rows_ND = _hard_rows(case % 6, rng)
        num_known = int(rng.integers(1, 20)) if case % 2 else 0
        known_LD, rows_ND = rows_ND[:num_known], rows_ND[num_known:]
        budget = int(rng.integers(1, len(rows_ND) + 1))
        method = KCenter(precision=(None, "float", "integer")[case % 3])
        features = {"embeds": rows_ND}
        known = labelled({"embeds": known_LD}, len(rows_ND))
        expected: list[int] = []
        for num_slices in (1, 3, 7):
            order = rng.permutation(len(rows_ND))
            candidates = cut(features, num_slices, order=order)
            picks, seconds = _select(method, candidates, known, budget)
            found, num_runs, ours_s = picks.ids.tolist(), num_runs + 1, ours_s + seconds
            if not expected:
                first = None if num_known else found[0]
                in_codes = picks.note.startswith("mode q")
                num_codes += in_codes
                rows, others = rows_ND, known_LD
                if in_codes:
                    space = _space(candidates, known, budget, method.precision)
                    rows, others = space.encode(rows_ND), space.encode(known_LD)
                expected = list(itertools.islice(textbook(rows, others, first), budget))
            wrong += found != expected
    return Line(
        f"fuzz, {num_runs:,} runs: wrong",
        "hard",
        ours_s=ours_s,
        ratio=wrong,
        identical=f"{num_runs - wrong:,}",
        goals=[at_most("wrong", wrong, 0)],
        note=f"duplicates, lattices, wild norms, offsets; {num_codes} of {num_cases} in mode q",
    )


def _hard_rows(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Gives (N, D) float32 rows with many ties, or with norms that differ much."""
    num_rows, width = int(rng.integers(24, 500)), int(rng.integers(1, 20))
    normal_ND = rng.standard_normal((num_rows, width)).astype(np.float32)
    if kind == 0:  # each point many times
        return normal_ND[rng.integers(0, max(2, num_rows // 8), num_rows)]
    if kind == 1:  # a lattice: most distances are shared
        return rng.integers(0, 4, (num_rows, min(width, 3))).astype(np.float32)
    if kind == 2:  # norms over some powers of ten
        return normal_ND * np.exp(2.0 * rng.standard_normal((num_rows, 1))).astype(np.float32)
    if kind == 3:  # far from 0: float32 products would lose what is near
        return normal_ND + np.float32(10_000.0)
    if kind == 4:  # a lattice of steps that float32 rounds
        return np.float32(0.1) * rng.integers(-3, 4, (num_rows, width)).astype(np.float32)
    return np.repeat(normal_ND[:1], num_rows, axis=0) if rng.random() < 0.2 else normal_ND


def codes_of(
    candidates: ListedCandidates, known: ListedCandidates, budget: int, of: str = "embeds"
) -> np.ndarray:
    """Gives the float32 rows that ours measures: its integers in mode q, else the rows."""
    space = _space(candidates, known, budget, None)
    rows_ND = np.concatenate([part.feature(of) for part in candidates.slices])
    return space.encode(rows_ND).astype(np.float32) if hasattr(space, "encode") else rows_ND


def _space(
    candidates: ListedCandidates, known: ListedCandidates, budget: int, precision: Any
) -> Any:
    sample = sample_of(candidates, ("embeds",), 0)
    assert sample is not None
    return fit_space(("embeds",), (False,), candidates, known, sample, budget, precision)[0]


def _select(
    method: KCenter, candidates: ListedCandidates, known: ListedCandidates, budget: int
) -> tuple[Picks, float]:
    return cpu_seconds(lambda: method.select(candidates, known, budget, _KEYS))
