"""Sources and pools that are not what they should be, from `rayal ingest` to both engines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors, contents
from runs import write_embeddings

from rayal.pool import Pool, ingest


@pytest.fixture(scope="session", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request: pytest.FixtureRequest) -> list[str]:
    """The words for either engine."""
    if request.param == "local":
        return []
    request.getfixturevalue("small_ray")
    return ["engine=ray", "engine.num_workers=1", "engine.num_cpus=0.25"]


@pytest.fixture
def own_pool(class_pool: Pool, tmp_path: Path) -> Path:
    """A copy of the small pool that a test may harm."""
    return Path(shutil.copytree(class_pool.path, tmp_path / "pool"))


# ------------------------------------------------------------------------------- ingest


def _source(doors: Doors, name: str = "in.parquet", **columns: object) -> Path:
    table = {"embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "label": ["a", "b", "a"], **columns}
    pq.write_table(pa.table(table), doors.folder / name)
    return doors.folder / name


BAD_SOURCES = [
    (
        {"id": pa.array([7, 8, 7], pa.int64())},
        ["id column 'id' repeats an id in 1 of 3 rows", "7 at", "row 0", "row 2", "id of its own"],
    ),
    (
        {"id": pa.array([7, None, 9], pa.int64())},
        ["id column 'id' is null at", "in.parquet row 1", "every row needs an id"],
    ),
    ({"id": ["x", "y", "x"]}, ["repeats an id in 1 of 3 rows", "'x' at"]),
    ({"id": ["x", None, "z"]}, ["id column 'id' is null at", "row 1"]),
    (
        {"id": [1, 2, 3], "embedding": [[1.0, 2.0], [np.nan, 4.0], [5.0, 6.0]]},
        ["column 'embedding' holds nan at", "row 1", "mend the numbers"],
    ),
    (
        {"id": [1, 2, 3], "embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, -np.inf]]},
        ["column 'embedding' holds -inf at", "row 2", "1 non-finite numbers in the 3 rows"],
    ),
    (
        {"id": [1, 2, 3], "score": [1.5, 2.0, 2.5]},
        ["a column 'score', a name that rayal writes", "--drop score"],
    ),
    ({"id": [1, 2, 3], "label": [0.5, np.nan, 1.0]}, ["label column 'label' holds nan", "row 1"]),
]


@pytest.mark.parametrize(("columns", "parts"), BAD_SOURCES)
def test_a_bad_source_makes_no_pool(
    doors: Doors, columns: dict[str, object], parts: list[str]
) -> None:
    source = _source(doors, **columns)
    words = ("--id-column", "id", "--label-column", "label", "--test-share", "0")
    doors("ingest", source, "pool", *words).refused(*parts)
    assert sorted(path.name for path in doors.folder.iterdir()) == ["in.parquet"]
    source.unlink()
    _source(doors, id=pa.array([7, 8, 9], pa.int64()))
    said = doors("ingest", source, "pool", *words).done()
    assert "pool: 3 rows in 1 shards, 0 test rows, 2 classes" in said.out


def test_a_second_source_into_the_same_folder(doors: Doors, class_pool: Pool) -> None:
    source = _source(doors)
    doors("ingest", source, "pool", "--label-column", "label").done()
    before = contents(doors.folder / "pool")
    other = _source(doors, "other.parquet", height=[1, 2, 3])
    doors("ingest", other, "pool", "--label-column", "label").refused(
        "holds a pool that was made of something else",
        "no file of it was taken before",
        "choose another",
    )
    doors("ingest", source, "pool").refused("label_column: 'label' there, None asked for")
    (doors.folder / "letters").mkdir()
    (doors.folder / "letters" / "mine.txt").write_text("keep me")
    doors("ingest", source, "letters").refused("exists and is not a pool", "choose another folder")
    assert (doors.folder / "letters" / "mine.txt").read_text() == "keep me"
    assert contents(doors.folder / "pool") == before
    doors("ingest", source, "pool", "--label-column", "label").done()


def test_a_source_that_is_not_there_or_is_damaged(doors: Doors) -> None:
    doors("ingest", "gone.parquet", "pool").refused("gone.parquet does not exist", "give a file, a")
    source = _source(doors)
    doors("ingest", source, "pool", "--label-column", "lable").refused(
        "no column 'lable' to be the label column (it has: embedding, label)"
    )
    source.write_bytes(source.read_bytes()[:-20])
    doors("ingest", source, "pool").refused("in.parquet cannot be read as parquet", "mend or remov")
    assert not (doors.folder / "pool").exists()


def test_any_parquet_with_an_embedding(doors: Doors) -> None:
    """Columns that no model reads may be what they like; those of the ledger's names are left out.

    A number that a transform does read is rejected where it is none.
    """
    write_embeddings(doors.folder / "in.parquet", 400)
    table = pq.read_table(doors.folder / "in.parquet")
    more = {
        "input_ids": [list(range(row % 4)) for row in range(400)],
        "spans": [None if row == 9 else [row, row] for row in range(400)],
        "facts": pa.array([[("a", row)] for row in range(400)], pa.map_(pa.string(), pa.int64())),
        "height": [np.nan if row == 7 else 1.5 for row in range(400)],
        "weight": range(400),
        "score": range(400),
    }
    for name, column in more.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, doors.folder / "in.parquet")
    words = ("ingest", "in.parquet", "pool", "--label-column", "label")
    doors(*words).refused("a column 'weight', a name that rayal writes", "--drop weight")
    said = doors(*words, "--drop", "weight,score", "--test-share", "0").done()
    assert "note: column 'input_ids' is stored as lists: it is empty in row 0" in said.out
    assert "note: column 'spans' is stored as lists" in said.out
    doors.run(
        "pool", "r", "labeler=file_drop", "labeler.columns=all"
    ).done()  # which sends every column to a person
    doors.run("pool", "s", "model.transform.column=input_ids").refused(
        "of 400 rows could not be decoded, more than max_rejected_share"
    )
    both = ("model.transform.column=[embedding,height]", "max_rejected_share=0.01")
    said = doors.run("pool", "t", *both).done()
    assert "1 of 400 rows could not be decoded and are left out" in said.err
    assert [one["sample_id"] for one in _rejected(doors.folder / "t")] == [7]


# ------------------------------------------------------------------------------- the folder


def test_a_pool_that_was_made_otherwise(doors: Doors) -> None:
    words = ("run", "experiment=sum_regression", "pool.path=sums", "trainer.num_members=2")
    words += ("num_rounds=1", "budget=10", "trainer.epochs=1", "trainer.min_steps=5")
    doors(*words, "run_dir=r", "source='300'").done()
    doors(*words, "run_dir=s", "source='900'").refused(
        "sums was made otherwise: source=900 is asked for, it is of 300;", "another pool.path"
    )
    doors(*words, "run_dir=s", "pool.test_share=0.5", "pool.drop=[x]").refused(
        "pool.test_share=0.5 is asked for, it has 0.1, pool.drop=[x] is asked for, it has none"
    )
    doors(*words, "run_dir=s", "pool.recipe=nope").refused("there is no recipe 'nope'")
    assert not (doors.folder / "s").exists()
    doors(*words, "run_dir=v").done()  # whatever it was made of
    doors.run("nosuch://bucket/pool", "u").refused(
        "nosuch://bucket: neither pyarrow nor fsspec can open it", "such as s3://bucket/folder"
    )


def test_a_pool_without_a_manifest(doors: Doors, own_pool: Path) -> None:
    manifest = (own_pool / "manifest.json").read_bytes()
    (own_pool / "manifest.json").unlink()
    doors.run(own_pool, "r").refused("is not a pool: it has no manifest.json", "rayal ingest")
    (own_pool / "manifest.json").write_bytes(manifest[:200])
    doors.run(own_pool, "r").refused("manifest.json is not a manifest of a pool", "ingest the sour")
    doors.run("gone", "r").refused("gone is not a pool: it does not exist", "rayal ingest SOURCE")
    assert not (doors.folder / "r").exists()
    (own_pool / "manifest.json").write_bytes(manifest)
    doors.run(own_pool, "r").done()


@pytest.mark.parametrize("split", ["shards", "test", "labels"])
def test_a_shard_that_is_missing_or_truncated(doors: Doors, own_pool: Path, split: str) -> None:
    shard = own_pool / split / "shard-00002.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    doors.run(own_pool, "r").refused(
        f"{split}/shard-00002.parquet has {len(content) - 9} bytes, expected {len(content)}",
        "shard 2, ", "restore the file, or ingest the source again",
    )  # fmt: skip
    shard.unlink()
    doors.run(own_pool, "r").refused(f"{split}/shard-00002.parquet is missing", "restore the file")
    assert not (doors.folder / "r").exists()
    shard.write_bytes(content)
    doors.run(own_pool, "r").done()


def test_a_shard_that_changes_under_a_run(doors: Doors, own_pool: Path, engine: list[str]) -> None:
    """Another schema and damage inside are found when the shard is read: while scoring."""
    doors.run(own_pool, "plain").done()
    doors.run(own_pool, "r", "num_rounds=1").done()
    before = contents(doors.folder / "r" / "rounds")
    shard, manifest = own_pool / "shards" / "shard-00003.parquet", own_pool / "manifest.json"
    content, text = shard.read_bytes(), manifest.read_text()

    table = pq.read_table(shard)
    pq.write_table(table.rename_columns(["sample_id", "vector"]), shard)
    fields = json.loads(text)
    (entry,) = (e for e in fields["shards"] if e["path"] == "shards/shard-00003.parquet")
    entry["size_bytes"] = shard.stat().st_size  # else the size alone gives it away
    manifest.write_text(json.dumps(fields))
    doors.run(own_pool, "r", *engine).refused(
        "shard-00003.parquet has another schema than the manifest",
        "embedding is absent, expected 8 x float32", "pool shard 3, ", "restore the file",
    )  # fmt: skip
    manifest.write_text(text)

    shard.write_bytes(content[:4] + b"\xff" * 400 + content[404:])
    doors.run(own_pool, "r", *engine).refused(
        "shard-00003.parquet is damaged", "pool shard 3, ", "restore the file"
    )
    assert json.loads(doors("status", "r", "--json").done().out)["state"] == "failed"

    altered = bytearray(content)  # numbers inside of vectors, which any reader would take
    altered[2000:2600] = bytes(byte ^ 1 for byte in altered[2000:2600])
    shard.write_bytes(bytes(altered))
    doors.run(own_pool, "r", *engine).refused(
        "shard-00003.parquet is damaged", "CRC checksum", "pool shard 3, ", "restore the file"
    )

    assert contents(doors.folder / "r" / "rounds").items() >= before.items()
    shard.write_bytes(content)
    doors.run(own_pool, "r").done()
    assert doors.digest("r") == doors.digest("plain")


# ------------------------------------------------------------------------- rows without a text

NUM_TEXTS = 400


def _text_pool(folder: Path, nulls: list[int]) -> Path:
    rng = np.random.default_rng(0)
    labels = [("red", "blue")[place] for place in rng.integers(0, 2, NUM_TEXTS)]
    texts: list[str | None] = [f"{x} {n}" for n, x in enumerate(labels)]
    for row in nulls:
        texts[row] = None
    table = pa.table({"text": pa.array(texts, pa.string()), "label": labels})
    pq.write_table(table, folder / "texts.parquet")
    source = str(folder / "texts.parquet")
    ingest(source, str(folder / "texts"), label_column="label", test_share=0.0, rows_per_shard=100)
    return folder / "texts"


TEXT = ["model=ngram_bag", "model.transform.num_buckets=1024"]


def test_rows_that_cannot_be_decoded_are_counted_and_listed(
    doors: Doors, engine: list[str]
) -> None:
    pool = _text_pool(doors.folder, [3, 150, 151, 390])
    words = [*TEXT, *engine]
    said = doors.run(pool, "r", *words, "max_rejected_share=0.01").done()
    assert "4 of 400 rows could not be decoded and are left out" in said.err
    assert _rejected(doors.folder / "r") == [
        {"sample_id": row, "shard": row // 100, "round": 1, "reason": "column 'text' is null there"}
        for row in (3, 150, 151, 390)
    ]
    assert _picked(doors.folder / "r").isdisjoint({3, 150, 151, 390})

    doors.run(pool, "s", *words, "max_rejected_share=0.009").refused(
        "4 of 400 rows could not be decoded", "more than max_rejected_share=0.009 allows",
        "first sample_id 3", "s/rejected.parquet", "mend the source, or raise it",
    )  # fmt: skip
    listed = [one["sample_id"] for one in _rejected(doors.folder / "s")]
    assert listed == [3, 150, 151, 390]
    doors.run(pool, "s", *TEXT, "max_rejected_share=0.01").done()
    assert doors.digest("s") == doors.digest("r")


def test_no_label_is_bought_for_a_row_that_no_model_can_read(doors: Doors) -> None:
    """The cold start needs no model and decodes nothing; every third row has no text here."""
    nulls = list(range(0, NUM_TEXTS, 3))
    pool = _text_pool(doors.folder, nulls)
    doors.run(pool, "strict", *TEXT, "strategy=random").refused("134 of 400 rows could not be deco")
    assert not (doors.folder / "strict" / "labeler").exists()
    doors.run(pool, "r", *TEXT, "strategy=random", "max_rejected_share=0.5").done()
    picked = _picked(doors.folder / "r")
    assert len(picked) == 40
    assert picked.isdisjoint(nulls)


def _rejected(run_dir: Path) -> list[dict[str, object]]:
    return pq.read_table(run_dir / "rejected.parquet").to_pylist()


def _picked(run_dir: Path) -> set[int]:
    batches = run_dir.glob("rounds/*/batch.parquet")
    return {i for path in batches for i in pq.read_table(path).column("sample_id").to_pylist()}


# ------------------------------------------------------------------- a class without a label


def test_a_class_that_no_label_shows_is_said(doors: Doors, engine: list[str]) -> None:
    write_embeddings(doors.folder / "rows.parquet", 400)
    table = pq.read_table(doors.folder / "rows.parquet")
    rare = pa.array(["emu" if row == 0 else x for row, x in enumerate(table["label"].to_pylist())])
    pq.write_table(table.set_column(1, "label", rare), doors.folder / "rows.parquet")
    doors("ingest", "rows.parquet", "pool", "--label-column", "label").done()
    said = doors.run("pool", "r", *engine).done()
    line = "warning: no label shows 1 of 5 classes yet: 'emu'; the model cannot learn them until"
    assert said.err.count(line) == 2  # once a round


@pytest.mark.parametrize("engine", [["engine=local"], ["strategy=gsx", "strategy@cold_start=gsx"]])
def test_rows_without_a_vector_are_left_out_and_listed(doors: Doors, engine: list[str]) -> None:
    """With a model, and by a strategy that looks at the column itself."""
    table = pq.read_table(write_embeddings(doors.folder / "in.parquet", 400))
    rows = table["embedding"].to_pylist()
    rows[7], rows[11], rows[13] = None, rows[11][:3], [None, *rows[13][1:]]
    odd = table.set_column(0, "embedding", pa.array(rows, pa.list_(pa.float32())))
    pq.write_table(odd, doors.folder / "in.parquet")
    words = ("ingest", "in.parquet", "pool", "--label-column", "label", "--test-share", "0")
    said = doors(*words).done()
    assert "note: column 'embedding' is stored as lists: it is null in row 7" in said.out
    doors.run("pool", "r", "budget=150", "max_rejected_share=0.01", *engine).done()
    picked = _picked(doors.folder / "r")
    assert len(picked) == 300
    assert picked.isdisjoint({7, 11, 13})
    found = {one["sample_id"]: one["reason"] for one in _rejected(doors.folder / "r")}
    assert list(found) == [7, 11, 13]
    assert all("vector" in why or "null" in why or "finite" in why for why in found.values()), found
    doors.run("pool", "s", "max_rejected_share=0.001", *engine, "budget=150").refused(
        "3 of 400 rows could not be decoded, more than max_rejected_share=0.001"
    )
