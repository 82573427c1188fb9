import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from rayal.columns import vector_field
from rayal.errors import ConfigError, NeedsError
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, model_id, save
from rayal.models.model import Model
from rayal.models.modules import MLP, NgramBag
from rayal.models.transform import Undecodable
from rayal.models.transforms.ngrams import Ngrams
from rayal.models.transforms.vector import Vector
from rayal.predictors.dropout_draws import FixedDropout, fix_dropout
from rayal.predictors.torch_predictor import TorchPredictor
from rayal.scorers.predictive_variance import PredictiveVariance
from rayal.types import Checkpoint, Kind, Vocabulary

WIDTH, OUTPUTS, HIDDEN = 3, 4, 5


def rows(values: np.ndarray) -> pa.RecordBatch:
    values = values.astype(np.float32)
    field = vector_field("embedding", values.dtype, WIDTH)
    column = pa.array([row.tobytes() for row in values], field.type)
    return pa.record_batch([column], schema=pa.schema([field]))


def checkpoint(
    folder: Path, model: Model, num_members: int = 1, mean: float = 0.0, std: float = 1.0
) -> tuple[Checkpoint, list[nn.Module]]:
    members = [model.build(OUTPUTS, WIDTH, seed).eval() for seed in range(num_members)]
    described = Description(
        model.kind, tuple("abcd"), OUTPUTS, WIDTH, HIDDEN, describe_architecture(members[0]),
        num_members, mean, std,
    )  # fmt: skip
    save(folder, described, members)
    return Checkpoint("", model_id(described, members), num_members), members


def loaded(
    folder: Path,
    kind: Kind = "class",
    num_members: int = 1,
    dropout: float = 0.0,
    **options: object,
) -> tuple[TorchPredictor, list[nn.Module]]:
    model = Model(functools.partial(MLP, hidden=(HIDDEN,), dropout=dropout), Vector(), kind)
    made, members = checkpoint(folder / "c", model, num_members, mean=2.0, std=3.0)
    predictor = TorchPredictor(model, device="cpu", **options)
    predictor.load(made, str(folder / "c"), Keys(1, 0))
    return predictor, members


VALUES = np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)
INPUTS, IDS = torch.from_numpy(VALUES), torch.arange(6)


def test_probs_and_embeds_are_those_of_the_plain_module(tmp_path: Path) -> None:
    predictor, (member,) = loaded(tmp_path, dropout=0.5)
    assert predictor.columns() == ("embedding",)
    outputs = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("probs", "embeds", "word"))
    logits, embeds = member(INPUTS)
    torch.testing.assert_close(outputs.probs, logits.softmax(1))
    assert torch.equal(outputs.embeds, embeds)
    assert set(outputs.arrays) == {"probs", "embeds"}
    assert outputs.rejected is None
    assert predictor.predict(IDS, predictor.encode(rows(VALUES)), ()).arrays == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_outputs_of_the_cpu_whatever_is_copied_meanwhile(tmp_path: Path) -> None:
    on_cpu, _ = loaded(tmp_path)
    on_gpu = TorchPredictor(on_cpu.model, device="cuda")
    on_gpu.load(Checkpoint("", ""), str(tmp_path / "c"), Keys(1, 0))
    batches = [rows(VALUES + step) for step in range(8)]
    ahead = [on_gpu.encode(batch) for batch in batches]
    for batch, encoded in zip(batches, ahead, strict=True):
        found = on_gpu.predict(IDS, encoded, ("probs",)).probs.cpu()
        wanted = on_cpu.predict(IDS, on_cpu.encode(batch), ("probs",)).probs
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_an_ensemble_gives_its_members_as_draws_and_their_mean(tmp_path: Path) -> None:
    predictor, members = loaded(tmp_path, num_members=3)
    needs = ("draws", "probs", "embeds")
    outputs = predictor.predict(IDS, predictor.encode(rows(VALUES)), needs)
    each = [member(INPUTS)[0].softmax(1) for member in members]
    torch.testing.assert_close(outputs.draws, torch.stack(each, 1))
    torch.testing.assert_close(outputs.probs, (each[0] + each[1] + each[2]) / 3)
    assert torch.equal(outputs.embeds, members[0](INPUTS)[1])
    alone = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("embeds",))
    assert torch.equal(alone.embeds, outputs.embeds)


