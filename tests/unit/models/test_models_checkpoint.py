import functools
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rayal.errors import ConfigError, RayalError
from rayal.models.checkpoint import Description, describe_architecture, load, model_id, save
from rayal.models.model import Model, call_with, split_outputs
from rayal.models.modules import MLP, Linear, NgramBag, SmallCnn
from rayal.models.transforms.vector import Vector


def description(module: nn.Module, **changes: object) -> Description:
    made = Description("class", ("a", "b"), 2, 3, 4, describe_architecture(module))
    return replace(made, **changes)


def mlp(hidden: int = 4) -> Model:
    return Model(functools.partial(MLP, hidden=(hidden,)), Vector())


def test_build_is_a_function_of_the_seed_and_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (mlp().build(2, 3, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.output.weight, again.output.weight)
    assert not torch.equal(first.output.weight, other.output.weight)


def test_call_with_offers_only_what_is_named_and_free() -> None:
    def given(num_outputs: int, **others: int) -> tuple[int, dict[str, int]]:
        return num_outputs, others

    assert call_with(given, num_outputs=2, num_inputs=3) == (2, {})
    bound = functools.partial(given, num_outputs=7)
    assert call_with(bound, num_outputs=2, num_inputs=3) == (7, {})
    assert isinstance(Model(functools.partial(nn.Linear, 3, 2), Vector()).build(9, 9), nn.Linear)


def test_modules_give_logits_of_their_embeds() -> None:
    bag = (torch.tensor([1, 2, 3], dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32))
    cases = [
        (Linear(5, 3), (torch.rand(2, 3),), 3),
        (MLP(5, 3, hidden=(8, 6), dropout=0.5), (torch.rand(2, 3),), 6),
        (NgramBag(5, num_buckets=64, width=7), bag, 7),
        (NgramBag(5, num_buckets=64, width=7, hidden=9), bag, 9),
        (SmallCnn(5, channels=2, hidden=11), (torch.rand(2, 1, 28, 28),), 11),
        (SmallCnn(5, channels=2, hidden=11), (torch.rand(2, 1, 8, 8),), 11),
    ]
    for module, arguments, width in cases:
        logits, embeds = module.eval()(*arguments)
        assert (logits.shape, embeds.shape) == ((2, 5), (2, width))
        torch.testing.assert_close(module.output(embeds), logits)
    pair = cases[2][0].bag.weight[1:3]
    torch.testing.assert_close(cases[2][0](*bag)[1][0], pair.mean(0))
    summing = NgramBag(5, num_buckets=64, width=7, mode="sum").eval()
    torch.testing.assert_close(summing(*bag)[1][0], summing.bag.weight[1:3].sum(0))


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    members = [mlp().build(2, 3, seed) for seed in (0, 1)]
    made = description(members[0], num_members=2, target_mean=0.1, target_std=1 / 3)
    save(tmp_path / "c", made, members)
    found, back = load(mlp(), tmp_path / "c")
    assert found == made
    assert model_id(found, back) == model_id(made, members)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "member-0.pt", "member-1.pt", "model.json",
    ]  # fmt: skip


def test_model_id_changes_with_a_parameter_the_order_of_members_and_the_description() -> None:
    one, two = (mlp().build(2, 3, seed) for seed in (0, 1))
    made = description(one)
    ids = {model_id(made, [one]), model_id(made, [two]), model_id(made, [one, two])}
    ids |= {model_id(made, [two, one]), model_id(replace(made, target_std=2.0), [one])}
    with torch.no_grad():
        one.output.bias[0] += 1e-6
    ids.add(model_id(made, [one]))
    assert len(ids) == 6


def test_another_architecture_is_one_clear_error(tmp_path: Path) -> None:
    module = mlp(4).build(2, 3)
    save(tmp_path / "c", description(module), [module])
    with pytest.raises(ConfigError) as caught:
        load(mlp(6), tmp_path / "c")
    assert "'body.0.bias' is 4 there and 6 in the configured MLP" in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"'body.0.bias' is 4 there and nothing in the configured"
    ):
        load(Model(Linear, Vector()), tmp_path / "c")
    with pytest.raises(ConfigError, match="is for kind 'class', the configured model for 'number'"):
        load(Model(MLP, Vector(), "number"), tmp_path / "c")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path("/nowhere").joinpath, ("x",))


