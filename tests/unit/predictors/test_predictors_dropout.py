"""Every place of a module where dropout stands has fixed masks, and they are really used."""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from rayal.errors import ConfigError, NeedsError
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, model_id, save
from rayal.models.model import Model
from rayal.models.transforms.vector import Vector
from rayal.predictors.dropout_draws import FixedDropout, fix_dropout
from rayal.predictors.torch_predictor import TorchPredictor
from rayal.scorers.bald import Bald
from rayal.types import Checkpoint

KEYS = Keys(1, 0)
VALUES = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
IDS = torch.arange(6)
COLUMNS = tuple(f"x{at}" for at in range(8))
ROWS = pa.record_batch({name: VALUES[:, at] for at, name in enumerate(COLUMNS)})


class Tokens(nn.Module):
    """A transformer over rows of 2 tokens of 4 numbers."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 16, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.output = nn.Linear(8, num_outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(self.encoder(inputs.reshape(-1, 2, 4)).flatten(1))


class Unused(nn.Linear):
    """Has dropout and forgets it."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.dropout = nn.Dropout(0.5)


def loaded(folder: Path, module: object, num_draws: int) -> tuple[TorchPredictor, nn.Module]:
    model = Model(module, Vector(column=COLUMNS))
    member = model.build(3, 8).eval()
    described = Description("class", ("a", "b", "c"), 3, 8, 0, describe_architecture(member))
    save(folder / "c", described, [member])
    predictor = TorchPredictor(model, num_draws=num_draws, device="cpu")
    predictor.load(Checkpoint("", model_id(described, [member])), str(folder / "c"), KEYS)
    return predictor, member


def test_a_transformers_dropout_makes_draws_differ(tmp_path: Path) -> None:
    predictor, member = loaded(tmp_path, Tokens, 4)
    encoded = predictor.encode(ROWS)
    before = torch.backends.mha.get_fastpath_enabled()
    outputs = predictor.predict(IDS, encoded, ("draws", "probs"))
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert (outputs.draws.std(dim=1) > 1e-4).all()
    assert len(Bald().score(outputs, KEYS).unique()) == len(IDS)
    assert torch.equal(outputs.draws, predictor.predict(IDS, encoded, ("draws",)).draws)
    torch.testing.assert_close(
        outputs.probs, member(torch.from_numpy(VALUES)).softmax(1), atol=1e-5, rtol=1e-4
    )


def test_one_layer_in_two_places_has_masks_of_its_own_in_each() -> None:
    dropout = nn.Dropout(0.5)
    module = nn.Sequential(nn.Linear(8, 64), dropout, nn.Linear(64, 32), dropout)
    fixed = fix_dropout(module, KEYS)
    assert [one.layer for one in fixed] == ["1", "3"]
    assert [module[1], module[3]] == fixed
    for one in fixed:
        one.begin(0)
    module(torch.from_numpy(VALUES))
    for one, width in zip(fixed, (64, 32), strict=True):
        one.begin(0)
        uniforms = KEYS.stream(f"dropout/{one.layer}/0").uniform(np.arange(width))
        assert torch.equal(one(torch.ones(1, width))[0] > 0, torch.from_numpy(uniforms >= 0.5))


def test_a_block_that_stands_twice_is_fixed_once_and_draws_at_each_use() -> None:
    block = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
    module = nn.Sequential(block, block)
    (fixed,) = fix_dropout(module, KEYS)
    assert isinstance(block[1], FixedDropout)
    found = []
    for _ in range(2):
        fixed.begin(3)
        found.append(module(torch.ones(1, 256)))
    assert fixed.num_uses == 2
    assert torch.equal(found[0], found[1])
    assert 0.15 < (found[0] > 0).float().mean() < 0.35  # kept by both masks: a quarter, not a half
    fixed.begin(None)
    assert torch.equal(module(torch.ones(1, 9)), torch.ones(1, 9))


def test_dropout_that_no_forward_calls_is_refused(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, Unused, 2)
    encoded = predictor.encode(ROWS)
    assert predictor.predict(IDS, encoded, ("probs",)).probs.shape == (6, 3)
    with pytest.raises(
        ConfigError, match=r"forward of Unused calls none of its 1 dropout layers \(first 'dropout'"
    ):
        predictor.predict(IDS, encoded, ("draws",))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (functools.partial(nn.MultiheadAttention, 4, 2, dropout=0.3), "MultiheadAttention"),
        (functools.partial(nn.LSTM, 4, 4, 2, dropout=0.3), "LSTM"),
    ],
)
def test_dropout_that_is_no_layer_is_named(layer: object, name: str) -> None:
    module = nn.Sequential(layer())
    with pytest.raises(NeedsError, match=rf"above 0 \(that of '0', {name}, is no layer and draws"):
        fix_dropout(module, KEYS)
