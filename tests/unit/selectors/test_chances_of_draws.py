"""The probabilities that badge and kmeans_pp log: each is D^2 / (sum of all D^2)."""

import dataclasses

import numpy as np
import pytest
from slices import cut, labelled, none_labelled
from test_lost_slices import Losing

from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors import d_squared
from rayal.selectors.badge import Badge
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.limits import Limits
from rayal.types import tags_of


def rows_of(kind, num_rows, seed=0, width=6):
    """Rows and probabilities: like images of digits, in clusters, or in tight ones."""
    rng = np.random.default_rng(seed)
    if kind == "digits":
        shapes = rng.random((10, 16)) * (rng.random((10, 16)) < 0.6)
        noise = rng.normal(0, 0.15, (num_rows, 16))
        rows = np.clip(shapes[rng.integers(0, 10, num_rows)] + noise, 0, 1)
    else:
        spread = {"clustered": 0.5, "tight": 0.01}[kind]
        centers = 6 * rng.normal(size=(30, width))
        rows = centers[rng.integers(0, 30, num_rows)] + rng.normal(0, spread, (num_rows, width))
    logits = 3 * rng.normal(size=(num_rows, 4))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return rows.astype(np.float32), probs.astype(np.float32)


def points_of(selector, rows, probs):
    """What distances are between, in full."""
    if isinstance(selector, KMeansPP):
        return rows.astype(float)
    errors = probs - np.eye(4)[probs.argmax(axis=1)]
    return (errors[:, :, None] * rows.astype(float)[:, None]).reshape(len(rows), -1)


def ratios(points, picks, is_open=None, num_known=0):
    """What is logged, over D^2 / (sum of D^2), for every drawn pick; the last rows are labelled."""
    norms = (points**2).sum(axis=1)
    near = np.full(len(points), np.inf)

    def learn(row):
        np.minimum(near, np.maximum(norms + norms[row] - 2 * points @ points[row], 0), out=near)

    for row in range(len(points) - num_known, len(points)):
        learn(row)
    found = []
    for rank, (row, chance) in enumerate(zip(picks.ids, picks.probabilities, strict=True)):
        left = near.copy()
        left[picks.ids[:rank]] = 0.0
        left[len(points) - num_known :] = 0.0
        if is_open is not None:
            left[~is_open(picks.ids[:rank])] = 0.0
        if rank or num_known:
            found.append(chance * left.sum() / left[row])
        learn(row)
    return np.array(found)


def sides(rows, probs, num_slices=3, num_known=0, **more):
    features = {"embeds": rows, "probs": probs, **more}
    n = len(rows) - num_known
    mine = {name: values[:n] for name, values in features.items()}
    known = {name: values[n:] for name, values in features.items()}
    return cut(np.arange(n), None, mine, num_slices), (
        labelled(np.arange(n, len(rows)), known) if num_known else none_labelled(**mine)
    )


SELECTORS = [Badge(), KMeansPP(precision="float"), KMeansPP()]


@pytest.mark.parametrize("selector", SELECTORS, ids=["badge", "kmeans_pp f", "kmeans_pp"])
@pytest.mark.parametrize("kind", ["digits", "clustered", "tight"])
@pytest.mark.parametrize("num_known", [0, 20])
@pytest.mark.parametrize("budget", [10, 50, 400])
def test_chances_are_shares_of_what_is_left(selector, kind, num_known, budget):
    rows, probs = rows_of(kind, 1800)
    points = points_of(selector, rows, probs)
    for seed in range(3):
        picks = selector.select(*sides(rows, probs, 3, num_known), budget, Keys(seed, 0))
        found = ratios(points, picks, num_known=num_known)
        known = ~np.isnan(found)
        assert known.mean() > 0.95
        np.testing.assert_allclose(found[known], 1.0, atol=0.05)


@pytest.mark.parametrize("selector", SELECTORS[:2], ids=["badge", "kmeans_pp f"])
@pytest.mark.parametrize("kind", ["digits", "clustered", "tight"])
@pytest.mark.parametrize("budget", [10, 50, 400])
def test_chances_of_a_sample_are_right_or_not_said(selector, kind, budget):
    rows, probs = rows_of(kind, 9000)
    points = points_of(selector, rows, probs)
    found = np.concatenate(
        [
            ratios(points, selector.select(*sides(rows, probs), budget, Keys(seed, 0)))
            for seed in range(4)
        ]
    )
    known = ~np.isnan(found)
    assert known.mean() > 0.85
    errors = np.abs(found[known] - 1.0)
    assert np.quantile(errors, 0.9) < 0.06
    assert errors.max() < 0.15


@pytest.mark.parametrize("num_rows", [1500, 6000])
def test_neither_slices_nor_a_lost_one_change_a_chance(num_rows):
    rows, probs = rows_of("clustered", num_rows)
    first = Badge().select(*sides(rows, probs, 1), 60, Keys(1, 0))
    for num_slices in (3, 11):
        again = Badge().select(*sides(rows, probs, num_slices), 60, Keys(1, 0))
        assert again.probabilities.tobytes() == first.probabilities.tobytes()
        assert again.reasons == first.reasons
    candidates, known = sides(rows, probs, 3)
    again = Badge().select(Losing(candidates.parts), known, 60, Keys(1, 0))
    assert again.probabilities.tobytes() == first.probabilities.tobytes()


