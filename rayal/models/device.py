"""Whether the device that a configuration names is there."""

from __future__ import annotations

import torch

from rayal.errors import ConfigError
from rayal.models.explain import cause_of


def check_device(device: str | torch.device, asked: str, remedy: str) -> None:
    """Refuses a device that this process cannot compute on, in float64 too, as scorers do.

    It is asked where the work runs: a driver without a GPU may have workers with one.

    Raises:
        ConfigError: it cannot; the message says what asked for the device.
    """
    try:
        torch.zeros(1, device=device).double().cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"{asked}, but this process cannot compute on '{device}' ({cause_of(error)}); {remedy}"
        ) from error
