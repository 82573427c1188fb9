"""Ids and labels of CSV: numbers where all are written as numbers are, else the text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.formats import csv_text


def _pool(tmp_path: Path, *files: list[str], **options: Any) -> Pool:
    (tmp_path / "in").mkdir(exist_ok=True)
    for number, values in enumerate(files):
        lines = [f"{value},{row}" for row, value in enumerate(values)]
        (tmp_path / "in" / f"{number}.csv").write_text("\n".join(["c,x", *lines]) + "\n")
    return ingest(str(tmp_path / "in"), str(tmp_path / "pool"), test_share=0.0, **options)


def _ids(pool: Pool) -> list[Any]:
    name = "source_id" if "source_id" in pool.schema.names else "sample_id"
    rows = [r for shard in pool.shards for r in pool.batches(shard, [name], 100)]
    return [value for some in rows for value in some.column(0).to_pylist()]


@pytest.mark.parametrize(
    "values",
    [
        ["00003", "4"],
        ["4", "+5"],
        ["-0", "7"],
        ["1.10", "1.1"],
        ["2020-01-02", "2020-01-03"],
        ["2020-01-02T03:04:05Z", "x"],
        ["true", "false"],
        ["12345678901234567890", "12345678901234567891"],
        ["9223372036854775807", "9223372036854775808"],
    ],
)
def test_ids_keep_their_text(tmp_path: Path, values: list[str]) -> None:
    assert _ids(_pool(tmp_path, values, id_column="c")) == values


def test_ids_that_are_written_as_numbers_are_numbers(tmp_path: Path) -> None:
    values = ["-5", "0", "9223372036854775807"]
    assert _ids(_pool(tmp_path, values, [" 7 "], id_column="c")) == [*map(int, values), 7]


def test_labels_keep_their_text(tmp_path: Path) -> None:
    pool = _pool(tmp_path, ["01", "1", "2"], label_column="c")
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == ("01", "1", "2")
    assert pool.secret_labels(np.arange(3)) == ["01", "1", "2"]


def test_labels_that_are_written_as_numbers_are_numbers(tmp_path: Path) -> None:
    pool = _pool(tmp_path, ["10", "", "NA", "2"], label_column="c")
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == (2, 10)
    assert pool.secret_labels(np.arange(4)) == [10, None, None, 2]


@pytest.mark.parametrize("late", ["007", "x", "99999999999999999999"])
def test_a_late_value_makes_all_of_them_text(
    tmp_path: Path, late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    first = [str(row % 10) for row in range(100)]
    pool = _pool(tmp_path, first, [*first, late], label_column="c")
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == tuple(sorted({*first, late}))
    assert pool.secret_labels(np.array([7, 200])) == ["7", late]
    assert pool.manifest.notes[0].startswith("column 'c' is read as text, not as whole numbers: it")


def test_a_late_decimal_number_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    values = [str(row % 10) for row in range(100)]
    message = r"'c' holds 1.5 at .*1.csv row 100 .*--kind number if it holds numbers, --kind class"
    with pytest.raises(PoolError, match=message):
        _pool(tmp_path, values, [*values, "1.5"], label_column="c")
    pool = _pool(tmp_path, values, [*values, "1.5"], label_column="c", kind="number")
    assert pool.secret_labels(np.array([3, 200])) == [3.0, 1.5]
    (tmp_path / "pool").rename(tmp_path / "numbers")
    pool = _pool(tmp_path, values, [*values, "1.5"], label_column="c", kind="class")
    assert pool.secret_labels(np.array([3, 200])) == ["3", "1.5"]


def test_numbers_of_the_first_rows_may_have_leading_zeros(tmp_path: Path) -> None:
    pool = _pool(tmp_path, ["007", "1"], label_column="c", kind="number")
    assert pool.secret_labels(np.arange(2)) == [7.0, 1.0]


@pytest.mark.parametrize("num_rows", [3, 200_000])
def test_text_in_another_encoding_is_refused(tmp_path: Path, num_rows: int) -> None:
    """In the first block, where types are guessed, and after it."""
    rows = ["name,x", *(f"{'plain' * 10},1" for _ in range(num_rows)), "caf\xe9,2"]
    (tmp_path / "rows.csv").write_bytes("\n".join(rows).encode("latin-1"))
    if num_rows < 10:
        said = r"rows.csv line 5: column 'name' is not UTF-8 \(b'caf\\xe9,2'\); convert .*iconv"
    else:
        said = "rows.csv cannot be read as csv"
    with pytest.raises(PoolError, match=said):
        ingest(str(tmp_path / "rows.csv"), str(tmp_path / "pool"))
    pool = ingest(str(tmp_path / "rows.csv"), str(tmp_path / "other"), drop=["name"])
    assert pool.num_rows + pool.num_test_rows == num_rows + 1


@pytest.mark.parametrize(
    "head", ["<!DOCTYPE html>", "\ufeff \n<html lang=en>", "<?xml version=1?>"]
)
def test_a_page_is_no_table(tmp_path: Path, head: str) -> None:
    (tmp_path / "rows.csv").write_text(f"{head}\n<body>\nNot found\n</body>\n")
    with pytest.raises(
        PoolError, match=r"rows.csv is a page of HTML or XML .*fetch the file again"
    ):
        ingest(str(tmp_path / "rows.csv"), str(tmp_path / "pool"))
