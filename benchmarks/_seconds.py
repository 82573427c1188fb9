"""A table of seconds: what every strategy of conf/strategy takes through `rayal.select`.

The call is a user's: columns in memory, ids and labels read, rows scored, the batch as a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from _embeddings import softmax_head
from _table import Line, TooLong, cpu_seconds, limit

import rayal
from rayal.cli.config import conf_dir
from rayal.errors import ConfigError, RayalError

_NUM_CLASSES, _WIDTH, _NUM_LABELLED, _NUM_DRAWS = 10, 64, 1_000, 5
# Kinds of batches that are an argument of a strategy, not a file of their own.
_ARGUMENTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("k_center", "precision: float", {"precision": "float"}),
    ("k_center", "1 % outliers", {"outliers": 0.01}),
    ("badge", "multi-label", {"kind": "multilabel"}),
    (
        "margin_balanced",
        "costs, not groups",
        {
            "limits.group": None,
            "limits.balance": False,
            "limits.cost": "cost",
            "limits.max_cost": 2_000,
        },
    ),
)


def strategies(quick: bool) -> Iterator[Line]:
    """Gives a line a strategy: N = 100,000, ten classes, 1,000 labelled rows."""
    num_rows, budget = (20_000, 500) if quick else (100_000, 1_000)
    outputs, labelled = _columns(num_rows)
    rayal.select(_of_kind(outputs, "class"), strategy="margin", budget=1)  # what is once a process
    names = sorted(path.stem for path in (conf_dir() / "strategy").glob("*.yaml"))
    cases: list[tuple[str, str, Mapping[str, Any]]] = [(name, "", {}) for name in names]
    for name, what, options in (*cases, *_ARGUMENTS):
        options = {"strategy": name, "budget": budget, "labelled": labelled, **options}
        called = f"{name}, {what}" if what else name
        line = Line(called, "softmax head", num_rows, _WIDTH, budget)
        kinds = [options["kind"]] if "kind" in options else ["class", "number"]
        yield _measured(line, outputs, kinds, options, 5.0 if quick else 300.0)


def _measured(
    line: Line,
    outputs: Mapping[str, np.ndarray],
    kinds: list[str],
    options: dict[str, Any],
    limit_s: float,
) -> Line:
    """Gives the line with seconds, for the first kind of labels that the strategy is for."""
    for kind in kinds:
        columns = _of_kind(outputs, kind)
        try:
            with limit(limit_s):
                batch, seconds = cpu_seconds(
                    lambda c=columns, k=kind: rayal.select(c, **{**options, "kind": k})
                )
        except ConfigError as error:
            note = str(error)
            if "for labels of kind" in note and kind != kinds[-1]:
                continue
        except (RayalError, TooLong) as error:
            note = str(error)
        else:
            note = batch.schema.metadata[b"rayal.note"].decode()
            line = Line(
                line.what,
                kind,
                line.num_rows,
                line.width,
                batch.num_rows,
                seconds,
                note=f"{batch.num_rows / seconds:,.0f} picks/s" + (f"; {note}" if note else ""),
            )
            return line
    return Line(line.what, kind, line.num_rows, line.width, line.budget, note=f"cannot: {note}")


def _columns(num_rows: int) -> tuple[dict[str, np.ndarray], pa.Table]:
    """Gives every column that a strategy may ask for, and the labelled rows."""
    rng = np.random.default_rng(0)
    probs_NC, embeds_ND = softmax_head(num_rows, _NUM_CLASSES, _WIDTH, conf=3.0)
    noise_NKC = rng.standard_normal((num_rows, _NUM_DRAWS, _NUM_CLASSES), np.float32)
    draws_NKC = np.exp(np.log(probs_NC + 1e-6)[:, None] + 0.3 * noise_NKC).astype(np.float64)
    values_N = embeds_ND[:, :4].sum(axis=1, dtype=np.float64)
    outputs = {
        "sample_id": np.arange(num_rows),
        "embedding": embeds_ND,
        "probs": probs_NC,
        "draws": draws_NKC / draws_NKC.sum(axis=2, keepdims=True),
        "preds": values_N[:, None],
        "grads": np.tanh(embeds_ND @ rng.standard_normal((_WIDTH, 128), np.float32)),
        "cost": rng.integers(1, 5, num_rows),
    }
    known = rng.permutation(num_rows)[:_NUM_LABELLED]
    labels = probs_NC[known].argmax(axis=1)
    return outputs, pa.table({"sample_id": known, "label": labels})


def _of_kind(outputs: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Gives the columns as a model for labels of this kind gives them."""
    if kind != "number":
        return dict(outputs)
    preds_N1 = outputs["preds"]
    noise_NK = np.random.default_rng(1).standard_normal((len(preds_N1), _NUM_DRAWS))
    return {**outputs, "draws": (preds_N1 + 0.1 * noise_NK)[:, :, None]}
