"""Parts that fail on purpose, as a user's own package: shipped to the workers by py_modules."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import torch
from torch import nn

from rayal.keys import Keys
from rayal.scorers.margin import Margin
from rayal.types import Outputs, Slice


@dataclass(frozen=True)
class DeadlyOnce:
    """Margin, but the process dies at one sample_id while a file is not there."""

    flag: str
    at: int
    needs = ("probs",)

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        if bool((outputs.ids == self.at).any()) and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return Margin().score(outputs, keys)


@dataclass(frozen=True)
class StoppedOnce(DeadlyOnce):
    """Margin, but the process comes to a halt there, and neither goes on nor ends."""

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        if bool((outputs.ids == self.at).any()) and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGSTOP)
        return Margin().score(outputs, keys)


@dataclass(frozen=True)
class Deadly(DeadlyOnce):
    """Dies there every time."""

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        if bool((outputs.ids == self.at).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return Margin().score(outputs, keys)


def die_once(part: Slice, step: int, flag: str) -> None:
    """Ask: ends the process of the first slice, while the flag is not there."""
    if part.key == 0 and not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class NotFinite:
    needs = ("probs",)

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        return torch.full((len(outputs.ids),), torch.nan, dtype=torch.float64)


@dataclass(frozen=True)
class Slow:
    """Margin at a walking pace."""

    needs = ("probs",)

    def score(self, outputs: Outputs, keys: Keys) -> torch.Tensor:
        time.sleep(0.1)
        return Margin().score(outputs, keys)


class Hungry(nn.Module):
    """A linear model that has no memory left for a batch while a file is there."""

    def __init__(self, num_outputs: int, num_inputs: int, flag: str, by: str) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)
        self.flag, self.by = flag, by

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled() and len(rows) > 1 and os.path.exists(self.flag):
            if self.by == "torch":
                torch.empty(1 << 60)
            bytearray(1 << 62)
        return self.linear(rows)


class NoEmbeds(nn.Module):
    """Gives logits and no embeds."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.linear(inputs)


class Wide(NoEmbeds):
    """Gives one logit too many."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__(num_outputs + 1, num_inputs)
