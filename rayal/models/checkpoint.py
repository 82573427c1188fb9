"""Checkpoints: a folder with `model.json` and one `member-K.pt` a member.

The weights are state dicts, read with `weights_only=True`: a checkpoint can run no code.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rayal.errors import ConfigError, RayalError
from rayal.models.model import Model, split_outputs
from rayal.models.transform import num_inputs
from rayal.storage import folder_here, named
from rayal.types import Kind, Vocabulary

FORMAT = 1


@dataclass(frozen=True)
class Description:
    """What `model.json` says of a checkpoint."""

    kind: Kind
    classes: tuple[str | int, ...]
    num_outputs: int
    num_inputs: int
    num_features: int  # width of embeds, 0 where the module gives none
    architecture: str
    num_members: int = 1
    target_mean: float = 0.0  # a regression's outputs are (target - mean) / std
    target_std: float = 1.0
    format: int = FORMAT


def describe(
    members: Sequence[nn.Module],
    arguments: tuple[torch.Tensor, ...],
    num_rows: int,
    vocabulary: Vocabulary,
    target_mean: float = 0.0,
    target_std: float = 1.0,
) -> Description:
    """Gives what `model.json` will say of members on the CPU, by a look at some rows."""
    members[0].eval()
    with torch.no_grad():
        found = members[0](*arguments)
    _, embeds = split_outputs(found, num_rows, vocabulary.num_outputs, vocabulary.classes)
    return Description(
        kind=vocabulary.kind,
        classes=vocabulary.classes,
        num_outputs=vocabulary.num_outputs,
        num_inputs=num_inputs(arguments),
        num_features=0 if embeds is None else embeds.shape[1],
        architecture=describe_architecture(members[0]),
        num_members=len(members),
        target_mean=target_mean,
        target_std=target_std,
    )


def describe_architecture(module: nn.Module) -> str:
    """Gives the module's class, layers, and the name, shape and type of all it keeps."""
    cls = type(module)
    tensors = [
        f"{name} {_shape(tensor)} {tensor.dtype}"
        for name, tensor in sorted(module.state_dict().items())
    ]
    return "\n".join([f"{cls.__module__}.{cls.__qualname__}", repr(module), *tensors])


def model_id(description: Description, members: Sequence[nn.Module]) -> str:
    """Gives the hash of the description and of all tensors' bytes in the order of their names."""
    digest = hashlib.sha256(json.dumps(asdict(description), sort_keys=True).encode())
    for member in members:
        for name, tensor in sorted(member.state_dict().items()):
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"\x1e{name}\x1f{_shape(tensor)}\x1f{tensor.dtype}\x1f".encode())
            digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def save(folder: Path, description: Description, members: Sequence[nn.Module]) -> None:
    """Writes a checkpoint into a new folder; the caller makes it atomic (`storage.atomic_path`)."""
    folder.mkdir(parents=True)
    for index, member in enumerate(members):
        state = {name: tensor.detach().cpu() for name, tensor in member.state_dict().items()}
        # By a file of Python's, whose error says that a disk is full; torch's own does not.
        with (folder / f"member-{index}.pt").open("wb") as file:
            torch.save(state, file)
    text = json.dumps(asdict(description), indent=1, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def read_description(folder: str | Path) -> Description:
    """Gives what `model.json` says.

    Raises:
        RayalError: there is no readable checkpoint in the folder, or it has another format.
    """
    path = folder_here(folder) / "model.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise RayalError(
                f"checkpoint {folder} has format {fields['format']}, this rayal reads {FORMAT}; "
                "use the version of rayal that wrote it, or train anew"
            )
        return Description(**{**fields, "classes": tuple(fields["classes"])})
    except FileNotFoundError:
        raise RayalError(
            f"there is no checkpoint in {named(path.parent)} (no model.json); name a folder that a "
            "trainer left"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RayalError(
            f"{path} is not a description of a checkpoint ({error}); train it again"
        ) from error


def load(model: Model, folder: str | Path) -> tuple[Description, list[nn.Module]]:
    """Gives the description and the members on the CPU, their weights read from the folder.

    Raises:
        ConfigError: the checkpoint is of another kind or architecture than the model.
        RayalError: it cannot be read.
    """
    description = read_description(folder)
    if description.kind != model.kind:
        raise ConfigError(
            f"checkpoint {folder} is for kind '{description.kind}', the configured model for "
            f"'{model.kind}'; set model.kind, or start from another checkpoint"
        )
    return description, [
        _load_member(model, description, Path(folder) / f"member-{index}.pt")
        for index in range(description.num_members)
    ]


def _load_member(model: Model, description: Description, path: Path) -> nn.Module:
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RayalError(
            f"{path} is missing ({description.num_members} members were expected); train it again"
        ) from None
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise RayalError(
            f"{path} is damaged or holds more than tensors ({_first_line(error)}); train it again"
        ) from error
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise RayalError(f"{path} is damaged or holds more than tensors; train it again")
    module = model.build(description.num_outputs, description.num_inputs)
    check_state(module, state, path)
    module.load_state_dict(state)
    return module


def check_state(module: nn.Module, state: Mapping[str, Any], where: Path) -> None:
    """Checks that a state dict fits a module.

    Raises:
        ConfigError: it does not; the message names the first tensor, by name, that differs.
    """
    expected = module.state_dict()
    for name in sorted({*expected, *state}):
        found, wanted = (
            _shape(tensors[name]) if name in tensors else "nothing" for tensors in (state, expected)
        )
        if found != wanted:
            raise ConfigError(
                f"{where} is of another architecture: '{name}' is {found} there and {wanted} in "
                f"the configured {type(module).__name__}; configure the model that wrote it, or "
                "start without it"
            )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
