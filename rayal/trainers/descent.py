"""Gradient descent of one member, the same on every rank."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from rayal.errors import ConfigError, TrainingError
from rayal.keys import Keys
from rayal.models.model import call_with, split_outputs
from rayal.trainers.examples import Examples, Positions
from rayal.trainers.losses import Loss, weighted_sum
from rayal.types import Group, Vocabulary

_VALIDATION_ROWS = 4096


@dataclass(frozen=True)
class Descent:
    """How parameters are fitted; `fit` gives a member with the best parameters that were met.

    Every rank walks through the same minibatches in the same order and takes every size-th row of
    each; the gradient is that of sum(weight x loss) / rows of the whole minibatch, whatever the
    number of ranks. Minibatches of an epoch differ by one row at most, so that none is tiny.
    """

    vocabulary: Vocabulary
    loss: Loss
    optimizer: Callable[..., torch.optim.Optimizer]
    epochs: int
    min_steps: int
    rows_per_step: int
    learning_rate: float
    weight_decay: float
    schedule: Literal["linear", "constant"]
    patience: int

    def fit(
        self,
        module: nn.Module,
        member: int,
        examples: Examples,
        train: Positions,
        valid: Positions,
        keys: Keys,
        group: Group,
    ) -> nn.Module:
        """Gives the module, fitted, on the CPU and in eval mode.

        Raises:
            TrainingError: the loss is not finite; the message names epoch and step.
            ConfigError: the module has nothing to train, or gives something else than logits.
        """
        # Masks of dropout come from torch's own generator (in the caller's fork): one a rank.
        torch.manual_seed(keys.stream(f"train/noise/{member}/{group.rank}").seed())
        module = module.to(group.device).train()
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError(
                f"{type(module).__name__} has no parameter that can be trained, expected one or "
                "more; configure another model.module"
            )
        model = module
        if group.size > 1:
            # The search costs up to a fifth of a step's time, so only who needs it pays.
            searches = self._leaves_out(module, examples, train[:2], group)
            model = DistributedDataParallel(module, find_unused_parameters=searches)
        optimizer: torch.optim.Optimizer = call_with(
            self.optimizer, trained, lr=self.learning_rate, weight_decay=self.weight_decay
        )
        steps = -(-len(train) // self.rows_per_step)
        epochs = max(self.epochs, -(-self.min_steps // steps))
        slope = 0.0 if self.schedule == "constant" else 1.0 / (epochs * steps)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - slope * step)
        best, best_loss, best_epoch = None, np.inf, 0
        for epoch in range(epochs):
            order = examples.order(train, keys, f"train/order/{member}/{epoch}")
            losses = []
            for rows in np.array_split(order, steps):
                losses.append(self._step(model, optimizer, examples, rows, group))
                decay.step()
            self._check(torch.stack(losses), member, epoch, group)
            if len(valid):
                loss = self._validate(module, examples, valid, group)
                if np.isfinite(loss) and loss < best_loss:
                    best, best_loss, best_epoch = _copy(module), loss, epoch
                elif epoch - best_epoch >= self.patience:
                    break
        if best is not None:
            module.load_state_dict(best)
        elif len(valid):
            raise TrainingError(
                f"the validation loss of member {member} is {loss} in epoch {epoch}, and not "
                f"finite in any epoch before, expected a finite number; {self._advice()}"
            )
        return module.cpu().eval()

    def _leaves_out(
        self, module: nn.Module, examples: Examples, rows: Positions, group: Group
    ) -> bool:
        """Whether the loss does not reach a parameter, by a look at rows that all ranks share."""
        with torch.random.fork_rng(devices=[group.device] if group.device != "cpu" else []):
            torch.manual_seed(0)  # every rank must come to the same answer
            twin = copy.deepcopy(module)  # whose running means nobody needs
            logits = self._logits(twin, examples, rows, group)
            trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
            found = torch.autograd.grad(logits.sum(), trained, allow_unused=True)
        return any(gradient is None for gradient in found)

    def _logits(
        self, model: nn.Module, examples: Examples, rows: Positions, group: Group
    ) -> torch.Tensor:
        try:
            found = model(*examples.rows.inputs(rows, group.device))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"a BatchNorm layer was given {len(rows)} row to train on, expected 2 or more in "
                f"each minibatch and rank; raise trainer.rows_per_step (now {self.rows_per_step}) "
                f"or the labels, lower trainer.num_workers (now {group.size} ranks), or use a norm "
                "of each row by itself, such as LayerNorm"
            ) from error
        vocabulary = self.vocabulary
        return split_outputs(found, len(rows), vocabulary.num_outputs, vocabulary.classes)[0]

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        rows: Positions,
        group: Group,
    ) -> torch.Tensor:
        """Gives this rank's part of the minibatch's loss."""
        mine = rows[group.rank :: group.size]
        weights = examples.weights[mine]
        if not len(mine):  # fewer rows than ranks: the gradient of a row of weight 0 joins in
            mine, weights = rows[:1], torch.zeros(1)
        logits = self._logits(model, examples, mine, group)
        targets = examples.targets[mine].to(group.device)
        total = weighted_sum(self.loss, logits, targets, weights.to(group.device)) / len(rows)
        optimizer.zero_grad()
        cast(Any, total * group.size).backward()  # DDP divides the sum over ranks by their number
        optimizer.step()
        return total.detach()

    def _check(self, losses: torch.Tensor, member: int, epoch: int, group: Group) -> None:
        if group.size > 1:  # every rank learns of it, and ends by itself
            distributed.all_reduce(losses)
        bad = np.flatnonzero(~np.isfinite(losses.cpu().numpy()))
        if len(bad):
            raise TrainingError(
                f"the loss of member {member} is {losses[bad[0]].item()} in epoch {epoch}, step "
                f"{bad[0]} of {len(losses)}, expected a finite number; {self._advice()}"
            )

    def _advice(self) -> str:
        return (
            f"lower trainer.learning_rate (now {self.learning_rate:g}), or check the scale of the "
            "inputs and of the labels"
        )

    def _validate(
        self, module: nn.Module, examples: Examples, valid: Positions, group: Group
    ) -> float:
        """Gives the validation loss; rank 0's, so that all ranks stop at the same epoch."""
        total = torch.zeros(1, device=group.device)
        if group.rank == 0:
            module.eval()
            with torch.no_grad():
                for lo in range(0, len(valid), _VALIDATION_ROWS):
                    rows = valid[lo : lo + _VALIDATION_ROWS]
                    logits = self._logits(module, examples, rows, group)
                    targets, weights = examples.targets[rows], examples.weights[rows]
                    total += weighted_sum(
                        self.loss, logits, targets.to(group.device), weights.to(group.device)
                    )
            module.train()
        if group.size > 1:
            distributed.broadcast(total, 0)
        return total.item() / len(valid)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: copy.deepcopy(tensor) for name, tensor in module.state_dict().items()}
