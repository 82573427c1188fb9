"""Other people's selection on the same arrays, measured in an environment of its own.

`measure` saves the arrays of some cases in a temporary folder and has benchmarks/peers/run.py run
them there. Where the environment is missing (`make bench-peers` makes it), `why_not` says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _embeddings import Float32s, embeddings, softmax_head

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parent / ".peers" / "bin" / "python"
STAMP = HERE.parent / ".peers" / "installed"
NOT_MEASURED = "peers: not measured (make bench-peers)"

K_CENTER = (
    ("plain loop", "textbook"),
    ("plain loop", "torch"),
    ("scikit-activeml", "CoreSet"),
    ("small-text", "greedy_coreset"),
)
DELTA = 6.0  # in `mixture` most components are 2 to 7 across


@dataclass(frozen=True, eq=False)
class PeerCase:
    """One method of one peer on given arrays; benchmarks/peers/run.py lists the methods."""

    peer: str
    method: str
    data: str  # what the arrays are called in a table
    rows: Float32s  # (N, D) candidates, or embeds where there are probs
    budget: int
    labelled: Float32s | None = None  # (L, D)
    probs: Float32s | None = None  # (N, C)
    seed: int = 0
    delta: float = 0.0  # ProbCover's radius


class PeerLine(NamedTuple):
    """What a case took."""

    case: PeerCase
    version: str
    cpu_s: float  # NaN: see the error
    peak_mib: float
    picks: np.ndarray  # positions in the rows, in the order picked
    error: str


def why_not() -> str:
    """Gives why no peer can be measured here; empty where it can."""
    return "" if PYTHON.exists() and STAMP.exists() else NOT_MEASURED


def measure(cases: Sequence[PeerCase], limit_s: float = 1_800.0) -> Iterator[PeerLine]:
    """Gives a line a case as they end, one thread each; one that fails or takes longer says so.

    Nothing is measured where `why_not` says anything.
    """
    if why_not() or not cases:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(cases, folder)
        command = [str(PYTHON), str(HERE / "peers" / "run.py"), str(folder)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        running = subprocess.Popen(
            [*command, "--limit", str(limit_s)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert running.stdout is not None
        with running:
            for case, text in zip(cases, running.stdout, strict=False):
                line = json.loads(text)
                if "error" in line:
                    none = np.empty(0, np.int64)
                    yield PeerLine(case, line["version"], np.nan, np.nan, none, line["error"])
                    continue
                picks = np.load(folder / line["picks"])
                yield PeerLine(
                    case, line["version"], line["cpu_s"], line["peak_mib"], picks, error=""
                )


def save(cases: Sequence[PeerCase], folder: Path) -> None:
    """Leaves the arrays, each once, and cases.json in a folder."""
    names: dict[int, str] = {}

    def name_of(array: Float32s | None) -> str | None:
        if array is None:
            return None
        if id(array) not in names:
            names[id(array)] = f"array-{len(names)}.npy"
            np.save(folder / names[id(array)], np.ascontiguousarray(array, np.float32))
        return names[id(array)]

    listed = [
        {
            "peer": case.peer,
            "method": case.method,
            "data": case.data,
            "N": len(case.rows),
            "D": case.rows.shape[1],
            "C": 0 if case.probs is None else case.probs.shape[1],
            "B": case.budget,
            "rows": name_of(case.rows),
            "labelled": name_of(case.labelled),
            "probs": name_of(case.probs),
            "seed": case.seed,
            "delta": case.delta,
        }
        for case in cases
    ]
    (folder / "cases.json").write_text(json.dumps(listed))


def standard_cases(quick: bool = False) -> list[PeerCase]:
    """Gives the peers' rows of the table: k-center and cover on `mixture` and `sphere` with one
    labelled row, BADGE on a classifier of ten classes. `quick`: a tenth of the rows."""
    part, budget = (10, 50) if quick else (1, 500)
    cases = []
    for kind in ("mixture", "sphere"):
        rows = embeddings(kind, 50_000 // part + 1, 128)
        rows, labelled = rows[:-1], rows[-1:]
        one = {"data": kind, "rows": rows, "labelled": labelled, "budget": budget}
        cases += [PeerCase(peer, method, **one) for peer, method in K_CENTER]
        cases.append(PeerCase("small-text", "lightweight_coreset", **one))
        if kind == "mixture":
            few = {**one, "rows": rows[: 10_000 // part]}  # it keeps all distances: (N, N)
            cases.append(PeerCase("scikit-activeml", "TypiClust", **one))
            cases.append(PeerCase("scikit-activeml", "ProbCover", **few, delta=DELTA))
    probs, embeds = softmax_head(20_000 // part, 10, 128)
    for peer, method in (("scikit-activeml", "Badge"), ("small-text", "BADGE")):
        cases.append(PeerCase(peer, method, "softmax head", embeds, budget, probs=probs))
    return cases
