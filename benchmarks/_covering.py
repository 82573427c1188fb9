"""Lines 9 and 10 of the table: coverage and log-det by lazy greedy, beside a pass a pick."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _embeddings import embeddings
from _greedy import codes_of
from _plain import coverage, log_det, similarities
from _slices import cut, none_labelled
from _table import Goal, Line, agreement, at_least, cpu_seconds, said, whole

from rayal.keys import Keys
from rayal.selectors.coverage import Coverage
from rayal.selectors.log_det import LogDet
from rayal.selectors.space import sample_of

_KEYS = Keys(0, 0)
_REFERENCES = 2_000


def coverage_lines(quick: bool) -> Iterator[Line]:
    """Line 9: MaxHerding; the loop has its kernel matrix for nothing."""
    num_rows, budget, timed = (50_000, 500, 12) if quick else (100_000, 1_000, 40)
    method = Coverage(num_references=_REFERENCES)
    for kind in ("mixture", "sphere") if quick else ("mixture", "sphere", "low"):
        rows_ND = embeddings(kind, num_rows, 128)
        features = {"embeds": rows_ND}
        candidates, none = cut(features), none_labelled(features)
        picks, ours_s = cpu_seconds(lambda: method.select(candidates, none, budget, _KEYS))  # noqa: B023
        measured_ND = codes_of(candidates, none, budget)
        references_RD = measured_ND[_references(num_rows)]
        length_squared = _length_squared(references_RD)
        similar_NR = similarities(measured_ND, references_RD, length_squared)
        plain, plain_s, how = whole(lambda k=similar_NR: coverage(k), budget, timed)
        del similar_NR
        ratio = plain_s / ours_s
        identical, is_same = agreement(picks.ids.tolist(), plain)
        goals = [Goal("identical", is_same)]
        if not quick:
            goals.insert(0, at_least("ratio", ratio, 10.0))
        yield Line(
            f"coverage (rbf), R = {_REFERENCES:,}",
            kind,
            *rows_ND.shape,
            budget,
            ours_s,
            plain_s,
            how,
            ratio,
            said(picks.note, "evaluations") / _REFERENCES / (num_rows * budget),
            said(picks.note, "rounds"),
            identical,
            goals,
            f"{said(picks.note, 'evaluations') / _REFERENCES / num_rows:.1f} N kernel rows"
            + ("; measured small" if quick else ""),
        )


def log_det_lines(quick: bool) -> Iterator[Line]:
    """Line 10; `spread` is the sphere with norms from 0 to 1, as uncertainty weights make them."""
    num_rows, budget, timed = (100_000, 1_000, 40) if quick else (200_000, 2_000, 100)
    for kind in ("mixture", "spread"):
        rows_ND = embeddings("sphere" if kind == "spread" else kind, num_rows, 128)
        if kind == "spread":
            rows_ND *= np.sqrt(np.random.default_rng(5).random((num_rows, 1), np.float32))
        features = {"embeds": rows_ND}
        candidates, none = cut(features), none_labelled(features)
        picks, ours_s = cpu_seconds(lambda: LogDet().select(candidates, none, budget, _KEYS))  # noqa: B023
        sample = sample_of(candidates, ("embeds",), 0)
        assert sample is not None
        ridge = float(np.square(sample[0].astype(np.float64)).sum(axis=1).mean())
        ridge /= rows_ND.shape[1]
        plain, plain_s, how = whole(lambda x=rows_ND, r=ridge: log_det(x, r), budget, timed)
        ratio = plain_s / ours_s
        identical, is_same = agreement(picks.ids.tolist(), plain)
        goals = [Goal("identical", is_same)]
        if not quick:
            goals.insert(0, at_least("ratio", ratio, 6.0))
        yield Line(
            "log-det, float64",
            kind,
            *rows_ND.shape,
            budget,
            ours_s,
            plain_s,
            how,
            ratio,
            said(picks.note, "evaluations") / (num_rows * budget),
            said(picks.note, "rounds"),
            identical,
            goals,
            f"{said(picks.note, 'evaluations') / num_rows:.1f} N rows brought up to date"
            + ("; measured small" if quick else ""),
        )


def _references(num_rows: int) -> np.ndarray:
    """Gives the rows that stand for all, as drawn: those of the smallest draws."""
    draws_N = _KEYS.stream("coverage references").uniform(np.arange(num_rows))
    return np.argsort(draws_N)[:_REFERENCES]


def _length_squared(references_RD: np.ndarray) -> float:
    """Gives the 5 % quantile of squared distances above 0 among the first 1,024."""
    some_RD = references_RD[:1_024].astype(np.float64)
    norms_R = np.einsum("rd,rd->r", some_RD, some_RD)
    squared_RR = norms_R[:, None] + norms_R - 2.0 * (some_RD @ some_RD.T)
    above = np.sort(squared_RR[squared_RR > 0.0])
    return float(above[int(0.05 * len(above))])
