import numpy as np
import pytest
from class_worlds import World
from slices import none_labelled

from rayal.errors import NeedsError, ScoringError
from rayal.selectors import lines as module
from rayal.selectors.lines import Lines


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("few", [0, 7, 4_096])
def test_rows_at_ranks_are_those_of_one_sorted_list(seed, ties, few, monkeypatch):
    monkeypatch.setattr(module, "_FEW", few)
    world = World(seed, ties=ties, multilabel=seed % 2 == 1)
    rng = np.random.default_rng(seed)
    for num_slices in (1, 3, 7, 400):
        lines = Lines(*world.sides(num_slices, seed), world.multilabel)
        left = np.arange(world.n)
        for k in range(lines.num_classes):
            said = lines.stand(k)
            ordered = world.line(k, left)
            margins = world.margins(k)
            assert lines.num_rows == len(left)
            assert lines.num_inside == (margins[left] > 0).sum()
            gone = world.line(k, np.setdiff1d(np.arange(world.n), left))
            assert (said.ids == world.ids[gone]).all()
            assert (said.positive == (margins[gone] > 0)).all()
            ranks = np.sort(rng.choice(len(left), rng.integers(1, 40), replace=False))
            found = lines.rows(ranks)
            assert (found.ids == world.ids[ordered[ranks]]).all()
            assert (found.margins == margins[ordered[ranks]]).all()
            assert (found.scores == world.scores[ordered[ranks]]).all()
            left = np.setdiff1d(left, ordered[ranks])


def test_a_line_of_many_rows_is_halved_in_few_questions():
    world = World(1, n=60_000)
    lines = Lines(*world.sides(7, 1), False)
    lines.stand(2)
    before = lines.step
    ordered = world.line(2, np.arange(world.n))
    ranks = np.array([0, 1, 17, 30_000, 59_999])
    assert (lines.rows(ranks).ids == world.ids[ordered[ranks]]).all()
    assert lines.step - before < 30
    lines.stand(1)
    some = np.array([3, 50_000])
    rest = world.line(1, np.setdiff1d(np.arange(world.n), ordered[ranks]))
    assert (lines.rows(some).ids == world.ids[rest[some]]).all()


@pytest.mark.parametrize("ties", [False, True])
def test_places_before_labelled_rows(ties):
    world = World(3, ties=ties)
    lines = Lines(*world.sides(5, 2), False)
    for k in range(4):
        lines.stand(k)
        known = lines.known(k)
        rows, positive = world.positive(k)
        ordered = world.line(k, rows)
        assert (known.ids == world.ids[ordered]).all()
        assert dict(zip(known.ids.tolist(), known.positive.tolist(), strict=True)) == dict(
            zip(world.ids[rows].tolist(), positive.tolist(), strict=True)
        )
        everyone = world.line(k, np.concatenate([np.arange(world.n), rows])).tolist()
        expected = [
            sum(row < world.n for row in everyone[: everyone.index(one)]) for one in ordered
        ]
        assert lines.before(known.margins, known.ids).tolist() == expected
    assert lines.rarest_first().tolist() == world.rarest_first()


def test_bad_probabilities_and_labels_are_named():
    world = World(4)
    world.probs[[50, 9], [1, 0]] = np.nan, np.inf
    first = min(world.ids[50], world.ids[9])
    with pytest.raises(ScoringError, match=rf"of 2 rows holds NaN .*first sample_id {first}\)"):
        Lines(*world.sides(4), False)
    world = World(4, num_classes=1)
    with pytest.raises(NeedsError, match=r"rows of shape \(1,\), expected one shape \(C,\)"):
        Lines(*world.sides(4), False)
    world = World(4)
    row = int(np.flatnonzero(~world.pending)[0])
    for odd, said in ((4, "4"), (-1, "-1"), (0.5, "0.5")):
        world.label[row] = odd
        found = rf"label of sample_id {world.ids[world.n + row]} is {said}, .* 4 classes"
        with pytest.raises(NeedsError, match=found):
            Lines(*world.sides(4), False).rarest_first()
    with pytest.raises(NeedsError, match=r"is of shape \(\), expected"):
        Lines(*World(4).sides(4), True).rarest_first()
    mine, _ = world.sides(2)
    _, known = World(4, num_classes=6).sides()
    with pytest.raises(NeedsError, match=r"shape \(4,\) and \(6,\)"):
        Lines(mine, known, False)


def test_without_rows_there_are_no_classes():
    none = none_labelled(probs=np.zeros((0, 3), np.float32))
    lines = Lines(none, none, False)
    assert lines.num_classes == 0
    assert len(lines.rarest_first()) == 0
