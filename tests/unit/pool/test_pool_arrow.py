"""Arrow IPC as a source, and the folders of Hugging Face `datasets`, which are made of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as pa_feather
import pyarrow.parquet as pq
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.formats import reading

NAMES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def _table(num_rows: int = 500) -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = pa.array(rng.normal(size=num_rows * 4).astype(np.float32))
    return pa.table(
        {
            "text": [f"row {at}" for at in range(num_rows)],
            "word": pa.array([f"w{at % 3}" for at in range(num_rows)]).dictionary_encode(),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, 4),
            "kind": [at % 2 for at in range(num_rows)],
        }
    )


def _write(path: Path, table: pa.Table, form: str, rows: int = 130) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "feather":
        pa_feather.write_feather(table, path, compression="lz4", chunksize=rows)
        return path
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def _with_features(table: pa.Table, features: dict[str, Any]) -> pa.Table:
    said = json.dumps({"info": {"features": features}}).encode()
    return table.replace_schema_metadata({b"huggingface": said})


def _rows(pool: Pool, columns: list[str]) -> pa.Table:
    shards = [*pool.shards, *pool.test_shards]
    found = [rows for shard in shards for rows in pool.batches(shard, columns, 64)]
    return pa.Table.from_batches(found).sort_by("sample_id")


def _refused(source: Path | str, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(str(source), str(tmp_path / "refused"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("form", "suffix"), [("file", ".arrow"), ("stream", ".ipc"), ("feather", ".feather")]
)
def test_arrow_gives_the_pool_that_parquet_gives(
    tmp_path: Path, form: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_ROWS", 64)
    pq.write_table(_table(), tmp_path / "in.parquet")
    expected = ingest(str(tmp_path / "in.parquet"), str(tmp_path / "a"), label_column="kind")
    _write(tmp_path / "in" / f"x{suffix}", _table(), form)
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "b"), label_column="kind")
    assert pool.content_hash == expected.content_hash
    assert pool.vocabulary == expected.vocabulary


def test_one_batch_larger_than_a_block_comes_in_blocks(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 2000 + str(at) for at in range(20_000)]})
    place = _write(tmp_path / "in.arrow", table, "file", 1 << 30)
    found = list(reading_of(place))
    assert sum(rows.num_rows for rows in found) == 20_000
    assert max(rows.nbytes for rows in found) < 3 * reading.BLOCK_BYTES
    assert pa.Table.from_batches(found).column("text").to_pylist() == table["text"].to_pylist()


def reading_of(place: Path) -> Any:
    from rayal.pool.sources import find

    return (piece.rows for piece in find(str(place)).pieces())


def test_tensors_of_a_fixed_shape_are_vectors(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3))
    flat = pa.array(np.arange(60, dtype=np.float32))
    storage = pa.FixedSizeListArray.from_arrays(flat, 6)
    table = pa.table({"v": pa.ExtensionArray.from_storage(kind, storage)})
    _write(tmp_path / "in.arrow", table, "stream")
    pool = ingest(str(tmp_path / "in.arrow"), str(tmp_path / "pool"), test_share=0)
    assert pool.schema.field("v").type == pa.binary(24)


def test_columns_are_left_out_and_files_agree(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.arrow", _table(10), "file")
    _write(tmp_path / "in" / "b.arrow", _table(10).drop_columns("word"), "stream")
    _refused(tmp_path / "in", tmp_path, "b.arrow lacks word, compared with .*a.arrow")
    _refused(tmp_path / "in", tmp_path, "no column 'nix' to drop", drop=["nix"])
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), drop=["word"])
    assert "word" not in pool.schema.names
    assert pool.num_rows + pool.num_test_rows == 20


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    place = _write(tmp_path / "in.arrow", _table(), "stream")
    content = place.read_bytes()
    place.write_bytes(content[: len(content) // 2])
    _refused(place, tmp_path, "in.arrow cannot be read as arrow, after row ")
    place.write_bytes(b"no Arrow at all, but long enough to be looked at")
    _refused(place, tmp_path, "in.arrow cannot be read as arrow, after row 0")
    place.write_bytes(b"")
    _refused(place, tmp_path, "in.arrow cannot be read as arrow, after row 0")
    place.write_bytes(b"FEA1" + content)
    _refused(place, tmp_path, "is Feather version 1, expected version 2")


def test_offsets_that_point_outside_are_not_followed(tmp_path: Path) -> None:
    table = pa.table({"text": ["aaaa", "bbbb", "cccc"]})
    place = _write(tmp_path / "in.arrow", table, "file")
    content = place.read_bytes()
    offsets = np.array([0, 4, 8, 12], np.int32).tobytes()
    assert content.count(offsets) == 1
    bad = np.array([0, 4, 1 << 30, 12], np.int32).tobytes()
    place.write_bytes(content.replace(offsets, bad))
    _refused(place, tmp_path, "cannot be read as arrow, after row 0")


# ---------------------------------------------------------------------------------------- datasets


def _dataset(folder: Path, table: pa.Table, files: int = 2) -> Path:
    """Writes what `save_to_disk` writes."""
    step = -(-len(table) // files)
    names = [f"data-{at:05d}-of-{files:05d}.arrow" for at in range(files)]
    for at, name in enumerate(names):
        _write(folder / name, table.slice(at * step, step), "stream")
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_dataset_on_disk_gives_words_as_labels(tmp_path: Path) -> None:
    table = _with_features(_table(100), {"kind": NAMES})
    folder = _dataset(tmp_path / "in", table)
    other = pa.table({"text": ["of a cache"]})
    _write(folder / "cache-1234.arrow", other, "stream")  # what `map` leaves behind
    pool = ingest(str(folder), str(tmp_path / "pool"), label_column="kind")
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == ("cat", "dog")
    rows = _rows(pool, ["sample_id", "text"])
    assert rows["text"].to_pylist() == table["text"].to_pylist()
    assert [str(label) for label in pool.secret_labels(np.arange(4))] == [
        "cat",
        "dog",
        "cat",
        "dog",
    ]
    plain = ingest(str(folder), str(tmp_path / "plain"))  # no label: a number as it is
    assert _rows(plain, ["sample_id", "kind"])["kind"].to_pylist()[:3] == [0, 1, 0]


def test_a_class_of_minus_one_is_no_label(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3], "label": [1, -1, None]})
    folder = _dataset(tmp_path / "in", _with_features(table, {"label": NAMES}), 1)
    pool = ingest(str(folder), str(tmp_path / "pool"), label_column="label", test_share=0)
    assert pool.manifest.num_null_labels == 2
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == ("dog",)


@pytest.mark.parametrize("feature", [{"feature": NAMES, "_type": "List"}, [NAMES]])
def test_lists_of_classes_are_several_labels(tmp_path: Path, feature: Any) -> None:
    table = pa.table({"x": [1, 2, 3, 4], "label": [[0, 1], [1], None, []]})
    folder = _dataset(tmp_path / "in", _with_features(table, {"label": feature}), 1)
    pool = ingest(str(folder), str(tmp_path / "pool"), label_column="label", test_share=0)
    assert pool.vocabulary is not None
    assert pool.vocabulary.kind == "multilabel"
    assert pool.vocabulary.classes == ("cat", "dog")
    found = [list(label) for label in pool.secret_labels(np.array([0, 1, 3]))]
    assert found == [["cat", "dog"], ["dog"], []]


def test_a_class_that_has_no_name_is_refused(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2], "label": [1, 7]})
    folder = _dataset(tmp_path / "in", _with_features(table, {"label": NAMES}), 1)
    _refused(
        folder,
        tmp_path,
        r"has the class 7 as a label, expected one of its 2 classes \(cat",
        label_column="label",
    )


def test_images_of_a_dataset_are_their_bytes(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": b"one", "path": "1.png"}, None, {"bytes": b"three", "path": None}]
    table = pa.table({"image": pa.array(images, kind), "x": [1, 2, 3]})
    folder = _dataset(tmp_path / "in", _with_features(table, {"image": {"_type": "Image"}}), 1)
    pool = ingest(str(folder), str(tmp_path / "pool"), test_share=0)
    assert _rows(pool, ["sample_id", "image"])["image"].to_pylist() == [b"one", None, b"three"]
    images = [images[0]] * 199 + [{"bytes": None, "path": "/etc/passwd"}]  # never opened
    table = pa.table({"image": pa.array(images, kind), "x": range(200)})
    folder = _dataset(tmp_path / "two", _with_features(table, {"image": {"_type": "Image"}}), 1)
    _refused(folder, tmp_path, "column 'image' has no bytes in row 199 .*'/etc/passwd'; save")


def test_datasets_that_are_not_taken(tmp_path: Path) -> None:
    folder = _dataset(tmp_path / "in", _table(10))
    state = json.loads((folder / "state.json").read_text())

    def write(**changed: Any) -> None:
        (folder / "state.json").write_text(json.dumps({**state, **changed}))

    write(_data_files=[{"filename": "../../secret.arrow"}])
    _refused(folder, tmp_path, r"names the file '../../secret.arrow', expected one of the folder")
    write(_data_files=[{"filename": "gone.arrow"}])
    _refused(folder, tmp_path, "gone.arrow is not there, and state.json beside it names it")
    write(_data_files=[])
    _refused(folder, tmp_path, "in holds no rows; a pool needs at least one")
    write(_indices_data_files=[{"filename": "indices.arrow"}])
    _refused(folder, tmp_path, "chosen by a file of indices; .*flatten_indices")
    (folder / "state.json").write_text("{")
    _refused(folder, tmp_path, "state.json is no JSON")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    _refused(folder, tmp_path, "a dataset of the splits train, test; name one of them, .*/train")


@pytest.mark.parametrize("cut", ["mark", "batch"])
def test_a_stream_that_was_cut_short(tmp_path: Path, cut: str) -> None:
    """Between two batches it would pass for a whole one, with rows less."""
    schema = pa.schema({"x": pa.int64()})
    sink = pa.BufferOutputStream()
    ends = []
    with pa.ipc.new_stream(sink, schema) as writer:
        for number in range(3):
            writer.write_batch(pa.record_batch([pa.array([number] * 10)], schema=schema))
            ends.append(sink.tell())
    content = sink.getvalue().to_pybytes()
    path = tmp_path / "rows.arrows"
    path.write_bytes(content)
    assert ingest(str(path), str(tmp_path / "whole"), test_share=0.0).num_rows == 30
    path.write_bytes(content[: ends[-1] if cut == "mark" else ends[1]])
    with pytest.raises(PoolError, match=r"ends without the mark of its end.*write it again"):
        ingest(str(path), str(tmp_path / "pool"))
