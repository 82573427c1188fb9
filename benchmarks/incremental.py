"""Rounds that pass by what cannot have risen into the best M, beside rounds that score all rows.

python benchmarks/incremental.py            # language_id: 10 rounds of a head on frozen features
python benchmarks/incremental.py --quick    # 4 rounds, heads that are trained anew alone

A backbone is trained for two rounds (the n-gram model of the recipe), embeds the pool as int8, and
`rayal run` trains a head on it, margin, 3,000 labels a round. Then each round is scored twice from
its checkpoint, in this process: all rows, and by `rescoring`. Seconds are CPU seconds of this
process; bytes are those of the features that are looked at, with what is remembered read twice and
written once. Recall is the share of the best M of the full pass that the other has.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rayal.cli.config import build, composed, conf_dir
from rayal.cli.source import Source
from rayal.engine.local import LocalEngine
from rayal.engine.rescoring import Grounds, Rescoring, Said, score_again
from rayal.engine.scoring import Pass, Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.keys import Keys
from rayal.ledger import Ledger
from rayal.loop import Loop
from rayal.models.checkpoint import read_description
from rayal.rundir import RunDir, sample_ids
from rayal.types import Checkpoint

RAYAL = [sys.executable, "-m", "rayal.cli.main"]
_ROW_BYTES = 14  # of what is remembered
_HEAD = ("model=linear", "model.transform.column=embedding")
_WARM = ("trainer.warm_start=true", "trainer.learning_rate=0.002")
_MLP = ("model=mlp", "model.module.hidden=[64]", "model.transform.column=embedding")


@dataclass(frozen=True)
class Case:
    """A way to train a head, and how its rounds are scored again."""

    name: str
    words: tuple[str, ...]
    rescoring: Rescoring


CASES = (
    Case("linear, trained anew", _HEAD, Rescoring()),
    Case("linear, warm start, rate .002", (*_HEAD, *_WARM), Rescoring()),
    Case("MLP of 64, warm start, rate .002", (*_MLP, *_WARM), Rescoring(max_missed_share=0.01)),
)


@dataclass(frozen=True)
class Round:
    """One round, scored twice."""

    t: int
    scored_share: float
    full_cpu_s: float
    again_cpu_s: float
    full_bytes: int
    again_bytes: int
    recall: float
    said: Said


def main() -> None:
    """Prints a line a round, and the sum of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 rounds of one case")
    parser.add_argument("--rounds", type=int, help="rounds that are scored twice")
    parser.add_argument("--width", type=int, default=32, help="of the features")
    parser.add_argument("--folder", help="keeps backbone, features and runs here, to go on")
    words = parser.parse_args()
    rounds = words.rounds or (4 if words.quick else 10)
    with tempfile.TemporaryDirectory(prefix="rayal-bench-") as scratch:
        folder = Path(words.folder or scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        features = embedded(folder, words.width)
        for case in CASES[: 1 if words.quick else None]:
            show(case, words.width, list(measured(case, folder, features, rounds)))


def embedded(folder: Path, width: int) -> Path:
    """Gives the folder of the features, made where they are not there."""
    model = f"model.module.width={width}"
    _rayal("run", "experiment=language_id", model, "num_rounds=2", f"run_dir={folder / 'base'}")
    place = folder / "features"
    checkpoint = f"checkpoint={folder / 'base' / 'checkpoints' / 'r0001'}"
    _rayal("embed", "experiment=language_id", model, checkpoint, f"features={place}", "dtype=int8")
    return place


def measured(case: Case, folder: Path, features: Path, rounds: int) -> Iterator[Round]:
    """Trains the heads, and scores each round twice."""
    run_dir = folder / case.name.replace(" ", "-").replace(",", "")
    words = ["experiment=language_id", *case.words, f"pool.features={features}"]
    words += [f"run_dir={run_dir}", f"num_rounds={rounds + 1}"]
    _rayal("run", *words)
    plain, _ = composed(words, Source(str(conf_dir())))
    loop: Loop = build(plain)
    engine = LocalEngine()
    engine.open(loop.pool, loop.predictor, None)
    held = RunDir(str(run_dir))
    with Ledger.open(held.ledger_url, held.read_id(), writer=False) as ledger:
        batches = [event.result for event in ledger.events(step="selected")]
        models = [event.result for event in ledger.events(step="trained")]
    ids = [sample_ids(held.read(batch)) for batch in batches]
    kept = tempfile.TemporaryDirectory(prefix="rayal-bench-", dir=folder)
    with kept as scratch:
        place = Path(scratch)
        grounds = Grounds(
            loop.predictor, loop.pool, place / "kept", len(loop.vocabulary.classes), loop.budget
        )
        for t in range(1, rounds + 1):
            taken = _taken(np.sort(np.concatenate(ids[:t])), place / f"taken-{t}.arrow")
            asked = _asked(loop, t, models[t - 1], held, taken, place)
            full, full_s = _cpu_s(lambda one=asked[0]: (engine.score(one), None))
            again, again_s = _cpu_s(
                lambda one=asked[1]: score_again(case.rescoring, engine, one, grounds)
            )
            yield _round(t, loop, full[0], full_s, *again, again_s)


def _taken(ids: np.ndarray, path: Path) -> Path:
    # Which label a row has decides nothing here.
    write_taken(path, Taken(ids, np.full(len(ids), np.nan), np.ones(len(ids), bool)))
    return path


def _asked(
    loop: Loop, t: int, model: Checkpoint, held: RunDir, taken: Path, place: Path
) -> tuple[Scoring, Scoring]:
    path = str(held.inside(model.path))
    assert read_description(path).kind == "class"
    folders = [place / f"{name}-{t}" for name in ("full", "again")]
    for folder in folders:
        folder.mkdir()
    strategy = loop.strategy
    one = Scoring(
        Keys(loop.seed, t), strategy.scorer, strategy.selector.needs, strategy.keep(loop.budget),
        model, path, str(taken), str(folders[0]), f"full-{t}",
    )  # fmt: skip
    return one, replace(one, folder=str(folders[1]), pass_id=f"again-{t}")


def _round(
    t: int, loop: Loop, full: Pass, full_s: float, again: Pass, said: Said | None, again_s: float
) -> Round:
    assert said is not None
    best, found = ({*_ids(one)} for one in (full, again))
    num_rows = full.tallies.num_rows
    num_scored = num_rows - said.num_passed + (num_rows if said.fell_back else 0)
    row_bytes = loop.pool.features.form.row_bytes if loop.pool.features else 0
    remembered = 0 if t == 1 else 2 * _ROW_BYTES * num_rows
    again_bytes = num_scored * row_bytes + remembered + _ROW_BYTES * num_rows
    if full.tallies != again.tallies and said.how == "rigorous":
        raise AssertionError(f"round {t}: the tallies of the two passes differ")
    recall = len(best & found) / len(best)
    share = (num_rows - said.num_passed) / num_rows
    return Round(t, share, full_s, again_s, num_rows * row_bytes, again_bytes, recall, said)


def _ids(done: Pass) -> list[int]:
    return [one for part in done.candidates.each(_ids_of, 0) for one in part]


def _ids_of(part: Any, step: int) -> list[int]:
    return list(part.ids.tolist())


def show(case: Case, width: int, rounds: list[Round]) -> None:
    """Prints the table of a case."""
    print(f"\n{case.name}; features of {width} int8")
    print(
        f"{'round':>5} {'scored again':>13} {'CPU s all, again':>18} {'MB all, again':>15} recall"
    )
    for one in rounds:
        missed = "" if one.said.missed_share is None else f"  audit {one.said.missed_share:.4f}"
        missed += "  all rows after all" if one.said.fell_back else ""
        print(
            f"{one.t:>5} {one.scored_share:>12.1%} {one.full_cpu_s:>9.2f} {one.again_cpu_s:>8.2f} "
            f"{one.full_bytes / 1e6:>8.0f} {one.again_bytes / 1e6:>6.0f} {one.recall:>6.4f}{missed}"
        )
    later = rounds[1:]
    full_s, again_s = (
        sum(s) for s in zip(*((r.full_cpu_s, r.again_cpu_s) for r in later), strict=True)
    )
    share = sum(one.scored_share for one in later) / len(later)
    print(
        f"after the first: {share:.1%} of the rows, {again_s:.1f} CPU-s by {full_s:.1f} "
        f"({again_s / full_s:.2f}), least recall {min(one.recall for one in rounds):.4f}",
        flush=True,
    )


def _cpu_s(call: Any) -> tuple[Any, float]:
    start_s = time.process_time()
    found = call()
    return found, time.process_time() - start_s


def _rayal(*words: str) -> None:
    subprocess.run([*RAYAL, *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
