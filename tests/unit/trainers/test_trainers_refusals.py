"""What cannot be trained is one clear error."""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from snapshots import ABC, NUMBER, blobs, fit, linear, snapshot, vectors
from torch import nn
from torch.nn import functional

from rayal.errors import ConfigError, TrainingError
from rayal.keys import Keys
from rayal.models.model import Model
from rayal.models.transforms.vector import Vector
from rayal.trainers.group import Alone
from rayal.trainers.supervised import Supervised


def test_bad_snapshots_and_arguments_are_refused(tmp_path: Path) -> None:
    labels, trainer, out = blobs(6), Supervised(linear()), tmp_path / "c"
    with pytest.raises(TrainingError, match="the snapshot has no labels"):
        fit(trainer, labels.slice(0, 0), out)
    with pytest.raises(
        ConfigError, match=r"model\.kind is 'class', but the labels are of kind 'num"
    ):
        fit(trainer, labels, out, NUMBER)
    with pytest.raises(TrainingError, match=r"no column 'embedding' \(it has: sample_id, label\)"):
        fit(trainer, labels.drop_columns("embedding"), out)
    nan = vectors(labels).numpy()
    nan[2] = np.nan
    with pytest.raises(TrainingError, match=r"first sample_id 14\): .*; withdraw their labels"):
        fit(trainer, snapshot(nan, labels["label"].to_pylist()), out)
    for weights, message in (([1, -2, 1, 1, 1, 1], "sample_id 7 has weight -2.0"),
                             ([0] * 6, "all rows to train on have weight 0")):  # fmt: skip
        with pytest.raises(TrainingError, match=message):
            fit(trainer, labels.append_column("weight", pa.array(weights, pa.float64())), out)
    for wrong, message in (
        ({"epochs": 0}, "trainer.epochs is 0, expected 1 or more"),
        ({"validation_share": 1.0}, "a share from 0 to below 1"),
        ({"schedule": "cosine"}, "trainer.schedule is 'cosine'"),
        ({"learning_rate": -1}, "trainer.learning_rate is -1, expected a finite number, 0 or more"),
        ({"learning_rate": float("nan")}, "trainer.learning_rate is nan, expected a finite"),
        ({"weight_decay": -1.0}, r"trainer.weight_decay is -1\.0, expected a finite number"),
    ):
        with pytest.raises(ConfigError, match=message):
            Supervised(linear(), **wrong)
    assert not out.exists()


@pytest.mark.parametrize(
    ("module", "kind", "message"),
    [
        (functools.partial(nn.Linear, 2, 5), "class",
         r"gives 5 outputs a row, expected 3, one a class \('a', 'b', 'c'\); let its constructor"),
        (functools.partial(nn.Linear, 2, 2), "class", "gives 2 outputs a row, expected 3"),
        (functools.partial(nn.Linear, 2, 3), "number", "gives 3 outputs a row, expected 1"),
        (functools.partial(nn.Flatten, 0), "number",
         r"gave logits as Tensor \(12,\) for 6 rows, expected a \(6, 1\) tensor of logits"),
        (functools.partial(nn.Unflatten, 1, (2, 1)), "class", r"as Tensor \(6, 2, 1\) for 6 rows"),
        (nn.Flatten, "number", "Flatten has no parameter that can be trained"),
    ],
)  # fmt: skip
def test_a_module_of_another_width_is_refused(
    module: object, kind: str, message: str, tmp_path: Path
) -> None:
    labels, vocabulary = blobs(6), ABC
    if kind == "number":
        labels, vocabulary = snapshot(np.eye(6)[:, :2], list(range(6))), NUMBER
    if "no parameter" not in message:  # what is trained here is beside the point
        module = functools.partial(_with_parameter, module)
    with pytest.raises(ConfigError, match=message):
        fit(Supervised(Model(module, Vector(), kind)), labels, tmp_path / "c", vocabulary)


def _with_parameter(module: functools.partial[nn.Module]) -> nn.Module:
    made = module()
    made.register_parameter("spare", nn.Parameter(torch.zeros(1)))
    return made


def test_a_batch_norm_with_one_row_is_refused(tmp_path: Path) -> None:
    normed = Model(
        functools.partial(nn.Sequential, nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        Vector(),
    )
    for labels, rows_per_step in ((blobs(1), 256), (blobs(6), 1)):
        with pytest.raises(
            ConfigError, match=r"BatchNorm layer was given 1 row to train on, .*\(now 1 ranks\)"
        ):
            fit(Supervised(normed, rows_per_step=rows_per_step), labels, tmp_path / "c")
    fit(Supervised(normed, rows_per_step=2), blobs(6), tmp_path / "d")


def test_a_validation_loss_that_is_never_finite_is_refused(tmp_path: Path) -> None:
    losses = {"all": [], "some": []}

    def odd(which: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found = functional.cross_entropy(logits, targets, reduction="none")
        if torch.is_grad_enabled():
            return found
        losses[which].append(found.mean())
        return found * (torch.nan if which == "all" or len(losses[which]) == 1 else 1.0)

    options = {"learning_rate": 0.01, "validation_share": 0.3, "patience": 2, "min_steps": 0}
    trainer = Supervised(linear(), loss=functools.partial(odd, "all"), epochs=50, **options)
    with pytest.raises(
        TrainingError,
        match=r"validation loss of member 0 is nan in epoch 2, and not finite in any epoch before, "
        r"expected a finite number; lower trainer\.learning_rate \(now 0\.01\)",
    ):
        fit(trainer, blobs(), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    once = Supervised(linear(), loss=functools.partial(odd, "some"), epochs=4, **options)
    fit(once, blobs(), tmp_path / "d")
    assert len(losses["some"]) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    trainer = Supervised(linear(), use_gpu=True)  # the driver need not have one
    with pytest.raises(
        ConfigError, match=r"trainer\.use_gpu is true, but this process cannot compute on 'cuda' \("
    ):
        trainer.fit(blobs(), ABC, None, str(tmp_path / "c"), Keys(0, 0), Alone("cuda"))
