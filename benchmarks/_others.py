"""Peers on the same arrays in the same run, and what rayal takes for the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from _peers import PeerCase, PeerLine, measure, standard_cases, why_not
from _slices import cut, labelled, none_labelled
from _table import Line, agreement, cpu_seconds

from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.typiclust import TypiClust
from rayal.types import Picks

_K_CENTER = ("textbook", "torch", "CoreSet", "greedy_coreset", "lightweight_coreset")
_LIMIT_S = 1_800.0


def peers(quick: bool) -> Iterator[Line]:
    """Gives a line a method of each peer: its seconds as plain, ours for the same beside it."""
    if why_not():
        yield Line(why_not())
        return
    ours: dict[tuple[int, str], tuple[Picks, float]] = {}
    textbook: dict[int, np.ndarray] = {}
    for found in measure(standard_cases(quick), _LIMIT_S):
        case = found.case
        method = _ours(case)
        place = id(case.rows), type(method).__name__
        if place not in ours:
            ours[place] = _measured(method, case)
        picks, ours_s = ours[place]
        if case.method == "textbook":
            textbook[id(case.rows)] = found.picks
        yield _line(found, picks, ours_s, textbook.get(id(case.rows)))


def _line(found: PeerLine, picks: Picks, ours_s: float, textbook: np.ndarray | None) -> Line:
    case = found.case
    same = ""
    if textbook is not None and case.method in _K_CENTER[:4] and len(found.picks):
        theirs, _ = agreement(found.picks.tolist(), textbook.tolist())
        same = theirs
    note = found.error or f"{found.peak_mib:,.0f} MiB"
    if case.method == "textbook":
        note += f"; ours to it, precision: float: {agreement(picks.ids.tolist(), textbook)[0]}"  # type: ignore[arg-type]
    version = f" {found.version}" if found.version else ""
    return Line(
        f"{case.peer}{version}: {case.method}",
        case.data,
        *case.rows.shape,
        case.budget,
        ours_s,
        found.cpu_s,
        "full",
        found.cpu_s / ours_s,
        identical=same,
        note=note,
    )


def _ours(case: PeerCase) -> Any:
    if case.method in _K_CENTER:
        return KCenter(precision="float")
    if case.method == "TypiClust":
        return TypiClust(feature="embeds", max_clusters=2 * case.budget)
    if case.method == "ProbCover":
        return Coverage(kernel="ball", length=case.delta)
    return Badge()


def _measured(method: Any, case: PeerCase) -> tuple[Picks, float]:
    features = {"embeds": case.rows}
    if case.probs is not None:
        features["probs"] = case.probs
    known = none_labelled(features)
    if case.labelled is not None:
        known = labelled({"embeds": case.labelled}, len(case.rows))
    candidates = cut(features)
    return cpu_seconds(lambda: method.select(candidates, known, case.budget, Keys(case.seed, 0)))
