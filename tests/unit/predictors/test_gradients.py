import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predictors_torch import IDS, INPUTS, OUTPUTS, VALUES, WIDTH, loaded, rows
from torch import nn

from rayal.errors import ConfigError, NeedsError
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, save
from rayal.models.model import Model
from rayal.models.transforms.vector import Vector
from rayal.predictors.gradients import GradientSketch
from rayal.predictors.torch_predictor import Encoded, TorchPredictor
from rayal.types import Checkpoint

KEYS = Keys(3, 1)


def sketch_of(module, inputs, width=16, keys=KEYS):
    sketch = GradientSketch(module, width, keys)
    return sketch.of(lambda: module(inputs), len(inputs)), sketch


def per_row(module, inputs):
    """Gives the gradients of each row's own output, (N, ...) a parameter, by plain autograd."""
    parameters = {name: one for name, one in module.named_parameters() if one.requires_grad}
    found = {name: [] for name in parameters}
    for row in inputs:
        total = module(row[None]).sum()
        grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for (name, parameter), grad in zip(parameters.items(), grads, strict=True):
            found[name].append(torch.zeros_like(parameter) if grad is None else grad)
    return {name: torch.stack(grads) for name, grads in found.items()}


def explicit(module, inputs, sketch):
    """Gives the sketch from whole gradients: sum over all weights of sign x sign x gradient."""
    grads = per_row(module, inputs)
    total = torch.zeros(len(inputs), sketch.width)
    for name, layer in sketch.layers.items():
        if (name, "inputs") not in sketch._signs:
            assert name in ("idle", "layer.self_attn.out_proj")  # never called as a layer
            continue
        into = sketch._signs[name, "inputs"]
        out_of = sketch._signs[name, "outputs"]
        weights = grads[f"{name}.weight"]  # (N, out, in)
        total += torch.einsum("noi,op,ip->np", weights, out_of, into[:-1])
        if layer.bias is not None and layer.bias.requires_grad:
            total += grads[f"{name}.bias"] @ (out_of * into[-1])
    return total / sketch.width**0.5


def plain(dropout=0.0, **options):
    torch.manual_seed(0)
    body = [nn.Linear(WIDTH, 7), nn.ReLU(**options), nn.Dropout(dropout), nn.Linear(7, 6)]
    return nn.Sequential(*body, nn.Tanh(), nn.Linear(6, 1)).eval()


