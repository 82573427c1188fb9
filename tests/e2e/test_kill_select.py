"""SIGKILL of `rayal select`, or of a worker of it, in mid-selection: the same batch in the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Command
from given import write_files

import rayal

BUDGET = 3_000
RAY = ["engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5", "engine.timeout_s=120"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows of 400 clusters, so many that a selection takes seconds."""
    rng = np.random.default_rng(0)
    centers_CD = rng.normal(size=(400, 32)) * 3
    rows_ND = (centers_CD[rng.integers(0, 400, 120_000)] + rng.normal(size=(120_000, 32))).astype(
        np.float32
    )
    arrays = {"sample_id": rng.permutation(len(rows_ND)), "embedding": rows_ND}
    folder = tmp_path_factory.mktemp("select") / "outputs"
    return write_files(folder, arrays, num_files=2, row_group_size=20_000)


@pytest.fixture(scope="module")
def undisturbed(files: str):
    """The batch of a selection that nobody killed."""
    return rayal.select(files, budget=BUDGET)


def _words(files: str, folder: Path, *more: str) -> list[str]:
    out, work = folder / "batch.parquet", folder / "work"
    return [
        "--outputs", files, "--out", str(out), "--work", str(work), "strategy=k_center",
        f"budget={BUDGET}", *more,
    ]  # fmt: skip


def _journal(folder: Path) -> list[str]:
    found = list((folder / "work").glob("*/picks.jsonl"))
    return found[0].read_text().splitlines() if found else []


@pytest.mark.parametrize("engine", [[], pytest.param(RAY, marks=pytest.mark.ray)])
def test_a_killed_driver_goes_on_with_the_picks_that_it_had(
    engine, files, undisturbed, tmp_path, orphans
):
    words = _words(files, tmp_path, *engine)
    first = Command(words, tmp_path / "first.log", "select")
    assert first.until(lambda: len(_journal(tmp_path)) >= 3), first.text()
    orphans += first.kill()
    assert first.process.returncode == -9, first.text()
    assert not (tmp_path / "batch.parquet").exists()
    made = _journal(tmp_path)
    assert len(made) >= 3
    slices = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/shard-*.arrow")}
    assert slices
    last = Command(words, tmp_path / "last.log", "select")
    assert last.wait() == 0, last.text()
    assert pq.read_table(tmp_path / "batch.parquet").equals(undisturbed)
    assert _journal(tmp_path)[: len(made) - 1] == made[:-1]  # the last line may be cut short
    assert {path: path.stat().st_mtime_ns for path in slices} == slices


@pytest.mark.ray
def test_a_killed_worker_changes_nothing(files, undisturbed, tmp_path):
    command = Command(_words(files, tmp_path, *RAY), tmp_path / "log", "select")
    assert command.until(lambda: len(_journal(tmp_path)) >= 3), command.text()
    workers = command.workers()
    assert workers
    workers[0].kill()
    num_picked = len(_journal(tmp_path))
    assert command.wait() == 0, command.text()
    assert len(_journal(tmp_path)) > num_picked  # it was still picking
    assert pq.read_table(tmp_path / "batch.parquet").equals(undisturbed)


def test_a_terminated_selection_puts_its_files_away(files, undisturbed, tmp_path):
    words = _words(files, tmp_path)
    at = words.index("--work")
    words = [*words[:at], *words[at + 2 :]]
    command = Command(words, tmp_path / "log", "select")
    assert command.until(lambda: any(tmp_path.glob(".tmp-*/pass/picks.jsonl"))), command.text()
    command.process.terminate()
    assert command.wait() == 143, command.text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
