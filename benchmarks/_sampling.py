"""Lines 6 to 8 of the table: D^2 sampling by rejection, beside one or two products a pick."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from _embeddings import embeddings, softmax_head
from _plain import d_squared, errors_of, factorised, materialised, rows_apart
from _slices import cut, none_labelled
from _table import Goal, Line, agreement, at_least, cpu_seconds, said, whole
from scipy.stats import ks_2samp

from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.types import Picks

_LAW_PICKS = 40


def badge_factors(quick: bool) -> Iterator[Line]:
    """Line 6: gradients that are made, and that are not; both are plain loops."""
    num_rows, num_classes, width, budget = 20_000, 100, 128, 1_000
    timed = 20 if quick else 200
    for conf in (6.0,) if quick else (2.0, 6.0):
        probs_NC, embeds_ND = softmax_head(num_rows, num_classes, width, conf)
        errors_NC = errors_of(probs_NC)
        few = factorised(errors_NC, embeds_ND)
        first = int(few.norms_N.argmax())
        factored, factored_s, _ = whole(
            lambda e=errors_NC, h=embeds_ND, f=first: d_squared(factorised(e, h).to_row, f, 0),
            budget,
            budget,
        )
        made, made_s, how = whole(
            lambda e=errors_NC, h=embeds_ND, f=first: d_squared(materialised(e, h).to_row, f, 0),
            budget,
            timed,
        )
        many_bytes = num_rows * num_classes * width * errors_NC.itemsize
        identical, is_same = agreement(factored, made)
        ratio, lighter = made_s / factored_s, many_bytes / few.num_bytes
        yield Line(
            "BADGE, factorised/materialised",
            f"conf {conf:g}",
            num_rows,
            width,
            budget,
            factored_s,
            made_s,
            how,
            ratio,
            identical=identical,
            goals=[
                at_least("ratio", ratio, 30.0),
                at_least("memory", lighter, 40.0),
                Goal("same picks", is_same),
            ],
            note=f"{lighter:.0f} times the memory: {many_bytes / 1e9:.2f} GB",
        )
        picks, ours_s = _badge(probs_NC, embeds_ND, budget)
        yield Line(
            "  ours beside the factorised loop",
            f"conf {conf:g}",
            num_rows,
            width,
            budget,
            ours_s,
            factored_s,
            "full",
            factored_s / ours_s,
            said(picks.note, "evaluations") / (num_rows * budget),
            note=_accepted(picks),
        )


def badge(quick: bool) -> Iterator[Line]:
    """Line 7: rejection, and its law."""
    num_rows, num_classes, width, budget = 200_000, 100, 256, 5_000
    for conf in (2.0, 6.0):
        probs_NC, embeds_ND = softmax_head(num_rows, num_classes, width, conf)
        picks, ours_s = _badge(probs_NC, embeds_ND, budget)
        errors_NC = errors_of(probs_NC)
        _, plain_s, how = whole(
            lambda e=errors_NC, h=embeds_ND, f=int(picks.ids[0]): d_squared(
                factorised(e, h).to_row, f, 0
            ),
            budget,
            40 if quick else 100,
        )
        ratio = plain_s / ours_s
        yield Line(
            "BADGE, rejection",
            f"conf {conf:g}",
            num_rows,
            width,
            budget,
            ours_s,
            plain_s,
            how,
            ratio,
            said(picks.note, "evaluations") / (num_rows * budget),
            goals=[at_least("ratio", ratio, 40.0)],
            note=_accepted(picks),
        )
    yield _law(200 if quick else 2_000)


def d_squared_rows(quick: bool) -> Iterator[Line]:
    """Line 8: k-means++ on embeddings."""
    num_rows, budget = 200_000, 5_000
    ratios = []
    for kind in ("sphere", "mixture", "low", "tight"):
        rows_ND = embeddings(kind, num_rows, 128)
        features = {"embeds": rows_ND}
        candidates, none = cut(features), none_labelled(features)
        picks, ours_s = cpu_seconds(
            lambda c=candidates, n=none: KMeansPP().select(c, n, budget, Keys(0, 0))
        )
        _, plain_s, how = whole(
            lambda r=rows_ND: d_squared(rows_apart(r), 0, 0), budget, 40 if quick else 100
        )
        ratios.append(plain_s / ours_s)
        yield Line(
            "k-means++, rejection",
            kind,
            *rows_ND.shape,
            budget,
            ours_s,
            plain_s,
            how,
            ratios[-1],
            said(picks.note, "evaluations") / (num_rows * budget),
            goals=[at_least("worst", ratios[-1], 12.0)],
            note=_accepted(picks),
        )


def _badge(probs_NC: np.ndarray, embeds_ND: np.ndarray, budget: int) -> tuple[Picks, float]:
    features = {"probs": probs_NC, "embeds": embeds_ND}
    candidates, none = cut(features), none_labelled(features)
    return cpu_seconds(lambda: Badge().select(candidates, none, budget, Keys(0, 0)))


def _accepted(picks: Picks) -> str:
    proposals = said(picks.note, "proposals")
    refreshes = said(picks.note, "refreshes")
    return f"{(len(picks.ids) - 1) / proposals:.2f} of proposals accepted, {refreshes} refreshes"


def _law(num_seeds: int) -> Line:
    """Holds the potential after some picks, ours over many seeds, to that of the plain loop."""
    probs_NC, embeds_ND = softmax_head(400, 8, 16, conf=2.0)
    features = {"probs": probs_NC, "embeds": embeds_ND}
    candidates, none = cut(features, 3), none_labelled(features)
    gradients = factorised(errors_of(probs_NC).astype(np.float64), embeds_ND.astype(np.float64))
    first = int(gradients.norms_N.argmax())
    apart_NN = np.maximum([gradients.to_row(at) for at in range(len(probs_NC))], 0.0)

    def ours(seed: int) -> float:
        picks = Badge().select(candidates, none, _LAW_PICKS, Keys(seed, 0))
        return float(apart_NN[picks.ids].min(axis=0).sum())

    def plain(seed: int) -> float:
        picks = itertools.islice(d_squared(lambda at: apart_NN[at].copy(), first, seed), _LAW_PICKS)
        return float(apart_NN[list(picks)].min(axis=0).sum())

    found, ours_s = cpu_seconds(lambda: [ours(seed) for seed in range(num_seeds)])
    expected = [plain(seed) for seed in range(num_seeds)]
    chance = float(ks_2samp(found, expected).pvalue)
    return Line(
        f"BADGE, law over {num_seeds:,} seeds: KS p",
        "conf 2",
        len(probs_NC),
        embeds_ND.shape[1],
        _LAW_PICKS,
        ours_s,
        ratio=chance,
        goals=[Goal("KS p > .001", chance > 1e-3)],
        note=f"mean potential {np.mean(found):.5g} by rejection, {np.mean(expected):.5g} plain",
    )
