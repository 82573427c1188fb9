"""Samples are forgotten: by the vendors, the pool, its features, and every file of a run.

Every step can be done again, so that a command that died is finished by the same command. What
cannot be taken out is named: models that were trained with a sample.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayal import storage
from rayal.errors import LabelError, LedgerError, RayalError
from rayal.history import History
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.places import Place
from rayal.pool import compact, delete
from rayal.pool import manifest as manifests
from rayal.pool.feature_room import remove_superseded
from rayal.pool.features import sets_in
from rayal.report import write_report
from rayal.rundir import RunDir, write_table
from rayal.types import Ids, Labeler, Vocabulary

_FOLDER = "erasures"


@dataclass(frozen=True)
class Proof:
    """What was erased, where, and what is left."""

    sample_ids: list[int]
    pool: str
    num_rows: int  # that the pool had not forgotten before
    num_answers: int  # in the ledger
    files: dict[str, list[str]]  # hash before and after
    removed: list[str]  # files that are gone as a whole
    vendors: dict[str, str]  # by job: erased, or why not
    trained: list[str]  # models that saw one of the samples
    entry: str  # the hash of the chain's entry


def erase(
    ledger: Ledger, run_dir: RunDir, labeler: Labeler, vocabulary: Vocabulary, ids: Sequence[int]
) -> Proof:
    """Forgets samples in a run and in its pool, and gives the proof, which is kept in the run's
    folder and sealed in the ledger. No process may run the run or score the pool meanwhile.

    Raises:
        PoolError: an id is of no row of the pool.
        LabelError: a batch with one of them is on its way.
    """
    config = ledger.run().config
    history = History(ledger, run_dir, vocabulary)
    gone = np.unique(np.asarray(ids, np.int64))
    _check_nothing_is_leaving(ledger, history, gone)
    pool_path = str(config["pool"]["path"])
    num_rows = delete(pool_path, [str(one) for one in gone.tolist()], by_sample_id=True)
    compact(pool_path)
    removed = _without_caches(run_dir, config, pool_path)
    vendors = _at_vendors(ledger, history, labeler, vocabulary, gone)
    trained = _trained_with(ledger, run_dir, gone)
    files = _in_files(ledger, run_dir, gone)
    num_answers = ledger.erase(gone.tolist())
    write_report(ledger, run_dir)
    said = {"files": files, "vendors": vendors, "trained": trained, "num_answers": num_answers}
    ledger.log(0, "erased", "proof", {"sample_ids": gone.tolist(), "removed": removed, **said})
    proof = Proof(
        gone.tolist(),
        pool_path,
        num_rows,
        num_answers,
        files,
        removed,
        vendors,
        trained,
        ledger.logged("erased")[-1].hash,
    )
    path = run_dir.path / _FOLDER / f"{proof.entry[:16]}.json"
    storage.write_text(path, json.dumps(asdict(proof), indent=1) + "\n")
    return proof


def _check_nothing_is_leaving(ledger: Ledger, history: History, gone: Ids) -> None:
    for event in ledger.events(step="selected"):
        t = event.round
        if ledger.event(t, "ordered") is None and np.isin(history.asked_ids(t), gone).any():
            raise LabelError(
                f"round {t} has picked one of these samples and its order is not placed yet; give "
                "the same `rayal run` again until it waits for labels, then erase"
            )


def _without_caches(run_dir: RunDir, config: Mapping[str, Any], pool_path: str) -> list[str]:
    """Removes what was computed of rows and can be computed again; gives what that was."""
    removed = []
    for relative in ("passes", "rescoring"):
        if storage.names_in(run_dir.path / relative):
            storage.remove_folder(run_dir.path / relative)
            removed.append(relative)
    for path in sorted(storage.folder_here(run_dir.path / "rounds").glob("*/taken.arrow")):
        storage.remove_file(path)
        removed.append(run_dir.relative(path))
    features = (config.get("pool") or {}).get("features")
    if features:
        manifest = manifests.read(Place.of(pool_path))
        number = sum(remove_superseded(one, manifest) for one in sets_in(Place.of(str(features))))
        if number:
            removed.append(f"{number} files of {features}")
    return removed


def _at_vendors(
    ledger: Ledger, history: History, labeler: Labeler, vocabulary: Vocabulary, gone: Ids
) -> dict[str, str]:
    orders = Orders(ledger, labeler, "", vocabulary, history.asked_ids)
    told: dict[str, str] = {}
    for event in ledger.events(step="ordered"):
        left = orders.left_as(event.round)
        mine = [name for name, sample in left.items() if sample in set(gone.tolist())]
        if not mine:
            continue
        job = event.result.job_id
        try:
            labeler.erase(event.result, np.asarray(mine, np.int64))
            told[job] = "erased"
        except RayalError as error:
            told[job] = f"not erased, do it there by hand: {error}"
        ledger.log(event.round, job, "erase", {"num_rows": len(mine), "said": told[job]})
    return told


def _trained_with(ledger: Ledger, run_dir: RunDir, gone: Ids) -> list[str]:
    """Gives the models whose snapshot holds one of the samples, or held it before an erasure that
    was cut short."""
    found: list[str] = []
    before = [one for entry in ledger.logged("erased") for one in entry.detail.get("trained", ())]
    for event in ledger.events(step="labelled"):
        model = ledger.event(event.round, "trained")
        ids = run_dir.read(event.result, ["sample_id"]).column("sample_id").to_numpy()
        if model is not None and np.isin(ids, gone).any():
            found.append(f"{model.result.path} ({model.result.model_id})")
    return list(dict.fromkeys([*before, *found]))


def _in_files(ledger: Ledger, run_dir: RunDir, gone: Ids) -> dict[str, list[str]]:
    changed: dict[str, list[str]] = {}
    for event in ledger.events():
        if event.step in ("selected", "gold", "labelled"):
            hashes = run_dir.without(event.result, gone)
            if hashes is not None:
                changed[event.result.path] = list(hashes)
    rejected = storage.here(run_dir.path / "rejected.parquet")
    if rejected.exists():
        table = pq.read_table(rejected)
        kept = table.filter(pa.array(~np.isin(table.column("sample_id").to_numpy(), gone)))
        if kept.num_rows < table.num_rows:
            write_table(Path(run_dir.path / "rejected.parquet"), kept)
            changed["rejected.parquet"] = []
    return changed


def check_ids(texts: Sequence[str]) -> list[int]:
    """Gives sample_ids out of text.

    Raises:
        LedgerError: one is no whole number.
    """
    try:
        return [int(one) for text in texts for one in text.replace(",", " ").split()]
    except ValueError as error:
        raise LedgerError(f"--sample-id takes whole numbers ({error})") from error
