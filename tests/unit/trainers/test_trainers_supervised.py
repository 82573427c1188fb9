import functools
import json
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
from rayal.models.checkpoint import load, read_description
from rayal.models.model import Model
from rayal.models.modules import MLP, NgramBag
from rayal.models.transforms.ngrams import Ngrams
from rayal.models.transforms.vector import Vector
from rayal.trainers.examples import split
from rayal.trainers.losses import class_weight_of
from rayal.trainers.supervised import Supervised
from rayal.types import Vocabulary


def test_fits_blobs_and_is_the_same_twice(tmp_path: Path) -> None:
    labels = blobs()
    trainer = Supervised(linear(), epochs=5, rows_per_step=16, learning_rate=0.1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    one = fit(trainer, labels, tmp_path / "1")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert (one.path, one.num_members) == ("", 1)
    assert fit(trainer, labels, tmp_path / "2").model_id == one.model_id
    assert fit(trainer, labels, tmp_path / "3", seed=1).model_id != one.model_id
    description, (module,) = load(linear(), tmp_path / "1")
    assert (description.classes, description.num_inputs, description.num_features) == (
        ABC.classes,
        2,
        2,
    )
    answers = module(vectors(labels))[0].argmax(1)
    assert (answers == torch.arange(90) % 3).float().mean() > 0.95
    assert [path.name for path in tmp_path.glob(".tmp-*")] == []


def test_equals_a_textbook_loop_of_full_gradients(tmp_path: Path) -> None:
    """Plain SGD with one step an epoch does not depend on the order of rows."""
    weights = np.random.default_rng(1).uniform(0.1, 2, 90)
    labels = blobs().append_column("weight", pa.array(weights))
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    trainer = Supervised(
        linear(), epochs=7, min_steps=0, rows_per_step=1000, learning_rate=0.5,
        schedule="constant", optimizer=sgd,
    )  # fmt: skip
    fit(trainer, labels, tmp_path / "c")
    inputs, targets = vectors(labels), torch.arange(90) % 3
    module = linear().build(3, 2, Keys(0, 0).stream("train/init/0").seed())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    row_weights = torch.from_numpy(weights / weights.mean()).float()
    for _ in range(7):
        losses = functional.cross_entropy(module(inputs)[0], targets, reduction="none")
        optimizer.zero_grad()
        (losses * row_weights).mean().backward()
        optimizer.step()
    found = load(linear(), tmp_path / "c")[1][0]
    torch.testing.assert_close(found.output.weight, module.output.weight)


def test_rows_of_weight_0_do_not_count(tmp_path: Path) -> None:
    labels = blobs()
    weights = (np.arange(90) < 60).astype(float)
    wrong = ["a" if at >= 60 else label for at, label in enumerate(labels["label"].to_pylist())]
    fits = []
    for name, answers in (("1", labels["label"].to_pylist()), ("2", wrong)):
        table = snapshot(vectors(labels).numpy(), answers, weights)
        fits.append(fit(Supervised(linear(), epochs=3), table, tmp_path / name))
    assert fits[0].model_id == fits[1].model_id


def test_few_labels_get_enough_steps(tmp_path: Path) -> None:
    calls = []

    def counted(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        return functional.cross_entropy(logits, targets, reduction="none")

    fit(Supervised(linear(), epochs=2, min_steps=31, rows_per_step=40, loss=counted), blobs(),
        tmp_path / "c")  # fmt: skip
    assert len(calls) == 33  # 3 steps an epoch, 11 epochs
    assert set(calls) == {30}


def test_regression_keeps_its_targets_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 3))
    targets = 1000 + inputs @ [30, -20, 5]
    labels = snapshot(inputs, targets.tolist())
    trainer = Supervised(linear("number"), epochs=30, rows_per_step=32, learning_rate=0.05)
    fit(trainer, labels, tmp_path / "c", NUMBER)
    description, (module,) = load(linear("number"), tmp_path / "c")
    assert description.target_mean == pytest.approx(targets.mean())
    assert description.target_std == pytest.approx(targets.std())
    preds = (
        module(vectors(labels))[0].detach()[:, 0] * description.target_std + description.target_mean
    )
    assert float((preds - torch.from_numpy(targets)).abs().max()) < 1.0
    assert np.full(7, 2.7).std() > 0  # the mean of seven times 2.7 is not 2.7
    for name, value in (("d", 4.0), ("e", 2.7), ("f", 0.0)):
        fit(trainer, snapshot(inputs[:7], [value] * 7), tmp_path / name, NUMBER)
        assert read_description(tmp_path / name).target_std == 1.0
        (module,) = load(linear("number"), tmp_path / name)[1]
        assert float(module(vectors(labels))[0].detach().abs().max()) < 10


