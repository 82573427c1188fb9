"""Runs for tests: the same configuration tree as the command line's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from rayal.cli.config import build, conf_dir, resolve
from rayal.ledger import Ledger
from rayal.loop import Loop
from rayal.rundir import RunDir

CONF = conf_dir()
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
FOR_NUMBERS = ("gsy", "igs", "lcmd_grads", "predictive_variance")  # need a regression
FOR_DRAWS = ("bald", "consensus_kl", "max_disagreement", "vote_entropy", "predictive_variance")


def plain_config(*overrides: str) -> dict[str, Any]:
    """Gives the resolved configuration of some overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


def loop_of(*overrides: str) -> tuple[Loop, dict[str, Any]]:
    """Gives a Loop and the configuration to run it with."""
    plain = plain_config(*overrides)
    return build(plain), plain


def run(*overrides: str) -> str:
    """Runs a configuration; gives the state it ends in."""
    loop, plain = loop_of(*overrides)
    return loop.run(plain)


def digest(run_dir: str | Path) -> str:
    """Gives the digest of a run."""
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return ledger.digest()


def picked(run_dir: str | Path) -> list[list[int]]:
    """Gives the ids of every round's batch, in the order picked."""
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        batches = [event.result for event in ledger.events(step="selected")]
    return [folder.read(batch)["sample_id"].to_pylist() for batch in batches]


def write_embeddings(path: Path, num_rows: int, width: int = 8, seed: int = 0) -> Path:
    """Writes a Parquet file with `embedding` and a string `label` of four overlapping classes."""
    rng = np.random.default_rng(seed)
    place_N = rng.integers(0, 4, num_rows)
    centers_CD = rng.normal(size=(4, width)) * 2.0
    rows_ND = (centers_CD[place_N] + rng.normal(size=(num_rows, width))).astype(np.float32)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), width)
    label = pa.array([("ant", "bee", "cat", "dog")[place] for place in place_N])
    pq.write_table(pa.table({"embedding": embedding, "label": label}), path)
    return path


def write_topics(path: Path, num_rows: int, width: int = 8, seed: int = 0) -> Path:
    """Writes a Parquet file with `embedding` and a list `label` of any of three words."""
    rng = np.random.default_rng(seed)
    rows_ND = rng.normal(size=(num_rows, width)).astype(np.float32)
    true_NC = rows_ND @ rng.normal(size=(width, 3)) > 0.5
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), width)
    words = np.asarray(["art", "law", "war"])
    label = pa.array([words[row].tolist() for row in true_NC], pa.list_(pa.string()))
    pq.write_table(pa.table({"embedding": embedding, "label": label}), path)
    return path


def write_sums(path: Path, num_rows: int, seed: int = 0) -> Path:
    """Writes a Parquet file with ten uniform `features` and their sum `y`."""
    rows_ND = np.random.default_rng(seed).uniform(size=(num_rows, 10)).astype(np.float32)
    features = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), 10)
    pq.write_table(pa.table({"features": features, "y": rows_ND.sum(1).astype(np.float64)}), path)
    return path
