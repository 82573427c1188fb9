"""Features and arguments at the ends of what numbers hold: offsets, tiny rows, short lengths."""

import numpy as np
import pytest
import torch
from slices import cut, labelled, none_labelled

from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.selectors.codes import fit_codes, moved, plain_rows, reach
from rayal.selectors.coverage import Coverage, _references
from rayal.selectors.floats import fit_floats
from rayal.selectors.k_center import KCenter
from rayal.selectors.kernels import Kernel
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.space import normalised, sample_of
from rayal.types import Slice

KEYS = Keys(3, 1)
IDS = np.random.default_rng(1).permutation(1_024)


def sides(x, num_slices=3, scores=None):
    known = {"embeds": x[:5]}
    return cut(IDS, scores, {"embeds": x}, num_slices), labelled(np.arange(9_000, 9_005), known)


# --------------------------------------------------------------------- integers with an offset


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_codes_do_not_feel_an_offset(dtype):
    base = np.random.default_rng(0).integers(0, 100, (1_024, 16))

    def codes(x):
        candidates, held = sides(x)
        sample = sample_of(candidates, ("embeds",), 0)[0]
        found, _ = fit_codes("embeds", candidates, held, sample, 60, 3)
        return found.encode(x)

    wanted = codes(base)
    assert codes((base + 2 * 10**9).astype(dtype)).tolist() == wanted.tolist()
    assert (np.abs(wanted.astype(int)).max(axis=1) <= 127).all()


@pytest.mark.parametrize("selector", [KCenter(), Coverage(), KCenter(precision="float")], ids=repr)
def test_picks_do_not_feel_an_offset(selector):
    base = np.random.default_rng(0).integers(0, 100, (1_024, 16))
    wanted = selector.select(*sides(base), 60, KEYS).ids.tolist()
    for dtype in (np.int32, np.int64, np.float64):
        x = (base + 2 * 10**9).astype(dtype)
        assert selector.select(*sides(x), 60, KEYS).ids.tolist() == wanted


def test_float32_only_where_it_holds_each_value():
    for dtype in (np.float16, np.float32, np.int8, np.uint8, np.int16, np.uint16):
        assert moved(np.ones((2, 2), dtype), np.ones(2)).dtype == np.float32
        assert moved(np.ones((2, 2), dtype), np.ones(2), must_be_64=True).dtype == np.float64
    for dtype in (np.int32, np.uint32, np.int64, np.float64):
        assert moved(np.ones((2, 2), dtype), np.ones(2)).dtype == np.float64
        assert moved(np.ones((2, 2), dtype), None).dtype == np.float64


# -------------------------------------------------------------------------------- tiny numbers

SELECTORS = [
    Coverage(),
    Coverage(precision="float"),
    Coverage(kernel="ball"),
    Coverage(kernel="cosine"),
    KCenter(precision="float"),
    LogDet(),
    Pairwise(num_neighbours=4),
]


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
@pytest.mark.parametrize(
    ("dtype", "exponent"), [(np.float32, -80), (np.float32, -100), (np.float64, -500)]
)
def test_a_power_of_two_changes_no_pick(selector, dtype, exponent):
    x = np.random.default_rng(2).integers(-999, 1_000, (1_024, 4)).astype(dtype) / dtype(512)
    picks = selector.select(*sides(x), 60, KEYS)
    tiny = selector.select(*sides(x * dtype(2.0) ** exponent), 60, KEYS)
    assert len(tiny.ids) == 60
    assert tiny.ids.tolist() == picks.ids.tolist()


@pytest.mark.parametrize("selector", [Coverage(), KCenter(), LogDet()], ids=repr)
def test_rows_too_close_to_square_are_refused(selector):
    x = np.random.default_rng(2).standard_normal((1_024, 4)) * 1e-170
    with pytest.raises(
        ScoringError, match=r"expected distances above 1e-153.*multiply the feature"
    ):
        selector.select(*sides(x), 60, KEYS)