def test_a_warm_start_never_divides_by_a_rounding_error(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(20, 3))
    trainer = Supervised(linear("number"), epochs=1, warm_start=True)
    fit(trainer, snapshot(inputs, [2.7] * 20), tmp_path / "a", NUMBER)
    path = tmp_path / "a" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_std": 4.4e-16}))
    varied = snapshot(inputs, (2.7 + inputs[:, 0]).tolist())
    fit(trainer, varied, tmp_path / "b", NUMBER, start=tmp_path / "a")
    assert read_description(tmp_path / "b").target_std == 1.0


def test_multilabel_learns_each_class(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(120, 2))
    answers = [[name for name, on in zip("ab", row > 0, strict=True) if on] for row in inputs]
    vocabulary = Vocabulary("multilabel", ("a", "b"))
    trainer = Supervised(linear("multilabel"), epochs=20, rows_per_step=32, learning_rate=0.1)
    labels = snapshot(inputs, answers)
    fit(trainer, labels, tmp_path / "c", vocabulary)
    logits = load(linear("multilabel"), tmp_path / "c")[1][0](vectors(labels))[0]
    assert ((logits > 0).numpy() == (inputs > 0)).mean() > 0.95


def test_members_differ_and_the_first_is_that_of_a_single_training(tmp_path: Path) -> None:
    labels = blobs()
    fit(Supervised(linear(), epochs=3, num_members=3), labels, tmp_path / "three")
    fit(Supervised(linear(), epochs=3), labels, tmp_path / "one")
    _, members = load(linear(), tmp_path / "three")
    weights = [member.output.weight for member in members]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 3
    assert torch.equal(weights[0], load(linear(), tmp_path / "one")[1][0].output.weight)


