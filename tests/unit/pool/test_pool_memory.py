"""Ingest in bounded memory: what a source would have to be to break that."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.pool import ids as ids_module
from rayal.pool import sources
from rayal.pool.ids import Duplicate, SeenIds


def _spilled(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("text", [False, True])
def test_equal_ids_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool
) -> None:
    monkeypatch.setattr(ids_module, "_HELD_ROWS", 1000)
    seen = SeenIds(tmp_path / "ids")
    for start in range(0, 20_000, 500):
        same = np.full(500, 7)
        seen.add(start, pa.array(["7"] * 500) if text else same)
    assert _spilled(tmp_path / "ids") == 20 * 2 * 24  # two a lot
    count, (pair,) = seen.duplicates(3)
    assert count == 19_999
    assert (pair.first_row, pair.second_row) == (0, 1)


@pytest.mark.parametrize("held_rows", [64, 1 << 20])
def test_duplicates_are_those_of_a_plain_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_rows: int
) -> None:
    monkeypatch.setattr(ids_module, "_HELD_ROWS", held_rows)
    ids = np.random.default_rng(0).integers(-300, 300, 900)
    seen = SeenIds(tmp_path / "ids")
    for start in range(0, 900, 30):
        seen.add(start, ids[start : start + 30])
    firsts: dict[int, int] = {}
    expected: dict[int, Duplicate] = {}
    for row, one in enumerate(ids.tolist()):
        if one in firsts:
            expected.setdefault(one, Duplicate(firsts[one], row, one))
        firsts.setdefault(one, row)
    count, some = seen.duplicates(5)
    assert count == 900 - len(firsts)
    assert some == sorted(expected.values(), key=lambda pair: pair.second_row)[:5]


@pytest.mark.parametrize("is_dictionary", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_pieces_are_sized_by_what_is_decoded(
    tmp_path: Path, is_dictionary: bool, late: bool
) -> None:
    """3,000 rows of 20 kB of text are 60 MB, and some hundred bytes of Parquet."""
    codes = np.zeros(6000, np.int32)
    codes[3000 if late else 0 :][:3000] = 1
    column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(["short", "x" * 20_000]))
    place = tmp_path / "in.parquet"
    pq.write_table(pa.table({"t": column}), place, store_schema=is_dictionary)
    assert place.stat().st_size < 1 << 16
    sizes = [
        (piece.rows.nbytes, piece.rows.num_rows) for piece in sources.find(str(place)).pieces()
    ]
    assert sum(num_rows for _, num_rows in sizes) == 6000
    assert max(num_bytes for num_bytes, _ in sizes) < 32 << 20


def test_narrow_rows_come_in_large_pieces(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": np.zeros(150_000, np.int8)}), tmp_path / "in.parquet")
    pieces = sources.find(str(tmp_path / "in.parquet")).pieces()
    assert [piece.rows.num_rows for piece in pieces] == [0, 65_536, 65_536, 150_000 - 2 * 65_536]
