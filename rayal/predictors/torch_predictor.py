"""A checkpoint of any torch module, run over rows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import pyarrow as pa
import torch
from torch import nn

from rayal.errors import ConfigError, LedgerError, NeedsError
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe, load, model_id
from rayal.models.device import check_device
from rayal.models.explain import explained
from rayal.models.head import LinearHead, products_are_float32
from rayal.models.model import Model, split_outputs
from rayal.models.transform import Undecodable, as_arguments, num_inputs
from rayal.predictors.dropout_draws import FixedDropout, by_submodules, fix_dropout
from rayal.predictors.gradients import GradientSketch
from rayal.probabilities import softmax
from rayal.types import OUTPUTS, Checkpoint, Needs, Outputs, Vocabulary

Arguments: TypeAlias = tuple[torch.Tensor, ...]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Encoded:
    """N rows as a module's arguments; None where not one of them could be decoded."""

    arguments: Arguments | None
    rejected: torch.Tensor | None  # (N,) bool, None: no row
    reasons: Mapping[int, str] = field(default_factory=dict)  # why, by position
    arrived: torch.cuda.Event | None = None  # on CUDA: when the arguments are on the device


class TorchPredictor:
    """Gives probs, embeds, draws, preds and grads of the members of a checkpoint.

    probs and preds are the mean over members, embeds are the first member's. Draws are the members
    of an ensemble, or `num_draws` passes with fixed dropout masks, the same for all rows of a
    round; preds are then the mean over draws, probs those of the pass without dropout. Dropout that
    a module applies as a function, not as a layer, is not seen: nor is the `dropout` argument of
    nn.MultiheadAttention or of nn.LSTM. Outputs are float32; a regression's preds and draws are
    float64, as float32 cannot hold small differences of large targets. K members or draws are K
    forward passes.

    grads are `sketch_width` numbers a row: the gradient of a regression's output by the weights of
    the first member's linear layers, randomly projected by signs of the round (`GradientSketch`).
    They cost one more forward and a backward pass, without dropout.

    `dtype` other than float32 runs the modules under autocast. `num_threads` is for the worker.

    Raises:
        NeedsError: an output is asked for that the checkpoint cannot give.
        ConfigError: the checkpoint is not of this model, the module does not give what its kind
            asks for, its forward uses no dropout to draw from, or the device is not there.
        LedgerError: the checkpoint is not the one that was committed.
    """

    def __init__(
        self,
        model: Model,
        batch_rows: int = 4096,
        num_threads: int = 1,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        num_draws: int = 0,
        sketch_width: int = 512,
    ) -> None:
        if batch_rows < 1 or num_threads < 1 or num_draws < 0 or num_draws == 1:
            raise ConfigError(
                f"predictor got batch_rows={batch_rows}, num_threads={num_threads}, "
                f"num_draws={num_draws}; expected 1 or more, 1 or more, and 0 or at least 2"
            )
        if sketch_width < 1:
            raise ConfigError(
                f"predictor.sketch_width is {sketch_width}, expected at least 1; leave it out for "
                "the default"
            )
        if dtype not in _DTYPES:
            raise ConfigError(f"predictor.dtype is '{dtype}', expected one of {', '.join(_DTYPES)}")
        if device != "auto":
            with explained(f"predictor.device is '{device}'", "set it to auto, cpu or cuda"):
                torch.device(device)  # that it is there is asked in the worker
        self.model, self.num_draws, self._dtype = model, num_draws, _DTYPES[dtype]
        self.sketch_width = sketch_width
        self.batch_rows, self.num_threads, self._device_name = batch_rows, num_threads, device
        self._device: torch.device | None = None
        self._members: list[nn.Module] = []
        self._dropouts: list[FixedDropout] = []
        self._keys: Keys | None = None
        self._sketch: GradientSketch | None = None  # made when it is first asked for
        self._copies: torch.cuda.Stream | None = None  # on CUDA, from `load` on
        self._description: Description | None = None

    @property
    def device(self) -> torch.device:
        """Where the forward pass runs; `auto` is CUDA where there is one."""
        if self._device is not None:
            return self._device
        if self._device_name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self._device_name)

    def columns(self) -> tuple[str, ...]:
        """The payload columns that the transform reads."""
        return tuple(self.model.transform.columns)

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        """Reads the members from a local folder; dropout masks are those of the keys' round."""
        description, members = load(self.model, path)
        found = model_id(description, members)
        if checkpoint.model_id and found != checkpoint.model_id:
            raise LedgerError(
                f"checkpoint {path} is model {found[:12]}, the ledger committed "
                f"{checkpoint.model_id[:12]}; restore that folder from a copy, or start a new "
                "run_dir"
            )
        self._take(description, members, keys)

    def _take(self, description: Description, members: list[nn.Module], keys: Keys) -> None:
        self._description, self._dropouts = description, []
        self._keys, self._sketch = keys, None
        self._device = self.device  # settled here, in the worker: the driver may have no GPU
        check_device(
            self._device,
            f"predictor.device is '{self._device_name}'",
            "set it to auto or cpu, or give each worker a GPU (engine.num_gpus)",
        )
        if self.device.type == "cuda":
            self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        if self.num_draws:
            if description.num_members > 1:
                raise ConfigError(
                    f"predictor.num_draws is {self.num_draws}, the ensemble has "
                    f"{description.num_members} members, expected one source of draws; set "
                    "predictor.num_draws=0"
                )
            self._dropouts = fix_dropout(members[0], keys)
        self._members = [member.eval().to(self.device) for member in members]

    def head(self, path: str) -> LinearHead | None:
        """Gives the head in a checkpoint's folder where the whole model is one: a single member, no
        draws, float32 products; None where it is not."""
        if self._dtype is not torch.float32 or self.num_draws or not products_are_float32():
            return None
        description, members = load(self.model, path)
        if description.kind != "class" or len(members) > 1:
            return None
        return LinearHead.of(members[0])

    def inputs(self, encoded: Encoded) -> torch.Tensor | None:
        """Gives (N, D) float32 on the CPU, what a head multiplies; None: no row could be read."""
        if encoded.arguments is None:
            return None
        return encoded.arguments[0].flatten(1).cpu()

    def rehearse(
        self,
        rows: pa.RecordBatch,
        needs: Needs,
        vocabulary: Vocabulary,
        num_members: int,
        keys: Keys,
    ) -> None:
        """Asks an untrained model of some rows what a trained one will be asked of the pool, and
        forgets it. An ensemble of any size is rehearsed with two members.

        Rows that cannot be decoded are passed over; without any other nothing can be rehearsed.

        Raises:
            ConfigError: the model cannot be built, or does not run on such rows.
            NeedsError: it cannot give an output that is asked for.
        """
        self.model.check(vocabulary)
        what, remedy = f"does not run on {len(rows)} rows of the pool", "correct it, or configure"
        on_cpu = copy.copy(self)
        on_cpu._copies = None
        with explained(f"model.transform {what}", f"{remedy} another model.transform"):
            arguments = on_cpu.encode(rows).arguments
        if arguments is None:
            return
        width = num_inputs(arguments)
        members = [
            self.model.build_member(vocabulary, width, member, keys)
            for member in range(min(num_members, 2))
        ]
        one = copy.copy(self)  # what it is given stays its own
        cuda = [self.device] if self.device.type == "cuda" and torch.cuda.is_available() else []
        with (
            torch.random.fork_rng(devices=cuda),
            explained(f"model.module {what}", f"{remedy} another model.module"),
        ):
            described = describe(members, arguments, len(rows), vocabulary)
            one._take(replace(described, num_members=num_members), members, keys)
            one.predict(torch.arange(len(rows)), Encoded(arguments, None), needs)

    def encode(self, rows: pa.RecordBatch) -> Encoded:
        """Gives the module's arguments; rows that cannot be decoded are marked, and another row
        stands in for each, so that the shape of the batch stays."""
        transform = getattr(self.model.transform, "consume", self.model.transform)
        bad: dict[int, str] = {}
        stand_ins = rows
        while True:
            try:
                arguments = as_arguments(transform(stand_ins))
                break
            except Undecodable as error:
                if not set(error.positions) - bad.keys():
                    raise  # the stand-in itself is refused: the transform contradicts itself
                bad = error.by_position | bad
            if len(bad) >= len(rows):
                return Encoded(None, torch.ones(len(rows), dtype=torch.bool), bad)
            good = next(position for position in range(len(rows)) if position not in bad)
            stand_ins = rows.take(
                pa.array([good if at in bad else at for at in range(len(rows))], pa.int64())
            )
        arguments, arrived = self._send(arguments)
        if not bad:
            return Encoded(arguments, None, arrived=arrived)
        rejected = torch.zeros(len(rows), dtype=torch.bool)
        rejected[sorted(bad)] = True
        return Encoded(arguments, rejected, bad, arrived)

    def _send(self, arguments: Arguments) -> tuple[Arguments, torch.cuda.Event | None]:
        """Starts the copy to a GPU on a stream of its own, beside the forward pass before it."""
        if self._copies is None:
            return arguments, None
        with torch.cuda.stream(self._copies):
            sent = tuple(
                argument.pin_memory().to(self.device, non_blocking=True) for argument in arguments
            )
            return sent, self._copies.record_event()

    def predict(self, ids: torch.Tensor, encoded: Encoded, needs: Needs) -> Outputs:
        """Gives the outputs among `needs`, on the device: probs (N, C), embeds (N, D), draws
        (N, K, C) or (N, K, T), preds (N, T), grads (N, P)."""
        wanted = set(needs) & set(OUTPUTS)
        if wanted:
            self._check(wanted)
        else:  # nothing was computed, so nothing has to move: a driver may have no such device
            return Outputs(ids, {}, encoded.rejected, encoded.reasons)
        ids = ids.to(self.device)
        rejected = None if encoded.rejected is None else encoded.rejected.to(self.device)
        if encoded.arguments is None:
            return Outputs(ids, self._blank(len(ids), wanted), rejected, encoded.reasons)
        arguments = tuple(argument.to(self.device) for argument in encoded.arguments)
        if encoded.arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(encoded.arrived)
            for argument in arguments:
                argument.record_stream(stream)  # its memory is the copy stream's to give away
        arrays: dict[str, torch.Tensor] = {}
        if said := wanted - {"grads"}:
            with torch.inference_mode():
                arrays |= self._forward(arguments, len(ids), said)
        if "grads" in wanted:
            arrays["grads"] = self._gradients(arguments, len(ids))
        return Outputs(ids, arrays, rejected, encoded.reasons)

    def _forward(
        self, arguments: Arguments, num_rows: int, wanted: set[str]
    ) -> dict[str, torch.Tensor]:
        arrays: dict[str, torch.Tensor] = {}
        plain_KNT: list[torch.Tensor] = []
        draws_KNT: list[torch.Tensor] = []
        if self._dropouts and wanted & {"draws", "preds"}:
            draws_KNT = self._dropout_draws(arguments, num_rows)
        if not self._dropouts or wanted & {"probs", "embeds"}:
            for member in self._members[: 1 if wanted <= {"embeds"} else None]:
                answers_NT, embeds_ND = self._run(member, arguments, num_rows)
                if "embeds" in wanted and not plain_KNT:
                    if embeds_ND is None:
                        raise _cannot("embeds", "its forward gives logits alone")
                    arrays["embeds"] = embeds_ND.float()
                plain_KNT.append(answers_NT)
        if "probs" in wanted:
            arrays["probs"] = _mean(plain_KNT)
        if "preds" in wanted:
            arrays["preds"] = _mean(draws_KNT or plain_KNT)
        if "draws" in wanted:
            arrays["draws"] = torch.stack(draws_KNT or plain_KNT, dim=1)
        return arrays

    def _gradients(self, arguments: Arguments, num_rows: int) -> torch.Tensor:
        member = self._members[0]
        if self._sketch is None:
            assert self._keys is not None
            self._sketch = GradientSketch(member, self.sketch_width, self._keys)
        return self._sketch.of(lambda: self._logits(member, arguments, num_rows)[0], num_rows)

    def _dropout_draws(self, arguments: Arguments, num_rows: int) -> list[torch.Tensor]:
        answers_KNT = []
        with by_submodules():
            for draw in range(self.num_draws):
                self._begin(draw)
                answers_KNT.append(self._run(self._members[0], arguments, num_rows)[0])
        if not any(dropout.num_uses for dropout in self._dropouts):
            raise ConfigError(
                f"predictor.num_draws is {self.num_draws}, but the forward of "
                f"{type(self._members[0]).__name__} calls none of its {len(self._dropouts)} "
                f"dropout layers (first '{self._dropouts[0].layer}'), so that all draws are the "
                "same; let it call them, or train an ensemble (trainer.num_members) and set "
                "predictor.num_draws=0"
            )
        self._begin(None)
        return answers_KNT

    def _begin(self, draw: int | None) -> None:
        for dropout in self._dropouts:
            dropout.begin(draw)

    def _run(
        self, member: nn.Module, arguments: Arguments, num_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gives probabilities (N, C) float32 or predictions (N, T) float64, and embeds."""
        description = self._loaded()
        logits, embeds_ND = self._logits(member, arguments, num_rows)
        logits = logits.float()
        if description.kind == "class":
            return softmax(logits), embeds_ND
        if description.kind == "multilabel":
            return logits.sigmoid(), embeds_ND
        return logits.double() * description.target_std + description.target_mean, embeds_ND

    def _logits(
        self, member: nn.Module, arguments: Arguments, num_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gives what the module gives, (N, C) or (N, T), and embeds."""
        autocast = (
            contextlib.nullcontext()
            if self._dtype is torch.float32
            else torch.autocast(self.device.type, self._dtype)
        )
        with autocast:
            found = member(*arguments)
        description = self._loaded()
        return split_outputs(found, num_rows, description.num_outputs, description.classes)

    def _check(self, wanted: set[str]) -> None:
        kind = self._loaded().kind
        if "probs" in wanted and kind == "number":
            raise _cannot("probs", "it is a regression; ask for preds or draws")
        if "preds" in wanted and kind != "number":
            raise _cannot("preds", f"its kind is '{kind}'; ask for probs")
        if "grads" in wanted and kind != "number":
            raise _cannot(
                "grads",
                f"its kind is '{kind}', and they are those of a regression's one output; ask for "
                "embeds",
            )
        if "draws" in wanted and len(self._members) < 2 and not self._dropouts:
            raise _cannot(
                "draws",
                "it has one member and predictor.num_draws is 0; set trainer.num_members to 2 or "
                "more, or predictor.num_draws for dropout draws",
            )

    def _blank(self, num_rows: int, wanted: set[str]) -> dict[str, torch.Tensor]:
        """Gives zeros of the right shapes, for a batch in which every row is rejected."""
        described = self._loaded()
        num_draws = self.num_draws or len(self._members)
        answers = torch.float64 if described.kind == "number" else torch.float32
        shapes = {
            "probs": (described.num_outputs,),
            "preds": (described.num_outputs,),
            "draws": (num_draws, described.num_outputs),
            "embeds": (described.num_features,),
            "grads": (self.sketch_width,),
        }
        floats = ("embeds", "grads")
        dtypes = {name: torch.float32 if name in floats else answers for name in wanted}
        return {
            name: torch.zeros(num_rows, *shapes[name], dtype=dtypes[name], device=self.device)
            for name in wanted
        }

    def _loaded(self) -> Description:
        if self._description is None:
            raise NeedsError("the predictor has no checkpoint yet; call load before predict")
        return self._description


def _mean(answers_KNT: list[torch.Tensor]) -> torch.Tensor:
    return answers_KNT[0] if len(answers_KNT) == 1 else torch.stack(answers_KNT).mean(0)


def _cannot(output: str, why: str) -> NeedsError:
    return NeedsError(f"output '{output}' was asked for; the model cannot give it: {why}")