def test_multilabel_probs_are_sigmoids(tmp_path: Path) -> None:
    predictor, (member,) = loaded(tmp_path, "multilabel")
    outputs = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("probs",))
    assert torch.equal(outputs.probs, member(INPUTS)[0].sigmoid())


def test_a_regression_speaks_in_the_units_of_its_targets(tmp_path: Path) -> None:
    predictor, members = loaded(tmp_path, "number", num_members=2)
    outputs = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("preds", "draws"))
    each = [member(INPUTS)[0].double() * 3.0 + 2.0 for member in members]
    torch.testing.assert_close(outputs.draws, torch.stack(each, 1))
    torch.testing.assert_close(outputs.preds, (each[0] + each[1]) / 2)
    with pytest.raises(NeedsError, match="output 'probs' was asked for; the model cannot give"):
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("probs",))


def test_predictions_of_large_numbers_keep_their_small_differences(tmp_path: Path) -> None:
    model = Model(functools.partial(MLP, hidden=(HIDDEN,)), Vector(), "number")
    made, members = checkpoint(tmp_path / "c", model, 3, mean=1e8, std=0.5)
    predictor = TorchPredictor(model, device="cpu")
    predictor.load(made, str(tmp_path / "c"), Keys(1, 0))
    outputs = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("preds", "draws"))
    assert outputs.preds.dtype == outputs.draws.dtype == torch.float64
    logits = torch.stack([member(INPUTS)[0].double() for member in members], 1)
    torch.testing.assert_close((outputs.draws - 1e8) / 0.5, logits, rtol=0, atol=1e-6)
    found = PredictiveVariance().score(outputs, Keys(1, 0))
    wanted = (0.5 * logits).var(dim=1, correction=0).sum(dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    encoded = predictor.encode(rows(np.full((6, WIDTH), np.inf)))
    blank = predictor.predict(IDS, encoded, ("preds", "draws"))
    assert blank.preds.dtype == blank.draws.dtype == torch.float64


def test_dropout_draws_use_one_mask_for_all_rows(tmp_path: Path) -> None:
    predictor, (member,) = loaded(tmp_path, dropout=0.5, num_draws=3)
    encoded = predictor.encode(rows(VALUES))
    draws = predictor.predict(IDS, encoded, ("draws",)).draws
    assert draws.shape == (6, 3, OUTPUTS)
    assert torch.equal(draws, predictor.predict(IDS, encoded, ("draws",)).draws)
    alone = predictor.encode(rows(VALUES[2:3]))
    torch.testing.assert_close(predictor.predict(IDS[2:3], alone, ("draws",)).draws, draws[2:3])
    for draw in range(3):
        uniforms = Keys(1, 0).stream(f"dropout/dropout/{draw}").uniform(np.arange(HIDDEN))
        mask = torch.from_numpy((uniforms >= 0.5) * 2.0).float()
        expected = member.output(member.body(INPUTS) * mask).softmax(1)
        torch.testing.assert_close(draws[:, draw], expected)
    assert not torch.equal(draws[:, 0], draws[:, 1])
    both = predictor.predict(IDS, encoded, ("probs", "draws"))
    torch.testing.assert_close(both.probs, member(INPUTS)[0].softmax(1))


def test_dropout_masks_change_with_the_round(tmp_path: Path) -> None:
    model = Model(functools.partial(MLP, hidden=(64,), dropout=0.5), Vector(), "number")
    made, _ = checkpoint(tmp_path / "c", model)
    found = []
    for keys in (Keys(1, 0), Keys(1, 1)):
        predictor = TorchPredictor(model, num_draws=4)
        predictor.load(made, str(tmp_path / "c"), keys)
        found.append(predictor.predict(IDS, predictor.encode(rows(VALUES)), ("draws", "preds")))
        torch.testing.assert_close(found[-1].preds, found[-1].draws.mean(1))
        alone = predictor.predict(IDS, predictor.encode(rows(VALUES)), ("preds",))
        assert torch.equal(alone.preds, found[-1].preds)
    assert not torch.equal(found[0].draws, found[1].draws)


def test_channel_dropout_drops_whole_channels() -> None:
    module = nn.Sequential(nn.Dropout2d(0.5))
    (fixed,) = fix_dropout(module, Keys(0, 0))
    assert isinstance(module[0], FixedDropout)
    fixed.draw = 1
    out = module(torch.ones(2, 16, 3, 3))
    by_channel = out.flatten(2)
    assert torch.equal(by_channel.amin(2), by_channel.amax(2))
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_draws_without_a_source_are_refused(tmp_path: Path) -> None:
    predictor, _ = loaded(tmp_path, dropout=0.5)
    with pytest.raises(NeedsError, match=r"'draws' .* trainer.num_members to 2 or more, or pred"):
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("draws",))
    with pytest.raises(NeedsError, match=r"'preds' .* its kind is 'class'; ask for probs"):
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("preds",))
    with pytest.raises(NeedsError, match="MLP has no dropout layer"):
        loaded(tmp_path / "none", dropout=0.0, num_draws=2)
    with pytest.raises(NeedsError, match="'0' is AlphaDropout, which has no fixed masks"):
        fix_dropout(nn.Sequential(nn.AlphaDropout(0.5)), Keys(0, 0))
    with pytest.raises(ConfigError, match="num_draws is 2, the ensemble has 3 members"):
        loaded(tmp_path / "both", num_members=3, dropout=0.5, num_draws=2)


