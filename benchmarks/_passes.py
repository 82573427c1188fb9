"""The passes that score.py times: rayal's worker, bare loops, and rows that lie on the device."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rayal.engine.local import LocalEngine
from rayal.engine.scoring import Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, load, model_id, save
from rayal.models.model import Model
from rayal.models.modules import MLP
from rayal.models.transforms import Vector
from rayal.pool import Pool, ingest
from rayal.predictors import TorchPredictor
from rayal.probabilities import softmax, top_two
from rayal.scorers.margin import Margin
from rayal.types import Checkpoint, Outputs, Slice

CLASSES, BATCH_ROWS = 10, 4096


@dataclass(frozen=True)
class Case:
    """One model over one pool."""

    width: int
    hidden: tuple[int, ...]
    part: float = 1.0  # of the pool's shards, at least two
    turns: int = 3  # for each one asked for: a short pass is noisier
    keep: int = 0  # M
    pool: str = ""
    checkpoint: str = ""
    model_id: str = ""
    folder: str = ""
    device: str = "cpu"

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.width, *self.hidden, CLASSES)))

    @property
    def model(self) -> Model:
        return Model(partial(MLP, hidden=self.hidden), Vector("embedding"))

    @property
    def predictor(self) -> TorchPredictor:
        return TorchPredictor(self.model, BATCH_ROWS, num_threads=1, device=self.device)

    def vectors(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, D) float32 as a bare loop reads them, without a copy."""
        return vectors_bare(rows, self.width)

    def open(self) -> Pool:
        """Gives the part of the pool that is scored."""
        pool = Pool.open(self.pool)
        num_shards = max(2, round(self.part * len(pool.shards)))
        return replace(pool, manifest=replace(pool.manifest, shards=pool.shards[:num_shards]))

    def scoring(self) -> Scoring:
        """Gives a pass that leaves its survivors in a new folder."""
        folder = Path(self.folder) / uuid.uuid4().hex
        folder.mkdir()
        taken = folder / "taken.arrow"
        write_taken(taken, Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool)))
        checkpoint = Checkpoint("", self.model_id)
        return Scoring(
            keys=Keys(0, 0),
            scorer=Margin(),
            features=(),
            keep=self.keep,
            checkpoint=checkpoint,
            checkpoint_path=self.checkpoint,
            taken_path=str(taken),
            folder=str(folder),
            pass_id="",
        )


def run_worker(case: Case, shards: Sequence[int]) -> np.ndarray:
    """Scores some shards as the local engine does; gives the scores of the best M, ascending."""
    engine = _ENGINES.setdefault((case, tuple(shards)), LocalEngine())
    if not hasattr(engine, "worker"):
        pool = case.open()
        mine = tuple(pool.shards[index] for index in shards)
        pool = replace(pool, manifest=replace(pool.manifest, shards=mine))
        engine.open(pool, case.predictor, SimpleNamespace(num_workers=0, use_gpu=False))
    scoring = case.scoring()
    done = engine.score(scoring)
    scores = np.concatenate(done.candidates.each(_scores, 0))
    shutil.rmtree(scoring.folder)
    return np.sort(scores)


_ENGINES: dict[Any, LocalEngine] = {}


def _scores(part: Slice, step: int) -> np.ndarray:
    return part.scores


def run_bare(
    case: Case, shards: Sequence[int], score: Callable[..., torch.Tensor] | None = None
) -> np.ndarray:
    """Scores some shards by the shortest loop there is; gives the best M scores, ascending."""
    module = _module(case)
    pool = case.open()
    best_ids, best = np.empty(0, np.int64), np.empty(0)
    for index in shards:
        ids, scores = [best_ids], [best]
        for rows in read_bare(pool, index):
            ids.append(rows.column("sample_id").to_numpy())
            with torch.inference_mode():
                scores.append((score or margin)(module, case.vectors(rows)).numpy())
        best_ids, best = np.concatenate(ids), np.concatenate(scores)
        if len(best) > case.keep:
            kept = np.argpartition(best, -case.keep)[-case.keep :]
            best_ids, best = best_ids[kept], best[kept]
    return np.sort(best)