@pytest.mark.parametrize("selector", SELECTORS, ids=["badge", "kmeans_pp f", "kmeans_pp"])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("every", [3, 0])
def test_lost_and_repeated_questions_change_none_of_many_batches(selector, limited, every):
    rows, probs = rows_of("tight", 400)
    group = {tags_of("group"): np.arange(400) % 4}
    limits = Limits(group="group", quota=35) if limited else None
    selector = dataclasses.replace(selector, limits=limits)
    candidates, known = sides(rows, probs, 3, 8, **group)
    first = selector.select(candidates, known, 120, Keys(1, 0))
    shaken = Losing(candidates.parts, every), Losing(known.parts, every)
    again = selector.select(*shaken, 120, Keys(1, 0))
    assert again.ids.tolist() == first.ids.tolist()
    assert again.reasons == first.reasons
    for name, values in first.details.items():
        np.testing.assert_array_equal(again.details[name], values, err_msg=name)


@pytest.mark.parametrize("selector", SELECTORS[1:], ids=["kmeans_pp f", "kmeans_pp"])
def test_a_driver_that_died_draws_the_same_rows(tmp_path, selector):
    """What a slice was asked since its last refresh leaves nothing behind."""
    rows, probs = rows_of("tight", 400)

    def select():
        candidates, known = sides(rows, probs, 3, 8)
        candidates.journal = Journal(tmp_path / "journal")
        return selector.select(candidates, known, 120, Keys(1, 0))

    first = select()
    lines = (tmp_path / "journal").read_text().splitlines()
    assert sum('"refresh"' in line for line in lines) > 2
    for number in range(2, len(lines), 2):
        (tmp_path / "journal").write_text("\n".join(lines[:number]) + "\n")
        again = select()
        assert again.ids.tolist() == first.ids.tolist()
        assert again.reasons == first.reasons
        for name, values in first.details.items():
            np.testing.assert_array_equal(again.details[name], values, err_msg=name)


@pytest.mark.parametrize("num_rows", [1500, 6000])
@pytest.mark.parametrize("limited", [False, True])
def test_a_driver_that_died_goes_on_with_the_same_chances(tmp_path, num_rows, limited):
    rows, probs = rows_of("tight", num_rows)
    group = {tags_of("group"): np.arange(num_rows) % 3}
    limits = Limits(group="group", quotas={0: 20, 1: 40}) if limited else None
    selector = KMeansPP(limits=limits)

    def select():
        candidates, known = sides(rows, probs, 3, **group)
        candidates.journal = Journal(tmp_path / "journal")
        return selector.select(candidates, known, 150, Keys(1, 0))

    first = select()
    lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 5
    for number in (2, len(lines) // 2, len(lines) - 1):
        (tmp_path / "journal").write_text("\n".join(lines[:number]) + "\n")
        again = select()
        assert again.ids.tolist() == first.ids.tolist()
        assert again.probabilities.tobytes() == first.probabilities.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("num_rows", [900, 5000])
def test_rows_that_limits_close_count_no_more(num_rows):
    rows, probs = rows_of("clustered", num_rows)
    group = np.arange(num_rows) % 3
    limits = Limits(group="group", quotas={0: 2, 1: 5})
    selector = KMeansPP(precision="float", limits=limits)

    def is_open(taken):
        given = np.bincount(group[taken], minlength=3)
        return given[group] < np.array([2, 5, 99])[group]

    found = []
    for seed in range(4):
        picks = selector.select(
            *sides(rows, probs, 3, **{tags_of("group"): group}), 40, Keys(seed, 0)
        )
        assert len(picks.ids) == 40
        found.append(ratios(rows.astype(float), picks, is_open))
    found = np.concatenate(found)
    known = ~np.isnan(found)
    assert known.mean() > (0.95 if num_rows < 4096 else 0.7)
    np.testing.assert_allclose(found[known], 1.0, atol=0.02 if num_rows < 4096 else 0.12)


def test_a_chance_that_is_not_known_is_left_out(monkeypatch):
    # A sample of 16 rows cannot tell what is left to within a tenth.
    monkeypatch.setattr(d_squared, "FOLLOWED", 100)
    monkeypatch.setattr(d_squared, "sample_size", lambda budget: 16)
    rows, probs = rows_of("tight", 500)
    picks = KMeansPP().select(*sides(rows, probs), 25, Keys(0, 0))
    unknown = np.isnan(picks.probabilities[1:])
    assert unknown.mean() > 0.8
    for reason, is_unknown in zip(picks.reasons[1:], unknown, strict=True):
        assert ("with chance" in reason) != is_unknown
        assert "by its squared distance" in reason