class Places(nn.Module):
    """Reads rows as (N, places, 1); one layer is used twice, one has no bias, one never called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(1, 5)
        self.twice = nn.Linear(5, 5, bias=False)
        self.idle = nn.Linear(2, 2)
        self.output = nn.Linear(5, 1)

    def forward(self, inputs):
        hidden = self.first(input=inputs[..., None]).tanh()
        return self.output(self.twice(self.twice(hidden).relu()).mean(dim=1))


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.read = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.output = nn.Linear(8, 1)

    def forward(self, inputs):
        return self.output(self.layer(self.read(inputs[..., None])).mean(dim=1))


def frozen():
    module = plain()
    module[0].requires_grad_(False)
    module[3].bias.requires_grad_(False)
    return module


MODULES = {
    "plain": plain,
    "in place": functools.partial(plain, inplace=True),
    "dropout": functools.partial(plain, dropout=0.5),
    "places": Places,
    "attention": Attentive,
    "frozen": frozen,
}


@pytest.mark.parametrize("name", MODULES)
def test_the_sketch_is_that_of_explicit_gradients(name):
    module = MODULES[name]().eval()
    found, sketch = sketch_of(module, INPUTS)
    assert found.shape == (len(INPUTS), 16)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, explicit(module, INPUTS, sketch), rtol=1e-4, atol=1e-5)
    assert found.abs().max() > 0.0


def test_it_is_that_of_torch_func():
    module = plain()
    found, sketch = sketch_of(module, INPUTS)
    parameters = dict(module.named_parameters())

    def of_row(parameters, row):
        return torch.func.functional_call(module, parameters, (row[None],)).sum()

    grads = torch.func.vmap(torch.func.grad(of_row), in_dims=(None, 0))(parameters, INPUTS)
    total = torch.zeros_like(found)
    for name in sketch.layers:
        into, out_of = sketch._signs[name, "inputs"], sketch._signs[name, "outputs"]
        whole = torch.cat([grads[f"{name}.weight"], grads[f"{name}.bias"][..., None]], dim=2)
        total += torch.einsum("noi,op,ip->np", whole, out_of, into)
    torch.testing.assert_close(found, total / 4.0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "places"])
def test_inner_products_are_those_of_the_whole_gradients(name):
    module = MODULES[name]().eval()
    inputs = torch.from_numpy(np.random.default_rng(1).normal(size=(40, WIDTH))).float()
    grads = per_row(module, inputs)
    whole = torch.cat([one.flatten(1) for key, one in grads.items() if "idle" not in key], dim=1)
    kernel = whole @ whole.T
    errors = []
    for width in (512, 8_192):
        found, _ = sketch_of(module, inputs, width)
        norms = kernel.diagonal().sqrt()
        errors.append(((found @ found.T - kernel) / torch.outer(norms, norms)).pow(2).mean().sqrt())
    assert errors[0] < (8 / 512) ** 0.5
    assert errors[1] < (8 / 8_192) ** 0.5
    mean = torch.stack([sketch_of(module, inputs, 512, Keys(s, 0))[0] for s in range(40)])
    kernels = (mean @ mean.mT).mean(dim=0)
    assert ((kernels - kernel) / torch.outer(norms, norms)).abs().max() < 0.12  # no bias


def test_nothing_is_left_behind():
    module = plain(dropout=0.5)
    for parameter in module.parameters():
        parameter.grad = None
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first, _ = sketch_of(module, INPUTS)
    again, _ = sketch_of(module, INPUTS)
    assert torch.equal(first, again)  # to the bit
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert not module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    with torch.inference_mode():  # as a predictor may be called
        assert torch.equal(sketch_of(module, INPUTS)[0], first)
    other, _ = sketch_of(module, INPUTS, keys=Keys(4, 1))
    assert not torch.equal(other, first)


def test_many_places_are_added_up_in_chunks(monkeypatch):
    module = Places().eval()
    whole, _ = sketch_of(module, INPUTS)
    monkeypatch.setattr("rayal.predictors.gradients._CHUNK", 100)
    torch.testing.assert_close(sketch_of(module, INPUTS)[0], whole)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.output = nn.Linear(1, 4), nn.Linear(4 * WIDTH, 1)

    def forward(self, inputs):
        return self.output(self.first(inputs.reshape(-1, 1)).reshape(len(inputs), -1))


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.weight = nn.Parameter(torch.ones(WIDTH, 1))

    def forward(self, inputs):
        return inputs @ self.weight


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (
            Flat(),
            r"linear layer 'first' was given \(18, 1\) for 6 rows, expected rows in the first",
        ),
        (Idle(), "the forward of Idle calls none of its 1 linear layers"),
        (nn.Sequential(nn.Conv1d(1, 1, 1)), "Sequential has no nn.Linear whose weight learns"),
        (nn.Linear(WIDTH, 1).requires_grad_(False), "Linear has no nn.Linear whose weight learns"),
    ],
)
def test_modules_without_such_gradients_are_refused(module, why):
    with pytest.raises(NeedsError, match=f"output 'grads' was asked for; .*: .*{why}"):
        sketch_of(module, INPUTS)
    assert not any(layer._forward_hooks for layer in module.modules())


# ------------------------------------------------------------------------------ by the predictor


def test_a_predictor_gives_the_first_members_sketch_beside_the_rest(tmp_path: Path) -> None:
    predictor, members = loaded(tmp_path, "number", num_members=2, dropout=0.5, sketch_width=32)
    encoded = predictor.encode(rows(VALUES))
    outputs = predictor.predict(IDS, encoded, ("grads", "preds", "embeds"))
    assert set(outputs.arrays) == {"grads", "preds", "embeds"}
    assert outputs.grads.shape == (6, 32)
    sketch = GradientSketch(members[0], 32, Keys(1, 0))
    wanted = sketch.of(lambda: members[0](INPUTS)[0], 6)
    assert torch.equal(outputs.grads, wanted)
    alone = predictor.predict(IDS, encoded, ("grads",))
    assert torch.equal(alone.grads, wanted)
    plainly = predictor.predict(IDS, encoded, ("preds", "embeds"))
    assert torch.equal(plainly.preds, outputs.preds)
    assert torch.equal(plainly.embeds, outputs.embeds)


def test_rows_beside_it_do_not_change_a_rows_sketch(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, "number", sketch_width=8)
    first = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",)).grads
    padded = VALUES.copy()
    padded[3:] = padded[2]  # as the last batch of a shard is
    again = predictor.predict(IDS, predictor.encode(rows(padded)), ("grads",)).grads
    assert torch.equal(again[:3], first[:3])
    assert torch.equal(again[3], again[2])


def test_dropout_draws_leave_the_sketch_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    drawing, _ = loaded(tmp_path / "a", "number", dropout=0.5, num_draws=3, sketch_width=8)
    steady, _ = loaded(tmp_path / "b", "number", dropout=0.5, sketch_width=8)
    found = drawing.predict(IDS, drawing.encode(rows(VALUES)), ("grads", "draws"))
    wanted = steady.predict(IDS, steady.encode(rows(VALUES)), ("grads",))
    assert torch.equal(found.grads, wanted.grads)
    again = drawing.predict(IDS, drawing.encode(rows(VALUES)), ("grads",))
    assert torch.equal(again.grads, wanted.grads)


def test_half_precision_is_near(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, "number", sketch_width=64)
    exact = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",)).grads
    half = TorchPredictor(predictor.model, device="cpu", dtype="bfloat16", sketch_width=64)
    half.load(Checkpoint("", ""), str(tmp_path / "c"), Keys(1, 0))
    found = half.predict(IDS, half.encode(rows(VALUES)), ("grads",)).grads
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", ["class", "multilabel"])
def test_classes_have_no_one_output(kind, tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, kind)
    with pytest.raises(NeedsError, match=f"output 'grads' was asked for.*its kind is '{kind}'"):
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",))


def test_a_batch_that_cannot_be_read_and_a_width_that_cannot_be(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, "number", sketch_width=8)
    rejected = torch.ones(6, dtype=torch.bool)
    blank = predictor.predict(IDS, Encoded(None, rejected), ("grads", "preds"))
    assert blank.grads.shape == (6, 8)
    assert (blank.grads.dtype, blank.preds.dtype) == (torch.float32, torch.float64)
    with pytest.raises(ConfigError, match="sketch_width is 0, expected at least 1"):
        TorchPredictor(predictor.model, sketch_width=0)


def test_a_new_checkpoint_has_its_own_sketch(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, "number", sketch_width=8)
    first = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",)).grads
    model = Model(predictor.model.module, Vector(), "number")
    members = [model.build(OUTPUTS, WIDTH, 77).eval()]
    described = Description(
        "number", tuple("abcd"), OUTPUTS, WIDTH, 5, describe_architecture(members[0])
    )
    save(tmp_path / "other", described, members)
    predictor.load(Checkpoint("", ""), str(tmp_path / "other"), Keys(1, 0))
    other = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",)).grads
    assert not torch.equal(other, first)
    predictor.load(Checkpoint("", ""), str(tmp_path / "c"), Keys(1, 0))
    assert torch.equal(
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("grads",)).grads, first
    )
