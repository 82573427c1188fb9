"""Files of features: what was written comes back, by place, and what was harmed is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayal.columns import finite_vectors, odd_lists, vectors
from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool import feature_file
from rayal.pool.feature_file import PIECE_ROWS, Counts, FeatureFile, FeatureForm, FeatureWriter
from rayal.pool.features import FeatureSet

FORM = FeatureForm("k" * 16, np.dtype(np.int8), 3)
NUM_ROWS = 2 * PIECE_ROWS + 100


def write(
    path: Path, num_rows: int = NUM_ROWS, step: int = 1000, cut_off: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values_ND = rng.integers(-127, 128, (num_rows, 3)).astype(np.int8)
    null_N = np.arange(num_rows) % 1009 == 5
    writer = FeatureWriter(path, FORM, "shard")
    for lo in range(0, num_rows, step):
        writer.add(values_ND[lo : lo + step], null_N[lo : lo + step], cut_off)
    counts = writer.close()
    assert counts == Counts(num_rows, int(null_N.sum()), cut_off * -(-num_rows // step))
    values_ND[null_N] = 0
    return values_ND, null_N


def read(path: Path, num_rows: int = NUM_ROWS, **changed: object) -> FeatureFile:
    given = {
        "place": Place(str(path)),
        "form": FORM,
        "shard_hash": "shard",
        "num_rows": num_rows,
        **changed,
    }
    return FeatureFile(**given)  # type: ignore[arg-type]


def values_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    null_N = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
    flat = np.frombuffer(b"".join(one or b"\0\0\0" for one in array.to_pylist()), np.int8)
    return flat.reshape(-1, 3), null_N


@pytest.mark.parametrize("batch_rows", [PIECE_ROWS, 64, 4097, 3 * PIECE_ROWS])
def test_rows_come_back_however_they_are_cut(tmp_path: Path, batch_rows: int) -> None:
    values_ND, null_N = write(tmp_path / "f")
    parts = list(read(tmp_path / "f").cut(batch_rows))
    assert [len(part) for part in parts[:-1]] == [batch_rows] * (len(parts) - 1)
    found = [values_of(part) for part in parts]
    np.testing.assert_array_equal(np.concatenate([one for one, _ in found]), values_ND)
    np.testing.assert_array_equal(np.concatenate([null for _, null in found]), null_N)


def test_some_rows_are_read_and_no_other_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values_ND, null_N = write(tmp_path / "f")
    looked_at = []
    plain = feature_file._crc
    monkeypatch.setattr(feature_file, "_crc", lambda a: looked_at.append(len(a)) or plain(a))
    file = read(tmp_path / "f")
    places = np.array([3, 5, 2 * PIECE_ROWS, NUM_ROWS - 1])
    for _ in range(2):  # a piece is checked once a process
        found, null = values_of(file.take(places))
        np.testing.assert_array_equal(found, values_ND[places])
        np.testing.assert_array_equal(null, null_N[places])
    assert looked_at == [PIECE_ROWS, 100]
    assert len(file.take(np.empty(0, np.intp))) == 0


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one", step=1000, cut_off=0)
    write(tmp_path / "other", step=NUM_ROWS, cut_off=0)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "other").read_bytes()
    assert NUM_ROWS * 3 < len(content) <= FORM.size_bytes(NUM_ROWS)


@pytest.mark.parametrize("place", [1_000, 3 * PIECE_ROWS + 2_000])
def test_a_flipped_byte_is_told_where_it_is_read(tmp_path: Path, place: int) -> None:
    write(tmp_path / "f")
    content = bytearray((tmp_path / "f").read_bytes())
    content[place] ^= 1
    (tmp_path / "f").write_bytes(content)
    piece = 0 if place < 3 * PIECE_ROWS else 1
    file = read(tmp_path / "f")
    with pytest.raises(PoolError, match=f"checksum of its piece {piece} differs.*rayal embed"):
        file.counts()
    file.take(np.array([(1 - piece) * PIECE_ROWS]))  # the other piece is whole


def test_files_that_are_not_the_shards(tmp_path: Path) -> None:
    write(tmp_path / "f")
    for changed in ({"shard_hash": "x"}, {"form": FeatureForm("x", FORM.dtype, 3)}):
        with pytest.raises(PoolError, match="of another shard or another set"):
            read(tmp_path / "f", **changed)
    with pytest.raises(PoolError, match=r"it has 3 pieces of .*, expected 4 of 3 bytes"):
        read(tmp_path / "f", num_rows=NUM_ROWS + PIECE_ROWS)
    (tmp_path / "short").write_bytes((tmp_path / "f").read_bytes()[:-20])
    with pytest.raises(PoolError, match=r"is damaged .*rayal embed"):
        read(tmp_path / "short")
    with pytest.raises(PoolError, match="is missing: these rows have no features; run the same"):
        read(tmp_path / "none")


def test_codes_are_values_again_and_nulls_are_odd_rows(tmp_path: Path) -> None:
    values_ND, null_N = write(tmp_path / "f")
    scales = np.array([0.5, 2.0, 1e-3], np.float32)
    features = FeatureSet("", FORM.key, "", "", "int8", 3, column="deep").with_scales(scales)
    column = read(tmp_path / "f").take(np.arange(NUM_ROWS))
    rows = pa.RecordBatch.from_arrays([column], schema=pa.schema([features.field]))
    assert finite_vectors(rows, "deep") is None  # some are null
    assert odd_lists(rows, "deep").tolist() == np.flatnonzero(null_N).tolist()
    np.testing.assert_array_equal(vectors(rows, "deep"), values_ND * scales)
    known = rows.filter(pa.array(~null_N))
    found = finite_vectors(known, "deep")
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (values_ND * scales)[~null_N])
