"""What cannot work is refused by a rehearsal, before there is a checkpoint; it leaves no trace."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from rayal.errors import ConfigError, NeedsError, PoolError, RayalError
from rayal.keys import Keys
from rayal.models.checkpoint import describe, save
from rayal.models.model import Model
from rayal.models.modules import MLP
from rayal.models.transforms.vector import Vector
from rayal.predictors.torch_predictor import TorchPredictor
from rayal.types import Checkpoint, Vocabulary

ABC, NUMBER = Vocabulary("class", ("a", "b", "c")), Vocabulary("number")
VALUES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
ROWS = pa.record_batch({"sample_id": np.arange(6), **{f"x{at}": VALUES[:, at] for at in range(4)}})
COLUMNS = ("x0", "x1", "x2", "x3")
KEYS = Keys(5, 0)


class Failing(nn.Linear):
    """Has a bug in its forward."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__(num_inputs, num_outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs[:, 1:])


class Forgetful(MLP):
    """Has dropout and never calls it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(self.body(inputs))


class Normed(nn.Sequential):
    """Has running means, which a rehearsal must not need."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__(nn.BatchNorm1d(num_inputs), nn.Linear(num_inputs, num_outputs))


class Noisy(MLP):
    """Draws from torch's own generator."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(self.body(inputs + torch.rand(1)))


def predictor(module: Any = MLP, kind: Any = "class", **options: Any) -> TorchPredictor:
    columns = options.pop("columns", COLUMNS)
    return TorchPredictor(Model(module, Vector(column=columns), kind), device="cpu", **options)


def test_a_module_that_draws_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    predictor(Noisy).rehearse(ROWS, ("probs",), ABC, 1, KEYS)
    assert torch.equal(torch.get_rng_state(), state)


def mlp(dropout: float = 0.0) -> Any:
    return functools.partial(MLP, hidden=(8,), dropout=dropout)


def bare(width: int) -> Any:
    return functools.partial(nn.Linear, 4, width)


@pytest.mark.parametrize(
    ("made", "needs", "num_members"),
    [
        (lambda: predictor(mlp()), ("probs", "embeds"), 1),
        (lambda: predictor(mlp()), ("probs", "embeds", "draws"), 5),
        (lambda: predictor(mlp(0.5), num_draws=3), ("probs", "draws"), 1),
        (lambda: predictor(mlp(), dtype="bfloat16"), ("probs",), 1),
        (lambda: predictor(Normed), ("probs",), 1),
    ],
)
def test_a_rehearsal_of_what_works_leaves_no_trace(
    made: Any, needs: tuple[str, ...], num_members: int, tmp_path: Any
) -> None:
    model = made().model
    members = [
        model.build_member(ABC, 4, member, Keys(9, 9)).eval() for member in range(num_members)
    ]
    save(tmp_path / "c", describe(members, (torch.from_numpy(VALUES),), 6, ABC), members)

    def outputs(one: TorchPredictor) -> dict[str, torch.Tensor]:
        one.load(Checkpoint("", ""), str(tmp_path / "c"), Keys(9, 9))
        return dict(one.predict(torch.arange(6), one.encode(ROWS), needs).arrays)

    wanted, one = outputs(made()), made()
    state, copy_of_rows = torch.get_rng_state(), VALUES.copy()
    one.rehearse(ROWS, (*needs, "x0"), ABC, num_members, KEYS)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(VALUES, copy_of_rows)
    with pytest.raises(NeedsError, match="call load before predict"):
        one.predict(torch.arange(6), one.encode(ROWS), needs)
    found = outputs(one)
    assert found.keys() == wanted.keys() == set(needs)
    assert all(torch.equal(found[name], wanted[name]) for name in needs)
    one.rehearse(ROWS, needs, ABC, num_members, KEYS)  # beside a checkpoint that stays loaded
    again = one.predict(torch.arange(6), one.encode(ROWS), needs).arrays
    assert all(torch.equal(again[name], wanted[name]) for name in needs)


@pytest.mark.parametrize(
    ("made", "needs", "vocabulary", "num_members", "error", "message"),
    [
        (lambda: predictor(mlp(), "number"), ("probs",), NUMBER, 1, NeedsError,
         "'probs' .* it is a regression; ask for preds or draws"),
        (lambda: predictor(mlp()), ("preds",), ABC, 1, NeedsError, "'preds' .*kind is 'class'"),
        (lambda: predictor(mlp(0.5)), ("draws",), ABC, 1, NeedsError,
         r"'draws' .* one member and predictor\.num_draws is 0"),
        (lambda: predictor(bare(3)), ("embeds",), ABC, 1, NeedsError, "gives logits alone"),
        (lambda: predictor(mlp(), num_draws=2), ("probs",), ABC, 1, NeedsError,
         "MLP has no dropout layer"),
        (lambda: predictor(functools.partial(Forgetful, dropout=0.5), num_draws=2), ("draws",),
         ABC, 1, ConfigError, "forward of Forgetful calls none of its 1 dropout layers"),
        (lambda: predictor(mlp(0.5), num_draws=2), ("draws",), ABC, 5, ConfigError,
         "num_draws is 2, the ensemble has 5 members"),
        (lambda: predictor(bare(5)), ("probs",), ABC, 1, ConfigError,
         r"gives 5 outputs a row, expected 3, one a class \('a', 'b', 'c'\)"),
        (lambda: predictor(bare(2)), ("probs",), ABC, 1, ConfigError, "gives 2 outputs a row"),
        (lambda: predictor(bare(3), "number"), ("preds",), NUMBER, 1, ConfigError,
         "gives 3 outputs a row, expected 1, one a number to predict"),
        (lambda: predictor(functools.partial(nn.Flatten, 0), "number"), ("preds",), NUMBER, 1,
         ConfigError, r"gave logits as Tensor \(24,\) for 6 rows, expected a \(6, 1\) tensor"),
        (lambda: predictor(mlp(), "number"), ("probs",), ABC, 1, ConfigError,
         r"model\.kind is 'number', but the labels are of kind 'class'"),
        (lambda: predictor(mlp(), columns=("x9",)), ("probs",), ABC, 1, PoolError,
         "the pool has no column 'x9'"),
        (lambda: predictor(Failing), ("probs",), ABC, 1, ConfigError,
         r"model\.module does not run on 6 rows of the pool: RuntimeError: mat1 and mat2 .* "
         r"\(test_predictors_rehearse\.py:\d+\); correct it"),
        (lambda: predictor(functools.partial(nn.Linear, -3, 3)), ("probs",), ABC, 1, ConfigError,
         r"model\.module cannot be built for num_outputs=3 and num_inputs=4"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    made: Any,
    needs: tuple[str, ...],
    vocabulary: Vocabulary,
    num_members: int,
    error: type[RayalError],
    message: str,
) -> None:
    one, state = made(), torch.get_rng_state()
    with pytest.raises(error, match=message):
        one.rehearse(ROWS, needs, vocabulary, num_members, KEYS)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(NeedsError, match="call load before predict"):
        one.predict(torch.arange(6), one.encode(ROWS) if error is not PoolError else None, needs)


class Broken:
    """A transform with a bug."""

    columns = ("x0",)

    def __call__(self, rows: pa.RecordBatch) -> torch.Tensor:
        raise KeyError("x1")


def test_a_transform_that_fails_is_named_and_rows_that_cannot_be_decoded_are_not() -> None:
    broken = TorchPredictor(Model(mlp(), Broken()), device="cpu")
    with pytest.raises(
        ConfigError, match=r"model\.transform does not run on 6 rows of the pool: KeyError: 'x1' \("
    ):
        broken.rehearse(ROWS, ("probs",), ABC, 1, KEYS)
    values = VALUES.copy()
    values[:5] = np.nan
    some = pa.record_batch({f"x{at}": values[:, at] for at in range(4)})
    predictor(mlp()).rehearse(some, ("probs",), ABC, 1, KEYS)
    with pytest.raises(ConfigError, match="gives 5 outputs a row, expected 3"):
        predictor(bare(5)).rehearse(some, ("probs",), ABC, 1, KEYS)
    predictor(bare(5)).rehearse(some.slice(0, 5), ("probs",), ABC, 1, KEYS)  # nothing to go by