def test_equal_rows_are_no_error():
    x = np.full((1_024, 4), 1e-25, np.float32)
    for selector in (Coverage(), KCenter(), LogDet(), Coverage(kernel="cosine")):
        assert len(selector.select(*sides(x), 60, KEYS).ids) == 60


@pytest.mark.parametrize("low", [1e-25, 1e25])
def test_no_cut_of_the_rows_changes_their_extent(low):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5_000, 3)) * np.where(rng.random((5_000, 1)) < 0.5, low, 1.0)).astype(
        np.float32
    )
    x = x[np.argsort(np.abs(x).max(axis=1))]
    origin = x[0].astype(float)

    def extents(parts):
        return [
            reach(Slice(0, np.arange(len(part)), np.zeros(len(part)), {"embeds": part}), 1,
                  "embeds", origin, plain_rows)
            for part in parts
        ]  # fmt: skip

    whole = extents([x])[0]
    for size in (1, 7, 3_000):
        parts = extents([x[lo : lo + size] for lo in range(0, len(x), size)])
        assert max(one.norm for one in parts) == whole.norm
        assert max(one.coordinate for one in parts) == whole.coordinate
    wanted = np.linalg.norm(x.astype(np.float64) - origin, axis=1).max()
    assert whole.norm == pytest.approx(wanted, rel=1e-6)


def test_rows_of_any_norm_become_unit_rows():
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    for scale in (1e-300, 1e-160, 1.0, 1e160, 1e300):
        np.testing.assert_allclose(normalised(x * scale), [[0.6, 0.8], [0.0, 0.0]])
    assert not np.isfinite(normalised(np.array([[np.inf, 1.0]]))).all()
    assert not np.isfinite(normalised(np.array([[np.nan, 1.0]]))).all()


# ----------------------------------------------------------------- lengths, weights and ridges


@pytest.mark.parametrize("name", ["rbf", "ball"])
@pytest.mark.parametrize("length", [1e-320, 1e-200, 1e-25, 1.0, 1e25, 1e200, 1e308, np.inf])
@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_every_length_gives_similarities(name, length, unit):
    kernel = Kernel(name, length, unit)
    squared = np.array([0.0, 1e-40, 1.0, 2.0**24])
    for found in (kernel.of(squared.copy()), kernel.of32(torch.from_numpy(squared).float())):
        found = np.asarray(found)
        assert ((found >= 0.0) & (found <= 1.0)).all()
        assert found[0] == 1.0
        assert (np.diff(found) <= 0.0).all()


@pytest.mark.parametrize("kernel", ["rbf", "ball"])
@pytest.mark.parametrize("length", [1e-25, 1e-15, 1e25, 1e200])
@pytest.mark.parametrize("precision", [None, "float"])
def test_a_batch_is_full_at_every_length(kernel, length, precision):
    x = np.random.default_rng(2).standard_normal((1_024, 4)).astype(np.float32)
    selector = Coverage(kernel=kernel, length=length, precision=precision)
    assert len(selector.select(*sides(x), 60, KEYS).ids) == 60


@pytest.mark.parametrize("exponent", [-900, -200, 200, 1_000])
def test_only_ratios_of_weights_count(exponent):
    rng = np.random.default_rng(2)
    x, scores = rng.standard_normal((1_024, 4)), rng.random(1_024)
    selector = Coverage(weighted=True)
    picks = selector.select(*sides(x, scores=scores), 60, KEYS)
    again = selector.select(*sides(x, scores=np.ldexp(scores, exponent)), 60, KEYS)
    assert again.ids.tolist() == picks.ids.tolist()
    assert again.keys.tobytes() == picks.keys.tobytes()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("ridge", [1e-10, 1e-14, 1e-17])