def run_resident(case: Case, shards: Sequence[int]) -> np.ndarray:
    """Scores rows that lie on the device already; gives the scores of the best M, ascending."""
    module = _module(case)
    if case not in _RESIDENT:
        pool = case.open()
        parts = [
            torch.tensor(vectors_bare(r, case.width)) for i in shards for r in read_bare(pool, i)
        ]
        _RESIDENT[case] = torch.cat(parts).to(case.device)
    best = torch.empty(0, dtype=torch.float64, device=case.device)
    with torch.inference_mode():
        scores = [margin(module, rows_ND) for rows_ND in torch.split(_RESIDENT[case], BATCH_ROWS)]
        best = torch.cat(scores).topk(case.keep).values
    return best.cpu().numpy()[::-1]


_RESIDENT: dict[Case, torch.Tensor] = {}


def _module(case: Case) -> torch.nn.Module:
    return load(case.model, case.checkpoint)[1][0].eval().to(case.device)


def read_bare(pool: Pool, index: int) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(Path(pool.path) / pool.shards[index].path, memory_map=True)
    return file.iter_batches(BATCH_ROWS, columns=["sample_id", "embedding"], use_threads=False)


def vectors_bare(rows: pa.RecordBatch, width: int) -> torch.Tensor:
    """Gives (N, D) float32 without a copy."""
    column = rows.column("embedding")
    flat = np.frombuffer(column.buffers()[1], np.float32)
    at = column.offset * width
    return torch.from_numpy(flat[at : at + len(column) * width].reshape(-1, width))


def margin(module: torch.nn.Module, rows_ND: torch.Tensor) -> torch.Tensor:
    """Gives the margin score in the fastest way known here, which is rayal's own."""
    outputs = Outputs(rows_ND, {"probs": softmax(module(rows_ND)[0])})
    first_N, second_N = top_two(outputs)
    return 1.0 - (first_N.double() - second_N.double())


def margin_plain(module: torch.nn.Module, rows_ND: torch.Tensor) -> torch.Tensor:
    """Gives the margin score as most would write it."""
    best_N2 = module(rows_ND)[0].softmax(1).topk(2).values.double()
    return 1.0 - (best_N2[:, 0] - best_N2[:, 1])


run_plain = partial(run_bare, score=margin_plain)
ROLES = {"bare": run_bare, "plain": run_plain, "worker": run_worker, "resident": run_resident}


# ------------------------------------------------------------------------------------ the material


def prepare(case: Case, folder: Path, num_rows: int, keep: int) -> Case:
    """Ingests a pool of random vectors with rayal, and leaves an untrained checkpoint beside it."""
    pool = folder / f"pool-{case.width}"
    if not pool.exists():
        source = folder / f"rows-{case.width}.parquet"
        write_vectors(source, num_rows, case.width)
        ingest(str(source), str(pool), test_share=0.0)
        source.unlink()
    return with_checkpoint(case, folder, pool, keep)


def with_checkpoint(case: Case, folder: Path, pool: Path, keep: int) -> Case:
    """Leaves an untrained checkpoint in a folder; gives the case that names it, its pool and M."""
    torch.manual_seed(0)
    module = case.model.build(CLASSES, case.width)
    classes = tuple(f"class-{index}" for index in range(CLASSES))
    description = Description(
        "class", classes, CLASSES, case.width, case.hidden[-1], describe_architecture(module)
    )
    checkpoint = folder / f"checkpoint-{case.name}"
    save(checkpoint, description, [module])
    return replace(
        case,
        keep=keep,
        pool=str(pool),
        checkpoint=str(checkpoint),
        model_id=model_id(description, [module]),
        folder=str(folder),
    )


def write_vectors(path: Path, num_rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("embedding", pa.list_(pa.float32(), width))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 65_536):
            flat = rng.standard_normal(min(65_536, num_rows - start) * width, np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
            writer.write_table(pa.table({"embedding": column}, schema=schema))
