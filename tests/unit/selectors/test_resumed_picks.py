"""A driver that dies while it picks: begun again, it goes on with the same picks."""

import numpy as np
import pytest
from slices import Slices, cut, labelled, none_labelled

from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.coverage import Coverage
from rayal.selectors.gsx import GSx
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise

KEYS = Keys(2, 0)


class Dying(Slices):
    """Slices whose driver dies at the n-th question."""

    def __init__(self, parts, journal, last):
        super().__init__(parts)
        self.journal, self.left = journal, last

    def each(self, ask, step, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().each(ask, step, *args)


JOURNALLED = [
    (KCenter(precision="integer"), 90),
    (KCenter(precision="float"), 90),
    (KCenter(outliers=0.05, precision="integer"), 90),
    (KCenter(), 40),  # the plain way
    (KCenter(weighted=True), 40),
    (GSx(), 40),
    (Badge(), 90),
    (KMeansPP(), 90),
    (Coverage(num_references=100), 90),
    (LogDet(), 90),
    (Pairwise(num_neighbours=3), 90),
]


@pytest.mark.parametrize(("selector", "budget"), JOURNALLED, ids=repr)
@pytest.mark.parametrize("num_known", [0, 6])
def test_a_driver_that_died_goes_on_with_the_same_picks(
    selector, budget, num_known, tmp_path, small_pools, monkeypatch
):
    monkeypatch.setattr("rayal.selectors.plain.MOST_PICKS", 50)  # 90 picks go the lazy way
    rng = np.random.default_rng(4)
    probs = rng.dirichlet(np.full(3, 0.4), 220).astype(np.float32)
    x = rng.standard_normal((220, 5)).astype(np.float32)
    every = {"embeds": x, "probs": probs}
    known = {name: a[:num_known] for name, a in every.items()}

    def sides():
        rows = cut(np.arange(220), rng.random(220) * 0 + probs[:, 0], every, 3)
        held = labelled(np.arange(900, 900 + num_known), known)
        return rows, held if num_known else none_labelled(**every)

    rows, held = sides()
    steady = selector.select(rows, held, budget, KEYS)
    assert ("a small batch" in steady.note) == (budget == 40)
    asked = len(rows.steps)
    journal = Journal(tmp_path / "picks.jsonl")
    resumed = 0
    for last in np.linspace(1, asked - 1, 9).astype(int):
        rows, held = sides()
        with pytest.raises(KeyboardInterrupt):
            selector.select(Dying(rows.parts, journal, last), held, budget, KEYS)
        lines = journal.path.read_text().count("\n") if journal.path.exists() else 0
        resumed += lines > 1
        with journal.path.open("a") as file:
            file.write('{"picks": [[1, 0.5')  # a line that the kill cut short
        rows, held = sides()
        rows.journal = journal
        again = selector.select(rows, held, budget, KEYS)
        assert again.ids.tolist() == steady.ids.tolist()
        assert again.keys.tobytes() == steady.keys.tobytes()
        assert again.reasons == steady.reasons
        for name, values in steady.details.items():
            np.testing.assert_array_equal(again.details[name], values, err_msg=name)
        if last % 2:
            journal.path.unlink()
        else:  # another selection's journal is written over
            other = Journal(journal.path)
            assert other.begin("something else") == []
    assert resumed >= 3
