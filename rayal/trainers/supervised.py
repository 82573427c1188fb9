"""Training from labels alone: any module, any loss, one member or several."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import distributed, nn

from rayal.errors import ConfigError, TrainingError
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe, load, model_id, save
from rayal.models.device import check_device
from rayal.models.model import Model, listed
from rayal.models.transform import num_inputs
from rayal.storage import atomic_path
from rayal.trainers.descent import Descent
from rayal.trainers.examples import EncodedRows, Examples, Positions, split
from rayal.trainers.losses import Loss, check_class_weights, class_weight_of, default_loss
from rayal.types import Checkpoint, Float64s, Group, Vocabulary, Work

# One fused loop over parameters: several times faster than the default on a CPU for large tables.
_ADAMW = functools.partial(torch.optim.AdamW, fused=True)
_ROUNDING = 1e-12  # of the mean: a standard deviation below is none, but for rounding


@dataclass(frozen=True)
class Supervised:
    """Gives a checkpoint fitted to a snapshot by minibatch gradient descent.

    `loss(logits, targets)` gives one value a row; it is cross-entropy, binary cross-entropy or the
    squared error of standardised targets by default, as the model's kind says. `optimizer` is
    called with the parameters and those of `lr`, `weight_decay` that it names and does not bind.
    The learning rate falls to 0 in a line, unless `schedule` is "constant". An epoch has
    labels / rows_per_step steps; few labels get more epochs, up to `min_steps` steps in all.

    With a `validation_share` the parameters of the epoch with the least validation loss are kept,
    and training ends after `patience` epochs without a better one. Members of an ensemble differ
    by their first parameters and their order of rows (Lakshminarayanan et al., Simple and Scalable
    Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS 2017), and are fitted one after
    another. With `warm_start` they begin where those of the checkpoint before ended.

    The result is a function of the labels, the configuration, the keys and the number of ranks.
    O(members x epochs x labels) passes. The process group, where there are several ranks, is made
    by the caller.

    Raises:
        TrainingError: the loss is not finite, or the labels cannot be trained on.
        ConfigError: the model does not fit the vocabulary, or the start does not fit the model.
    """

    model: Model
    epochs: int = 10
    rows_per_step: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    min_steps: int = 200
    schedule: Literal["linear", "constant"] = "linear"
    loss: Loss | None = None
    optimizer: Callable[..., torch.optim.Optimizer] = _ADAMW
    num_members: int = 1
    warm_start: bool = False
    class_weights: Literal["balanced"] | Sequence[float] | None = None
    validation_share: float = 0.0
    patience: int = 5
    num_workers: int = 0
    use_gpu: bool = False
    num_threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "rows_per_step", "num_members", "patience", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name} is {getattr(self, name)}, expected 1 or more")
        if self.num_workers < 0 or self.min_steps < 0 or not 0 <= self.validation_share < 1:
            raise ConfigError(
                f"trainer got num_workers={self.num_workers}, min_steps={self.min_steps}, "
                f"validation_share={self.validation_share}; expected 0 or more, 0 or more, and a "
                "share from 0 to below 1"
            )
        for name in ("learning_rate", "weight_decay"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"trainer.{name} is {getattr(self, name)}, expected a finite number, 0 or more"
                )
        if self.schedule not in ("linear", "constant"):
            raise ConfigError(
                f"trainer.schedule is '{self.schedule}', expected 'linear' or 'constant'"
            )

    def check(self, vocabulary: Vocabulary) -> None:
        """Refuses labels of another kind than the model's, and class weights that do not fit them.

        Raises:
            ConfigError: they are, or do not.
        """
        self.model.check(vocabulary)
        check_class_weights(self.class_weights, vocabulary)

    def work(self, num_labels: int) -> Work:
        """Gives what a `fit` of L labels does without an early stop: rows passed forward and
        backward by all members, and their steps."""
        valid = min(max(round(self.validation_share * num_labels), 1), num_labels - 1)
        train = num_labels - (valid if self.validation_share and num_labels > 1 else 0)
        steps = -(-train // self.rows_per_step)
        epochs = max(self.epochs, -(-self.min_steps // steps))
        return Work(float(self.num_members * epochs * train), self.num_members * epochs * steps)

    def brief(self, num_steps: int) -> Supervised:
        """Gives the same training for so few steps a member, or the one epoch that has more."""
        return replace(self, epochs=1, min_steps=num_steps, patience=1_000_000)

    def fit(
        self,
        labels: pa.Table,
        vocabulary: Vocabulary,
        start: str | None,
        out: str,
        keys: Keys,
        group: Group,
    ) -> Checkpoint:
        """Gives the checkpoint that rank 0 left in the folder `out`; its path is left empty."""
        if labels.num_rows == 0:
            raise TrainingError("the snapshot has no labels, expected one or more; label some rows")
        self.check(vocabulary)
        check_device(
            group.device,
            f"trainer.use_gpu is {str(self.use_gpu).lower()}",
            "set trainer.use_gpu=false, or train where there is a GPU",
        )
        num_threads = torch.get_num_threads()
        torch.set_num_threads(self.num_threads)
        try:
            devices = [group.device] if group.device.startswith("cuda") else []
            with torch.random.fork_rng(devices=devices):
                begun = self._begin(start, vocabulary)
                description, members = self._fit(labels, vocabulary, begun, keys, group)
            return _leave(Path(out), description, members, group)
        finally:
            torch.set_num_threads(num_threads)

    def _begin(
        self, start: str | None, vocabulary: Vocabulary
    ) -> tuple[Description, list[nn.Module]] | None:
        if start is None or not self.warm_start:
            return None
        description, members = load(self.model, start)
        if len(members) < self.num_members:
            raise ConfigError(
                f"checkpoint {start} has {len(members)} members, trainer.num_members is "
                f"{self.num_members}; set warm_start=false, or num_members to what it has"
            )
        if description.classes != vocabulary.classes:
            raise ConfigError(
                f"checkpoint {start} knows the classes {listed(description.classes)}, the pool "
                f"{listed(vocabulary.classes)}; set warm_start=false, or start from another"
            )
        return description, members

    def _fit(
        self,
        labels: pa.Table,
        vocabulary: Vocabulary,
        begun: tuple[Description, list[nn.Module]] | None,
        keys: Keys,
        group: Group,
    ) -> tuple[Description, list[nn.Module]]:
        ids = labels.column("sample_id").to_numpy()
        answers = vocabulary.encode(labels.column("label").to_pylist())
        train, valid = split(ids, self.validation_share, keys)
        mean, std = 0.0, 1.0
        if vocabulary.kind == "number":
            mean, std = float(answers[train].mean()), float(answers[train].std())
            # What is warm started speaks in its own units, and keeps them: no other scale could be
            # given to a last layer that only the module knows.
            if begun is not None:
                mean, std = begun[0].target_mean, begun[0].target_std
            std = std if std > _ROUNDING * abs(mean) else 1.0
            targets = torch.from_numpy((answers - mean) / std).float()[:, None]
        else:
            targets = torch.from_numpy(answers)
            targets = targets.long() if vocabulary.kind == "class" else targets.float()
        weights = class_weight_of(self.class_weights, answers, vocabulary) * _row_weights(labels)
        examples = Examples(
            EncodedRows(self.model.transform, labels), ids, targets, _mean_one(weights, train)
        )
        width = num_inputs(examples.rows.example)
        descent = Descent(
            vocabulary,
            self.loss or default_loss(self.model.kind),
            self.optimizer,
            self.epochs,
            self.min_steps,
            self.rows_per_step,
            self.learning_rate,
            self.weight_decay,
            self.schedule,
            self.patience,
        )
        members = []
        for member in range(self.num_members):
            module = (
                begun[1][member]
                if begun
                else self.model.build_member(vocabulary, width, member, keys)
            )
            members.append(descent.fit(module, member, examples, train, valid, keys, group))
        return describe(members, examples.rows.example, 1, vocabulary, mean, std), members


def _row_weights(labels: pa.Table) -> Float64s:
    if "weight" not in labels.schema.names:
        return np.ones(labels.num_rows)
    weights: Float64s = labels.column("weight").to_numpy().astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise TrainingError(
            f"sample_id {labels.column('sample_id')[int(bad[0])].as_py()} has weight "
            f"{weights[bad[0]]}, expected a finite number, 0 or more; correct the snapshot"
        )
    return weights


def _mean_one(weights: Float64s, train: Positions) -> torch.Tensor:
    mean = weights[train].mean()
    if mean <= 0:
        raise TrainingError(
            "all rows to train on have weight 0, expected one above 0; check the snapshot's "
            "weights and trainer.class_weights"
        )
    return torch.from_numpy(weights / mean).float()


def _leave(
    out: Path, description: Description, members: list[nn.Module], group: Group
) -> Checkpoint:
    """Writes the checkpoint in rank 0; the others learn its id once it is there."""
    digest = torch.zeros(32, dtype=torch.uint8)
    try:
        if group.rank == 0:
            identity = model_id(description, members)
            with atomic_path(out) as temporary:
                save(temporary, description, members)
            digest = torch.frombuffer(bytearray.fromhex(identity), dtype=torch.uint8)
    finally:  # zeros tell the others that rank 0 failed, so that they end as well
        if group.size > 1:
            digest = digest.to(group.device)
            distributed.broadcast(digest, 0)
    if not digest.any():
        raise TrainingError(f"rank 0 could not write the checkpoint to {out}; see its own error")
    return Checkpoint("", bytes(digest.cpu().tolist()).hex(), len(members))
