"""A worker against the plain computation, and what it says when something is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from rayal.engine.local import finish_pass
from rayal.engine.scoring import PassState, Scoring
from rayal.engine.survivors import ListedCandidates, Taken, write_taken
from rayal.engine.worker import Worker
from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.types import Checkpoint, Outputs


class Doubling:
    """A predictor whose embeds are twice the pool's vectors; it remembers the sizes it saw."""

    batch_rows = 64
    num_threads = 1

    def __init__(self, rejected: tuple[int, ...] = ()) -> None:
        self.rejected = rejected
        self.sizes: list[int] = []

    def columns(self) -> tuple[str, ...]:
        return ("embedding",)

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        self.loaded = checkpoint.model_id

    def encode(self, rows: Any) -> torch.Tensor:
        from rayal.columns import vectors

        return torch.from_numpy(vectors(rows, "embedding").copy())

    def predict(self, ids: torch.Tensor, encoded: torch.Tensor, needs: Any) -> Outputs:
        self.sizes.append(len(encoded))
        rejected = torch.isin(ids, torch.tensor(self.rejected)) if self.rejected else None
        return Outputs(ids, {"embeds": 2 * encoded}, rejected)


@dataclass(frozen=True)
class First:
    """The first feature, in steps, so that there are ties."""

    needs = ("embeds",)
    bad_id: int = -1

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        scores = torch.round(outputs.embeds[:, 0].double())
        return torch.where(outputs.ids == self.bad_id, torch.nan, scores)


def _scoring(tmp_path, keep, scorer=None, features=("embeds",), taken=()):
    ids = np.array(sorted(taken), np.int64)
    pending = np.arange(len(ids)) % 2 == 1
    path = tmp_path / "taken.arrow"
    write_taken(path, Taken(ids, np.where(pending, np.nan, 1.0), pending))
    folder = tmp_path / "pass"
    folder.mkdir(exist_ok=True)
    checkpoint = Checkpoint("c", "m")
    return Scoring(
        Keys(0, 1), scorer or First(), features, keep, checkpoint, "", str(path), str(folder), "p"
    )


def _pass(worker, scoring, shards):
    state = PassState(scoring.keep)
    for shard in shards:
        state.record(worker.score(shard, scoring, state.cut()))
    return finish_pass(state, scoring, lambda specs: ListedCandidates([s.load() for s in specs]))


def _everything(pool):
    from rayal.columns import vectors

    ids, embeds = [], []
    for shard in pool.shards:
        for rows in pool.batches(shard, ("sample_id", "embedding"), 1000):
            ids.append(rows.column("sample_id").to_numpy().copy())
            embeds.append(2 * vectors(rows, "embedding"))
    return np.concatenate(ids), np.concatenate(embeds)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_pass_keeps_the_exact_top_with_features(tmp_path, class_pool, backwards):
    ids, embeds = _everything(class_pool)
    taken = ids[[3, 50, 400, 700]]
    fresh = ~np.isin(ids, taken)
    scores = np.round(embeds[:, 0].astype(np.float64))
    order = np.lexsort((ids[fresh], -scores[fresh]))[:90]
    expected = {int(i): embeds[np.flatnonzero(ids == i)[0]] for i in ids[fresh][order]}

    scoring = _scoring(tmp_path, 90, taken=taken)
    worker = Worker(class_pool, Doubling())
    shards = class_pool.shards[::-1] if backwards else class_pool.shards
    done = _pass(worker, scoring, shards)

    assert done.candidates.num_rows == 90
    for one in done.candidates.slices:
        for sample_id, embed in zip(one.ids, one.feature("embeds"), strict=True):
            np.testing.assert_array_equal(embed, expected.pop(int(sample_id)))
    assert not expected
    labelled = done.labelled.slices
    assert sorted(np.concatenate([one.ids for one in labelled]).tolist()) == sorted(taken.tolist())
    assert np.concatenate([one.feature("pending") for one in labelled]).sum() == 2
    assert done.tallies.num_rows == class_pool.num_rows
    assert done.tallies.num_scored == class_pool.num_rows - 4
    assert set(worker.predictor.sizes) == {64}  # the last batch of a shard is padded


def test_without_a_threshold_all_rows_stay(tmp_path, class_pool):
    done = _pass(Worker(class_pool, Doubling()), _scoring(tmp_path, None), class_pool.shards)
    assert done.candidates.num_rows == class_pool.num_rows