def test_logits_alone_cannot_give_embeds(tmp_path: Path) -> None:
    module = functools.partial(nn.Linear, WIDTH, OUTPUTS)
    model = Model(module, Vector())
    made, (member,) = checkpoint(tmp_path / "c", model)
    predictor = TorchPredictor(model)
    predictor.load(made, str(tmp_path / "c"), Keys(0, 0))
    encoded = predictor.encode(rows(VALUES))
    probs = predictor.predict(IDS, encoded, ("probs",)).probs
    torch.testing.assert_close(probs, member(INPUTS).softmax(1))
    with pytest.raises(NeedsError, match=r"'embeds' .* its forward gives logits alone"):
        predictor.predict(IDS, encoded, ("embeds",))


def test_rows_that_cannot_be_decoded_are_marked_and_the_others_keep_their_outputs(
    tmp_path: Path,
) -> None:
    predictor, (member,) = loaded(tmp_path)
    broken = VALUES.copy()
    broken[[0, 3]] = np.nan
    outputs = predictor.predict(IDS, predictor.encode(rows(broken)), ("probs", "embeds"))
    assert outputs.rejected is not None
    assert outputs.rejected.tolist() == [True, False, False, True, False, False]
    good = ~outputs.rejected
    torch.testing.assert_close(outputs.probs[good], member(INPUTS)[0].softmax(1)[good])
    assert outputs.probs.isfinite().all()

    encoded = predictor.encode(rows(np.full((6, WIDTH), np.inf)))
    blank = predictor.predict(IDS, encoded, ("probs", "embeds"))
    assert blank.rejected is not None
    assert blank.rejected.all()
    assert (blank.probs.shape, blank.embeds.shape) == ((6, OUTPUTS), (6, HIDDEN))


@dataclass(frozen=True)
class OneAtATime:
    """Names only the first bad row; with `liar` it refuses the whole batch by the same row."""

    liar: bool = False
    columns: tuple[str, ...] = ("x",)

    def __call__(self, batch: pa.RecordBatch) -> torch.Tensor:
        values = batch.column("x").to_numpy()
        if self.liar or (values < 0).any():
            raise Undecodable([int(np.argmax(values < 0))], "negative")
        return torch.from_numpy(values.copy()).float()[:, None]


def test_a_transform_may_name_bad_rows_one_at_a_time() -> None:
    batch = pa.record_batch({"x": pa.array([-1, 2, -3, 4])})
    encoded = TorchPredictor(Model(nn.Linear, OneAtATime())).encode(batch)
    assert encoded.rejected is not None
    assert encoded.rejected.tolist() == [True, False, True, False]
    assert encoded.arguments is not None
    assert encoded.arguments[0].tolist() == [[2], [2], [2], [4]]
    with pytest.raises(Undecodable, match="negative"):
        TorchPredictor(Model(nn.Linear, OneAtATime(liar=True))).encode(batch)


