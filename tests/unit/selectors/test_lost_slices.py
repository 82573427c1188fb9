import pickle

import numpy as np
import pytest
from slices import Slices, cut, labelled

from rayal.keys import Keys
from rayal.selectors import lazy
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.coverage import Coverage
from rayal.selectors.direct import Direct
from rayal.selectors.galaxy import Galaxy
from rayal.selectors.gsx import GSx
from rayal.selectors.gsy import GSy
from rayal.selectors.igs import IGS
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.lcmd import LCMD
from rayal.selectors.limits import Limits
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.top_k import TopK
from rayal.selectors.typiclust import TypiClust
from rayal.types import Slice, tags_of

EVERY = [
    TopK(), KCenter(), Badge(), ClusterMargin(), KMeans(), GSx(), GSy(), IGS(), LCMD(),
    Direct(), Direct(0.5), Galaxy(), TypiClust(), TypiClust(max_clusters=2, max_reference=20),
    KMeansPP(),
    KMeansPP(precision="float"),
    KCenter(precision="integer"),
    Coverage(num_references=20),
    LogDet(),
    Pairwise(num_neighbours=4),
]  # fmt: skip


class Losing(Slices):
    """Slices whose workers die: every third question (or none) finds an empty cache, and is asked
    again from the start. Questions travel pickled, and each is asked twice (an answer was lost)."""

    def __init__(self, parts, every=3):
        super().__init__(parts)
        self.journal, self.every = [], every

    def each(self, ask, step, *args):
        self.journal.append(pickle.dumps((ask, step, args)))
        answers = []
        for key, part in enumerate(self.parts):
            if self.every and (step + key) % self.every == 0:
                part = Slice(part.key, part.ids, part.scores, part.features)
                self.parts[key] = part
                for question in self.journal[:-1]:
                    again, then, what = pickle.loads(question)
                    again(part, then, *what)
            again, then, what = pickle.loads(self.journal[-1])
            again(part, then, *what)
            answers.append(again(part, then, *what))
        return answers


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("num_known", [0, 8])
@pytest.mark.parametrize("farthest", [1.0, 1e6])
@pytest.mark.parametrize("every", [3, 0])
def test_lost_and_repeated_questions_change_nothing(selector, num_known, farthest, every):
    rng = np.random.default_rng(num_known)
    features = {
        "embeds": rng.standard_normal((100, 4)).astype(np.float32),
        "probs": rng.dirichlet(np.ones(3), 100).astype(np.float32),
        "preds": rng.standard_normal((100, 1)).astype(np.float32),
    }
    features["embeds"][40] *= farthest
    known = {name: rows[:num_known] for name, rows in features.items()}
    rows = cut(np.arange(100), rng.random(100), features, 4)
    before = labelled(np.arange(200, 200 + num_known), known, np.ones(num_known))
    check_that_losses_change_nothing(selector, rows, before, 15, every)


FEW = Limits(group="group", quota=12, near=0.97)
LAZY = [
    KCenter(precision="float"), KCenter(precision="integer"), KCenter(outliers=0.1),
    KCenter(weighted=True, limits=FEW), Coverage(num_references=50), LogDet(), KMeansPP(),
    Pairwise(num_neighbours=4, beta=0.3), Pairwise(num_neighbours=4, limits=FEW),
]  # fmt: skip


@pytest.mark.parametrize("selector", LAZY, ids=repr)
@pytest.mark.parametrize("num_known", [0, 8])
@pytest.mark.parametrize("every", [3, 0])
def test_lost_and_repeated_questions_change_nothing_in_lazy_greedy(
    selector, num_known, every, monkeypatch
):
    for name, value in (("_FEWEST", 3), ("_MOST", 17), ("_AIM", 9)):
        monkeypatch.setattr(lazy, name, value)  # many rounds
    rng = np.random.default_rng(num_known)
    embeds = rng.standard_normal((150, 4)).astype(np.float32)
    features = {"embeds": embeds, tags_of("group"): rng.integers(0, 9, 150)}
    rows = cut(np.arange(150), rng.random(150), features, 4)
    known = {name: values[:num_known] for name, values in features.items()}
    before = labelled(np.arange(200, 200 + num_known), known, np.ones(num_known))
    check_that_losses_change_nothing(selector, rows, before, 60, every)


def check_that_losses_change_nothing(selector, rows, before, budget, every):
    steady = selector.select(rows, before, budget, Keys(2, 1))
    sides = Losing(rows.parts, every), Losing(before.parts, every)
    shaken = selector.select(*sides, budget, Keys(2, 1))
    assert (shaken.ids == steady.ids).all()
    assert shaken.keys.tobytes() == steady.keys.tobytes()
    assert shaken.reasons == steady.reasons
    np.testing.assert_array_equal(shaken.probabilities, steady.probabilities)
    for name, values in steady.details.items():
        np.testing.assert_array_equal(shaken.details[name], values, err_msg=name)