def test_a_shard_that_is_done_is_not_read_again(tmp_path, class_pool):
    scoring = _scoring(tmp_path, 20)
    first = Worker(class_pool, Doubling()).score(class_pool.shards[0], scoring, None)
    again = Worker(class_pool, Doubling())
    second = again.score(class_pool.shards[0], scoring, None)
    assert again.predictor.sizes == []
    assert replace(second, sketch=None) == replace(first, sketch=None)


def test_rows_that_cannot_be_decoded_are_counted_and_left_out(tmp_path, class_pool):
    ids, _ = _everything(class_pool)
    worker = Worker(class_pool, Doubling(rejected=(int(ids[5]), int(ids[6]))))
    done = _pass(worker, _scoring(tmp_path, None), class_pool.shards)
    assert done.tallies.rejected == (ids[5], ids[6])
    assert done.tallies.num_rejected == 2
    assert done.candidates.num_rows == class_pool.num_rows - 2


def test_a_score_that_is_not_finite_names_shard_scorer_and_row(tmp_path, class_pool):
    ids, _ = _everything(class_pool)
    scoring = _scoring(tmp_path, 20, First(bad_id=int(ids[7])))
    with pytest.raises(
        ScoringError, match=rf"shard 0: First gave 1 non-finite scores .*{ids[7]}\)"
    ):
        Worker(class_pool, Doubling()).score(class_pool.shards[0], scoring, None)
    assert not list((tmp_path / "pass").iterdir())  # nothing half-written


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda scores_N: scores_N[:, None], r"Tensor of shape \({n}, 1\)"),
        (lambda scores_N: scores_N[1:], r"Tensor of shape \({less},\)"),
        (lambda scores_N: scores_N.mean(), r"Tensor of shape \(\)"),
        (lambda scores_N: scores_N.numpy(), r"ndarray of shape \({n},\)"),
        (lambda scores_N: None, "NoneType"),
    ],
)
def test_a_scorer_owes_one_number_a_row(tmp_path, class_pool, answer, found):
    class Odd(First):
        def score(self, outputs, keys):
            return answer(super().score(outputs, keys))

    n = class_pool.shards[0].num_rows  # three batches, joined as they are small
    found = found.format(n=n, less=n - 1)
    with pytest.raises(ScoringError, match=rf"^Odd gave {found} for {n} rows .* shape \({n},\); "):
        Worker(class_pool, Doubling()).score(
            class_pool.shards[0], _scoring(tmp_path, 20, Odd()), None
        )
    assert not list((tmp_path / "pass").iterdir())


def test_a_taken_row_may_have_a_score_that_is_not_finite(tmp_path, class_pool):
    ids, _ = _everything(class_pool)
    odd = int(ids[class_pool.shards[0].num_rows + 3])  # in the second shard: there is a cut by then
    scoring = _scoring(tmp_path, 20, First(bad_id=odd), taken=(odd,))
    done = _pass(Worker(class_pool, Doubling()), scoring, class_pool.shards)
    assert [one.ids.tolist() for one in done.labelled.slices] == [[odd]]


def test_a_pool_whose_shards_have_a_gap_is_scored_whole(tmp_path, class_pool):
    shards = class_pool.shards[1:4:2]  # all rows of the others went to the test split
    done = _pass(Worker(class_pool, Doubling()), _scoring(tmp_path, 50), shards)
    assert done.candidates.num_rows == 50
    lowest, highest = shards[0].min_id, shards[1].max_id
    assert all(
        lowest <= one.ids.min() <= one.ids.max() <= highest for one in done.candidates.slices
    )


def test_no_memory_names_the_batch_and_changes_nothing(tmp_path, class_pool):
    class Hungry(Doubling):
        def predict(self, ids, encoded, needs):
            raise MemoryError

    with pytest.raises(ScoringError, match=r"shard 0: no memory left with predictor.batch_rows=64"):
        Worker(class_pool, Hungry()).score(class_pool.shards[0], _scoring(tmp_path, 20), None)


def test_an_error_in_the_reader_thread_reaches_the_caller(tmp_path, class_pool):
    class Broken(Doubling):
        def encode(self, rows):
            raise ScoringError("this row is odd")

    with pytest.raises(ScoringError, match="this row is odd"):
        Worker(class_pool, Broken()).score(class_pool.shards[0], _scoring(tmp_path, 20), None)


def test_outputs_without_a_model_are_refused(tmp_path, class_pool):
    scoring = replace(_scoring(tmp_path, 20), checkpoint=None)
    with pytest.raises(ScoringError, match="embeds need a model and there is none yet"):
        Worker(class_pool, Doubling()).score(class_pool.shards[0], scoring, None)
