"""`rayal.select` that goes on where it stood, and datasets of one's own."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as pa_dataset
import pytest
from given import (
    ARRAYS,
    BUDGET,
    IDS,
    only,
    outputs_of,
    rows_of,
    table_of,
    write_files,
)

import rayal
from rayal.errors import ConfigError


def test_a_work_folder_is_taken_up_again_and_only_for_the_same_rows(tmp_path: Path) -> None:
    arrays = only(outputs_of(2_000, seed=3), "embedding")
    files = write_files(tmp_path / "files", arrays, num_files=2, row_group_size=500)
    work = tmp_path / "work"
    asked = {"budget": 150, "work": work}
    first = rayal.select(files, **asked)
    (folder,) = work.iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.arrow")}
    assert before
    assert (folder / "picks.jsonl").exists()
    assert rayal.select(files, **asked).equals(first)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.arrow")} == before
    path = next(iter(before))  # a damaged slice is made again
    path.write_bytes(path.read_bytes()[:-40])
    assert rayal.select(files, **asked).equals(first)
    arrays["embedding"][::2] *= 1.5
    write_files(tmp_path / "files", arrays, num_files=2, row_group_size=500)
    changed = rayal.select(files, **asked)
    assert not changed["sample_id"].equals(first["sample_id"])
    assert changed.equals(rayal.select(files, budget=150))
    assert rayal.select(arrays, **asked).equals(changed)  # arrays have a content as well
    assert rayal.select(files, **{**asked, "budget": 60}).equals(rayal.select(files, budget=60))


def test_one_work_folder_holds_several_selections_apart(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", only(ARRAYS, "embedding", "probs"))
    asked = [
        {"strategy": "margin"},
        {"strategy": "entropy"},
        {"strategy": "power_margin"},
        {"strategy": "power_margin", "seed": 1},
        {"strategy": "power_margin", "round": 1},
        {"strategy": "badge"},
        {"strategy": "badge", "labelled": IDS[:50]},
        {"strategy": "margin", "kind": "multilabel"},
    ]
    for one in asked * 2:
        found = rayal.select(files, budget=BUDGET, work=tmp_path / "work", **one)
        assert found.equals(rayal.select(files, budget=BUDGET, **one)), one
    assert len(list((tmp_path / "work").iterdir())) == 1  # the last; the others are done


def test_nothing_stays_behind_without_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    files = write_files(tmp_path / "files", only(ARRAYS, "embedding"))
    rayal.select(files, budget=BUDGET)
    with pytest.raises(ConfigError):
        rayal.select(files, budget=10_000)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_filtered_dataset_and_a_partitioned_one_are_what_they_read(tmp_path: Path) -> None:
    arrays = only(ARRAYS, "embedding", "group")
    table = table_of(arrays)
    pa_dataset.write_dataset(
        table, tmp_path, format="parquet", partitioning=["group"], basename_template="{i}.parquet"
    )
    whole = pa_dataset.dataset(str(tmp_path), partitioning=["group"])
    expected = rayal.select(arrays, budget=BUDGET)
    assert rayal.select(whole, budget=BUDGET)["sample_id"].equals(expected["sample_id"])
    part = whole.filter(pa_dataset.field("sample_id") > 0)
    few = rows_of(arrays, IDS > 0)
    found = rayal.select(part, budget=BUDGET)
    assert found["sample_id"].equals(rayal.select(few, budget=BUDGET)["sample_id"])
    in_memory = pa_dataset.dataset(table)
    found = rayal.select(in_memory, budget=BUDGET)
    assert found["sample_id"].equals(expected["sample_id"])