def test_warm_start_begins_where_the_checkpoint_ended(tmp_path: Path) -> None:
    labels = blobs()
    fit(Supervised(linear(), epochs=20, learning_rate=0.1), labels, tmp_path / "first")
    still = {"epochs": 1, "min_steps": 0, "learning_rate": 0.0}
    kept = Supervised(linear(), warm_start=True, **still)
    fit(kept, labels, tmp_path / "kept", start=tmp_path / "first")
    fresh = Supervised(linear(), warm_start=False, **still)
    fit(fresh, labels, tmp_path / "fresh", start=tmp_path / "first")
    first, second, third = (
        load(linear(), tmp_path / name)[1][0].output.weight for name in ("first", "kept", "fresh")
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    wider = Model(functools.partial(MLP, hidden=(4,)), Vector())
    with pytest.raises(ConfigError, match=r"of another architecture: 'body\.0\.bias' is nothing"):
        fit(Supervised(wider, warm_start=True), labels, tmp_path / "x", start=tmp_path / "first")
    with pytest.raises(ConfigError, match=r"has 1 members, trainer\.num_members is 2"):
        fit(Supervised(linear(), warm_start=True, num_members=2), labels, tmp_path / "x",
            start=tmp_path / "first")  # fmt: skip
    with pytest.raises(ConfigError, match="knows the classes 'a', 'b', 'c', the pool 'c', 'b'"):
        fit(kept, labels, tmp_path / "x", Vocabulary("class", ("c", "b", "a")), tmp_path / "first")


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    """Labels are noise: what is learnt of them only hurts the validation rows."""
    rng = np.random.default_rng(0)
    labels = snapshot(rng.normal(size=(60, 20)), ["abc"[i] for i in rng.integers(0, 3, 60)])
    epochs: list[int] = []

    def counted(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        epochs.append(torch.is_grad_enabled())
        return functional.cross_entropy(logits, targets, reduction="none")

    trainer = Supervised(
        linear(), epochs=200, learning_rate=0.1, schedule="constant", validation_share=0.5,
        patience=3, loss=counted,
    )  # fmt: skip
    fit(trainer, labels, tmp_path / "c")
    num_epochs = sum(epochs)
    assert num_epochs < 50
    train, valid = split(labels["sample_id"].to_numpy(), 0.5, Keys(0, 0))
    targets = torch.from_numpy(ABC.encode(labels["label"].to_pylist())).long()
    module = linear().build(3, 20, Keys(0, 0).stream("train/init/0").seed())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.0)
    inputs, found = vectors(labels), []
    for _ in range(num_epochs):
        optimizer.zero_grad()
        functional.cross_entropy(module(inputs[train])[0], targets[train]).backward()
        optimizer.step()
        loss = functional.cross_entropy(module(inputs[valid])[0], targets[valid]).item()
        found.append((loss, module.output.weight.detach().clone()))
    best = int(np.argmin([loss for loss, _ in found]))
    assert num_epochs == best + 3 + 1
    kept = load(linear(), tmp_path / "c")[1][0].output.weight
    torch.testing.assert_close(kept, found[best][1], atol=1e-4, rtol=1e-4)


def test_split_meets_the_share_and_leaves_a_row_on_each_side() -> None:
    ids, keys = np.arange(10, dtype=np.int64) * 3, Keys(0, 0)
    for share, count in ((0.0, 0), (0.01, 1), (0.3, 3), (0.99, 9)):
        train, valid = split(ids, share, keys)
        assert len(valid) == count
        assert sorted([*train, *valid]) == list(range(10))
    assert len(split(ids[:1], 0.5, keys)[1]) == 0
    backwards = split(ids[::-1], 0.3, keys)[1]
    assert set(ids[::-1][backwards]) == set(ids[split(ids, 0.3, keys)[1]])


def test_class_weights(tmp_path: Path) -> None:
    targets = np.array([0.0, 0, 0, 1])
    balanced = class_weight_of("balanced", targets, ABC)
    assert balanced.tolist() == pytest.approx([2 / 3] * 3 + [2])
    assert class_weight_of([1, 5, 9], targets, ABC).tolist() == [1, 1, 1, 5]
    assert class_weight_of(None, targets, ABC).tolist() == [1] * 4
    with pytest.raises(ConfigError, match="holds 2 numbers, expected 3"):
        class_weight_of([1, 2], targets, ABC)
    with pytest.raises(ConfigError, match="'equal', expected null, 'balanced' or a list"):
        class_weight_of("equal", targets, ABC)
    with pytest.raises(ConfigError, match="of kind 'number', expected 'class'"):
        class_weight_of("balanced", targets, NUMBER)
    for wrong, message in (
        ([1, 2], r"holds 2 numbers, expected 3, .* classes \('a', 'b', 'c'\)"),
        ([1, -2, 1], "holds 3 numbers, -2 among them, expected 3, finite and not negative"),
        ([1, float("nan"), 1], "holds 3 numbers, nan among them"),
        ([1, "x", 1], "holds 3 numbers, 'x' among them"),
        ([0, 0, 0], "holds 3 numbers, all of them 0"),
        ("equal", "'equal', expected null, 'balanced' or a list"),
    ):
        with pytest.raises(ConfigError, match=message):  # before there is a label
            Supervised(linear(), class_weights=wrong).check(ABC)
    Supervised(linear(), class_weights=[1, 0, 2.5]).check(ABC)
    fit(Supervised(linear(), epochs=1, class_weights="balanced"), blobs(2), tmp_path / "c")


def test_a_loss_that_is_not_finite_names_epoch_and_step(tmp_path: Path) -> None:
    inputs = np.full((4, 2), 3e38)
    trainer = Supervised(linear(), learning_rate=0.5, rows_per_step=2)
    with pytest.raises(
        TrainingError, match=r"member 0 is (nan|inf) in epoch 0, step \d of 2, expected a"
    ):
        fit(trainer, snapshot(inputs, ["a", "b", "c", "a"]), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_users_loss_may_give_one_number_unless_weights_differ(tmp_path: Path) -> None:
    labels = blobs(30)
    same = [
        fit(Supervised(linear(), loss=loss), labels, tmp_path / name).model_id
        for name, loss in (("a", nn.CrossEntropyLoss()), ("b", None))
    ]
    first, second = (load(linear(), tmp_path / name)[1][0].output.weight for name in "ab")
    assert len(same) == 2
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    weighted = labels.append_column("weight", pa.array(np.arange(30.0)))
    with pytest.raises(TrainingError, match="give the loss reduction='none'"):
        fit(Supervised(linear(), loss=nn.CrossEntropyLoss()), weighted, tmp_path / "c")
    with pytest.raises(TrainingError, match=r"gave shape \(1, 3\) for 30 rows"):
        fit(Supervised(linear(), loss=lambda x, y: x[:1]), labels, tmp_path / "c")


def test_words_are_learnt_through_bags(tmp_path: Path) -> None:
    words = [letter * length for length in range(1, 9) for letter in "xyz"]
    labels = pa.table(
        {"sample_id": np.arange(24), "label": ["abc"[i % 3] for i in range(24)], "word": words}
    )
    model = Model(
        functools.partial(NgramBag, num_buckets=1 << 10, width=8), Ngrams("word", 1 << 10)
    )
    one = fit(Supervised(model, learning_rate=0.01), labels, tmp_path / "1")
    assert fit(Supervised(model, learning_rate=0.01), labels, tmp_path / "2") == one
    _, (module,) = load(model, tmp_path / "1")
    found = module.eval()(*model.transform(labels.to_batches()[0]))[0].argmax(1)
    assert found.tolist() == [i % 3 for i in range(24)]