def test_log_det_with_a_small_ridge_is_the_greedy_of_longer_mantissas(ridge, known):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((300, 10))
    held = rng.standard_normal((7, 10))
    candidates = cut(np.arange(300), None, {"embeds": x}, 3)
    theirs = {"embeds": held}
    labels = labelled(np.arange(900, 907), theirs) if known else none_labelled(**theirs)
    picks = LogDet(ridge=ridge).select(candidates, labels, 60, KEYS)
    rows, left = x.astype(np.longdouble), np.ones(300, bool)
    root = np.eye(10, dtype=np.longdouble) / np.sqrt(
        np.longdouble(ridge) * (x**2).sum(1).mean() / 10
    )

    def add(root, row):
        turned = root.T @ row
        volume = turned @ turned
        return root - np.outer(root @ turned, turned) / (1 + volume + np.sqrt(1 + volume))

    for row in held.astype(np.longdouble) if known else ():
        root = add(root, row)
    for row, key in zip(picks.ids.tolist(), picks.keys, strict=True):
        volumes = np.where(left, np.square(rows @ root).sum(axis=1), -1)
        assert volumes[row] >= volumes.max() * (1 - 1e-6)
        assert key == pytest.approx(float(np.log1p(volumes[row])), rel=1e-5)
        left[row] = False
        root = add(root, rows[row])


def test_a_ridge_that_rounding_swallows_is_refused():
    x = np.random.default_rng(5).standard_normal((1_024, 4))
    with pytest.raises(ScoringError, match=r"expected at least 1e-20.*take a larger ridge"):
        LogDet(ridge=1e-22).select(*sides(x), 60, KEYS)


# -------------------------------------------------------------------- the default length, notes


def length_of(picks):
    return float(picks.note.split(" of length ")[1].split(";")[0])


def by_group(num_rows=4_000):
    """Rows whose first 700 ids are close together."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_rows, 8)) * 5
    x[:700] = x[:700] * 0.01 + 3
    return x


@pytest.mark.parametrize("precision", ["integer", "float"])
def test_the_default_length_is_of_the_references_drawn_first(precision):
    x = by_group()
    candidates = cut(np.arange(len(x)), None, {"embeds": x}, 3)
    picks = Coverage(precision=precision).select(candidates, none_labelled(embeds=x), 2, KEYS)
    drawn = np.argsort(KEYS.stream("coverage references").uniform(np.arange(len(x))))[:1_024]
    squared = ((x[drawn][:, None] - x[drawn][None]) ** 2).sum(axis=2)
    wanted = np.sqrt(np.quantile(squared[squared > 1e-9], 0.05))
    assert length_of(picks) == pytest.approx(wanted, rel=0.05)
    sorted_by_id = ((x[:1_024, None] - x[None, :1_024]) ** 2).sum(axis=2)
    assert np.sqrt(np.quantile(sorted_by_id, 0.05)) < 0.2 * wanted


def test_which_references_were_drawn_first_depends_on_no_slicing():
    x = by_group(2_000)
    every = [cut(np.arange(2_000), None, {"embeds": x}, n) for n in (1, 5)]
    sample = sample_of(every[0], ("embeds",), 0)
    space = fit_floats(("embeds",), (False,), every[0], none_labelled(embeds=x), sample, 3)
    stream = KEYS.stream("coverage references")
    found = [_references(one, space, 1_500, stream) for one in every]
    assert found[0][2].tolist() == found[1][2].tolist()
    assert len(found[0][2]) == 1_024


def test_rounding_of_0_is_no_distance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1_024, 8))
    x[rng.random(1_024) < 0.6] = x[0]
    for offset in (0.0, 1e3):
        lengths = [
            length_of(Coverage(precision=p).select(*sides(x + offset), 2, KEYS))
            for p in ("integer", "float")
        ]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


def test_the_note_says_how_many_rows_outliers_leave():
    x = np.random.default_rng(2).standard_normal((1_024, 4))
    picks = KCenter(outliers=0.5).select(*sides(x), 800, KEYS)
    assert len(picks.ids) == 512
    assert "512 outlying rows left out, which leaves 512 to pick from" in picks.note
