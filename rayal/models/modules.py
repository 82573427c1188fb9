"""Small networks for the recipes; each gives (logits, embeds), embeds being the last layer's input.

The last layer sees embeds through its dropout, so logits = output(dropout(embeds)): gradient
embeddings (BADGE) can be taken from embeds and logits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from rayal.errors import ConfigError

Pair = tuple[torch.Tensor, torch.Tensor]


class Linear(nn.Module):
    """One linear layer: a softmax, logistic or linear regression. O(N D C)."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.output = nn.Linear(num_inputs, num_outputs)

    @property
    def linear(self) -> nn.Linear:
        """The one product that gives the logits: see `rayal.models.head`."""
        return self.output

    def forward(self, inputs: torch.Tensor) -> Pair:
        """Gives (N, C) logits and the (N, D) flattened inputs as embeds."""
        embeds_ND = inputs.flatten(1)
        return self.output(embeds_ND), embeds_ND


class MLP(nn.Module):
    """Fully connected layers, each with ReLU and dropout. O(N (D H + H C)) for one of H units."""

    def __init__(
        self,
        num_outputs: int,
        num_inputs: int,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ConfigError(
                "MLP got no hidden layer; give hidden one width or more, or use Linear"
            )
        _check(self, dropout, **{f"hidden[{at}]": width for at, width in enumerate(hidden)})
        layers: list[nn.Module] = []
        for before, width in zip((num_inputs, *hidden), hidden, strict=False):
            layers += [nn.Dropout(dropout)] if layers else []
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden[-1], num_outputs)

    def forward(self, inputs: torch.Tensor) -> Pair:
        """Gives (N, C) logits and (N, hidden[-1]) embeds."""
        embeds_ND = self.body(inputs.flatten(1))
        return self.output(self.dropout(embeds_ND)), embeds_ND


class NgramBag(nn.Module):
    """Means the vectors of a text's hashed n-grams, then a linear layer, or one hidden layer first.

    `num_buckets` is that of the transform. `mode` sum learns in fewer steps and wants a small
    `init_std` and learning rate (0.01, 0.01); its logits grow with a text's length, so that its
    margins say less of a text (benchmarks/LOG.md). O(n-grams x width).

    Reference: Joulin et al., Bag of Tricks for Efficient Text Classification, EACL 2017.
    """

    def __init__(
        self,
        num_outputs: int,
        num_buckets: int = 65_536,
        width: int = 32,
        hidden: int = 0,
        dropout: float = 0.3,
        init_std: float = 0.1,
        mode: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        _check(self, dropout, num_buckets=num_buckets, width=width, hidden=hidden or 1)
        self.bag = nn.EmbeddingBag(num_buckets, width, mode=mode)
        nn.init.normal_(self.bag.weight, std=init_std)
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(nn.ReLU(), nn.Linear(width, hidden), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden or width, num_outputs)

    def forward(self, indices: torch.Tensor, offsets: torch.Tensor) -> Pair:
        """Gives (N, C) logits and (N, hidden or width) embeds of N texts."""
        embeds_ND = self.hidden(self.bag(indices, offsets))
        return self.output(self.dropout(embeds_ND)), embeds_ND


class SmallCnn(nn.Module):
    """Two convolutions with pooling and a hidden layer, for small (N, in_channels, H, W) images."""

    def __init__(
        self,
        num_outputs: int,
        channels: int = 16,
        hidden: int = 64,
        dropout: float = 0.25,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        _check(self, dropout, channels=channels, hidden=hidden, in_channels=in_channels)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * 16, hidden),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, num_outputs)

    def forward(self, images: torch.Tensor) -> Pair:
        """Gives (N, C) logits and (N, hidden) embeds."""
        embeds_ND = self.body(images)
        return self.output(self.dropout(embeds_ND)), embeds_ND


def _check(module: nn.Module, dropout: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(
                f"{type(module).__name__} got {name}={size}, expected 1 or more; correct it in "
                "model.module"
            )
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(
            f"{type(module).__name__} got dropout={dropout}, expected a share from 0 to below 1; "
            "correct it in model.module"
        )