def test_unreadable_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RayalError, match=r"there is no checkpoint in .* \(no model.json\)"):
        load(mlp(), tmp_path)
    module = mlp().build(2, 3)
    folder = tmp_path / "c"
    save(folder, description(module), [module])
    whole = (folder / "member-0.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", pickle.dumps({"x": Evil()})):
        (folder / "member-0.pt").write_bytes(content)
        with pytest.raises(RayalError, match=r"member-0.pt is damaged or holds more than tensors"):
            load(mlp(), folder)
    torch.save({"x": Evil()}, folder / "member-0.pt")
    with pytest.raises(RayalError, match="holds more than tensors"):
        load(mlp(), folder)
    torch.save([1, 2], folder / "member-0.pt")
    with pytest.raises(RayalError, match="holds more than tensors"):
        load(mlp(), folder)
    (folder / "member-0.pt").unlink()
    with pytest.raises(RayalError, match=r"member-0.pt is missing \(1 members were expected\)"):
        load(mlp(), folder)
    text = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**text, "format": 99}))
    with pytest.raises(RayalError, match="has format 99, this rayal reads 1"):
        load(mlp(), folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(RayalError, match="is not a description of a checkpoint"):
        load(mlp(), folder)


def test_what_a_forward_gives_is_checked() -> None:
    logits = torch.zeros(2, 3)
    assert split_outputs(logits, 2, 3)[1] is None
    assert split_outputs((logits, logits), 2, 3)[1] is logits
    for wrong, what in (
        (torch.zeros(2), r"logits as Tensor \(2,\)"),
        ({"logits": logits}, "logits as dict"),
        ((logits, torch.zeros(2, 3, 4)), r"embeds as Tensor \(2, 3, 4\)"),
        (torch.zeros(3, 3), r"logits as Tensor \(3, 3\)"),
        ((logits, torch.zeros(1, 4)), r"embeds as Tensor \(1, 4\)"),
    ):
        with pytest.raises(
            ConfigError, match=f"gave {what} for 2 rows, expected a \\(2, 3\\) tensor of logits"
        ):
            split_outputs(wrong, 2, 3)
    with pytest.raises(
        ConfigError, match=r"gives 3 outputs a row, expected 2, one a class \('no', 'yes'\); let"
    ):
        split_outputs(logits, 2, 2, ("no", "yes"))
    with pytest.raises(ConfigError, match="3 outputs a row, expected 1, one a number to predict"):
        split_outputs((logits, logits), 2, 1)
    with pytest.raises(ConfigError, match=r"model\.module gave a list"):
        Model(list, Vector()).build(2, 2)
    with pytest.raises(ConfigError, match=r"model\.kind is 'klass'"):
        Model(MLP, Vector(), "klass")
    with pytest.raises(ConfigError, match="MLP got no hidden layer"):
        MLP(2, 2, hidden=())


class Odd(nn.Module):
    """Has a layer without a width yet, or fails while it is built."""

    def __init__(self, lazy: bool) -> None:
        super().__init__()
        if not lazy:
            raise KeyError("no such weights")
        self.body = nn.LazyLinear(3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (functools.partial(MLP, hidden=[8, -3]), r"MLP got hidden\[1\]=-3, expected 1 or more"),
        (functools.partial(MLP, dropout=1.5), r"MLP got dropout=1\.5, expected a share from 0 to"),
        (functools.partial(MLP, dropout=float("nan")), "MLP got dropout=nan, expected a share"),
        (functools.partial(NgramBag, width=0), "NgramBag got width=0, expected 1 or more"),
        (functools.partial(NgramBag, hidden=-1), "NgramBag got hidden=-1, expected 1 or more"),
        (functools.partial(NgramBag, dropout=-0.1), r"NgramBag got dropout=-0\.1"),
        (functools.partial(SmallCnn, channels=0), "SmallCnn got channels=0, expected 1 or more"),
        (functools.partial(SmallCnn, dropout=1.0), r"SmallCnn got dropout=1\.0, expected a share"),
        (
            functools.partial(nn.Linear, -3, 2),
            r"cannot be built for num_outputs=2 and num_inputs=3: RuntimeError: .*negative dim",
        ),
        (
            functools.partial(Odd, False),
            r"KeyError: 'no such weights' \(test_models_check.*:\d+\);",
        ),
        (functools.partial(Odd, True), r"has a lazy layer \('body\.weight' has no shape yet\)"),
        (functools.partial(MLP, width=3), r"cannot be built for .*unexpected keyword argument"),
    ],
)
def test_a_module_that_cannot_be_built_is_one_clear_error(module: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Model(module, Vector()).build(2, 3)
