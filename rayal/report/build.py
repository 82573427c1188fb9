"""From a ledger and a run's files to the page: the only reader of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.columns import is_vector, vectors
from rayal.ledger import Ledger
from rayal.report.page import render
from rayal.report.summary import seconds_of, summary
from rayal.report.view import Curve, PickView, RoundView, RunView, SpendView
from rayal.rundir import RunDir
from rayal.storage import write_text
from rayal.types import PICK_COLUMNS

NUM_PICKS = 12  # shown a round
_PREVIEW_CHARS = 80


def write_report(
    ledger: Ledger, run_dir: RunDir, curves: Mapping[str, Curve] | None = None
) -> Path:
    """Writes RUN_DIR/report.html and gives its path; `curves` are runs to compare with, by name."""
    path = run_dir.path / "report.html"
    write_text(path, render(view_of(ledger, run_dir, curves or {})))
    return path


def view_of(ledger: Ledger, run_dir: RunDir, curves: Mapping[str, Curve]) -> RunView:
    """Gives what the page shows of a run."""
    run, stands = ledger.run(), summary(ledger)
    metric = stands["metric"] or {"name": "metric", "higher_is_better": True}
    labels = {one.event.sample_id: str(one.event.value) for one in ledger.labels()}
    classes = [str(name) for name in run.config.get("classes") or ()]
    rounds = tuple(_round(ledger, run_dir, one, labels, classes) for one in stands["rounds"])
    spend = stands["spend"]
    return RunView(
        title=run_dir.path.name,
        run_name=run_dir.path.name,
        state=stands["state"],
        strategy=_strategy(run.config),
        num_pool_rows=run.config["pool_rows"],
        metric=metric["name"],
        higher_is_better=metric["higher_is_better"],
        config="\n".join(_lines(run.config)),
        rounds=rounds,
        spend=SpendView(spend["labels"], spend["amount_minor"], spend["currency"]),
        curves=curves,
        waiting_for=stands["waiting_for"],
        seed=run.config.get("seed"),
    )


def _round(
    ledger: Ledger,
    run_dir: RunDir,
    stands: Mapping[str, Any],
    labels: Mapping[int, str],
    classes: list[str],
) -> RoundView:
    t = stands["round"]
    selected = ledger.event(t, "selected")
    assert selected is not None  # a tested round was selected
    rows = run_dir.read(selected.result)
    ids = rows.column("sample_id").to_pylist()
    counts = selected.notes.get("tallies", {}).get("class_counts", ())
    names = classes if len(classes) == len(counts) else [str(i) for i in range(len(counts))]
    predicted = dict(zip(names, counts, strict=True))
    picked = Counter(labels[i] for i in ids if i in labels) if classes else Counter()
    shown = np.unique(np.linspace(0, len(ids) - 1, NUM_PICKS).astype(int)).tolist() if ids else []
    return RoundView(
        t,
        stands["num_labels"],
        stands["test_metric"],
        seconds_of(ledger, t),
        _shares(predicted),
        _shares(picked),
        tuple(_pick(rows.slice(i, 1), labels) for i in shown),
    )


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: counts[name] / total for name in sorted(counts)} if total else {}


def _pick(row: pa.Table, labels: Mapping[int, str]) -> PickView:
    values = {name: row.column(name)[0].as_py() for name in ("sample_id", "score", "reason")}
    own = ("sample_id", *PICK_COLUMNS)
    texts = [_preview(row, name) for name in row.schema.names if name not in own]
    return PickView(
        values["sample_id"],
        values["score"],
        values["reason"],
        labels.get(values["sample_id"], ""),
        "; ".join(texts)[:_PREVIEW_CHARS],
    )


def _preview(row: pa.Table, name: str) -> str:
    if is_vector(row.schema.field(name)):
        vector = vectors(row, name)[0]
        some = ", ".join(f"{value:.3g}" for value in vector[:4])
        return f"{name} [{some}{', ...' if len(vector) > 4 else ''}]"
    value = row.column(name)[0].as_py()
    return f"{name} ({len(value)} bytes)" if isinstance(value, bytes) else str(value)


def _strategy(config: Mapping[str, Any]) -> str:
    parts = config.get("strategy") or {}
    words = []
    for role in ("scorer", "selector"):
        target = (parts.get(role) or {}).get("_target_")
        if target:
            words.append(target.rsplit(".", 1)[-1])
    return " + ".join(words)


def _lines(node: Any, prefix: str = "") -> list[str]:
    if isinstance(node, Mapping):
        return [line for key, value in node.items() for line in _lines(value, f"{prefix}.{key}")]
    return [f"{prefix.lstrip('.')}: {node}"]