def test_null_words_are_rejected_in_place(tmp_path: Path) -> None:
    model = Model(functools.partial(NgramBag, num_buckets=64, width=HIDDEN), Ngrams("word", 64))
    made, _ = checkpoint(tmp_path / "c", model)
    predictor = TorchPredictor(model)
    predictor.load(made, str(tmp_path / "c"), Keys(0, 0))
    found = []
    for words in (["ab", None, "c"], ["ab", "zz", "c"]):
        batch = pa.record_batch({"word": pa.array(words)})
        found.append(predictor.predict(IDS[:3], predictor.encode(batch), ("probs",)))
    assert found[0].rejected is not None
    assert found[0].rejected.tolist() == [False, True, False]
    assert torch.equal(found[0].probs[[0, 2]], found[1].probs[[0, 2]])


def test_bfloat16_gives_float32_outputs_near_those_of_float32(tmp_path: Path) -> None:
    exact, _ = loaded(tmp_path / "a")
    rough, _ = loaded(tmp_path / "b", dtype="bfloat16")
    needs = ("probs", "embeds")
    one = exact.predict(IDS, exact.encode(rows(VALUES)), needs)
    two = rough.predict(IDS, rough.encode(rows(VALUES)), needs)
    assert two.probs.dtype == two.embeds.dtype == torch.float32
    assert not torch.equal(one.probs, two.probs)
    torch.testing.assert_close(one.probs, two.probs, atol=0.02, rtol=0.02)


def test_arguments_are_checked() -> None:
    model = Model(MLP, Vector())
    with pytest.raises(ConfigError, match="num_draws=1; expected"):
        TorchPredictor(model, num_draws=1)
    with pytest.raises(ConfigError, match=r"predictor\.dtype is 'half', expected one of float32"):
        TorchPredictor(model, dtype="half")
    with pytest.raises(NeedsError, match="call load before predict"):
        TorchPredictor(model).predict(IDS, None, ("probs",))
    with pytest.raises(
        ConfigError, match=r"predictor\.device is 'foo': .*; set it to auto, cpu or"
    ):
        TorchPredictor(model, device="foo")


def test_a_device_that_is_not_there_is_refused_where_the_work_runs(tmp_path: Path) -> None:
    model = Model(functools.partial(MLP, hidden=(HIDDEN,)), Vector())
    made, _ = checkpoint(tmp_path / "c", model)
    predictor = TorchPredictor(model, device="cuda:77")
    broken = VALUES.copy()
    broken[2] = np.nan
    # What a driver asks needs neither a checkpoint nor the device.
    looked = predictor.predict(IDS, predictor.encode(rows(broken)), ())
    assert looked.rejected is not None
    assert looked.rejected.tolist() == [False, False, True, False, False, False]
    message = r"predictor\.device is 'cuda:77', but this process cannot compute on 'cuda:77' \("
    with pytest.raises(ConfigError, match=message):
        predictor.load(made, str(tmp_path / "c"), Keys(0, 0))
    vocabulary = Vocabulary("class", tuple("abcd"))
    with pytest.raises(ConfigError, match=message):
        predictor.rehearse(rows(VALUES), ("probs",), vocabulary, 1, Keys(0, 0))


def test_a_checkpoint_whose_module_now_gives_another_width_is_refused(tmp_path: Path) -> None:
    model = Model(functools.partial(nn.Linear, WIDTH, OUTPUTS + 1), Vector())
    made, _ = checkpoint(tmp_path / "c", model)
    predictor = TorchPredictor(model)
    predictor.load(made, str(tmp_path / "c"), Keys(0, 0))
    with pytest.raises(
        ConfigError, match=r"gives 5 outputs a row, expected 4, one a class \('a', 'b', 'c', 'd'\)"
    ):
        predictor.predict(IDS, predictor.encode(rows(VALUES)), ("probs",))
