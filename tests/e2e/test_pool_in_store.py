"""A pool in a bucket of a real S3 API: made, grown, killed, read, and refused as on a disk."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from buckets import SECRET, Bucket
from commands import Command
from doors import Doors, small
from passes import Stage, all_ids
from runs import digest, picked, write_embeddings

from rayal.engine.local import LocalEngine
from rayal.errors import PlaceError, PoolError
from rayal.places import Place, patience
from rayal.places.patience import Patience
from rayal.pool import Pool, compact, delete, ingest, removed
from rayal.pool.folder import alone_in
from rayal.pool.leftovers import remove_unnamed

SMALL = {"rows_per_shard": 100, "label_column": "label"}


@pytest.fixture
def root(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder of the bucket; a store that is busy is asked again soon."""
    monkeypatch.setattr(patience, "DEFAULT", Patience(first_wait_s=0.01, longest_wait_s=0.02))
    return Place.of(bucket.url) / uuid.uuid4().hex


def _names(place: Place) -> list[str]:
    return [entry.name for entry in place.list()]


def _same(one: Pool, two: Pool) -> bool:
    """Whether two pools hold the same, file by file."""
    return [
        (shard.path, (one.place / shard.path).read_bytes()) for shard in one.manifest.shards
    ] == [(shard.path, (two.place / shard.path).read_bytes()) for shard in two.manifest.shards]


# ------------------------------------------------------------------------------ made and grown


def test_a_pool_of_files_of_the_store_is_that_of_the_disk(root: Place, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        write_embeddings(tmp_path / "in" / f"{number}.parquet", 300, seed=number)
    table = pq.read_table(tmp_path / "in" / "0.parquet", columns=["label"])
    table = table.append_column("x", pa.array(range(len(table))))
    (tmp_path / "csv").mkdir()
    pa_csv.write_csv(table, tmp_path / "csv" / "a.csv")
    (tmp_path / "jsonl").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    (tmp_path / "jsonl" / "a.jsonl").write_text(lines)
    for name in ("in", "csv", "jsonl"):
        for path in (tmp_path / name).iterdir():
            (root / name / path.name).put_file(path)
        here = ingest(str(tmp_path / name), str(tmp_path / f"{name}-pool"), **SMALL)
        glob = f"{(root / name).url}/*.{name.replace('in', 'parquet')}"
        far = ingest((root / name).url, (root / f"{name}-pool").url, **SMALL)
        assert far.content_hash == here.content_hash
        assert _same(far, here)
        assert ingest(glob, str(tmp_path / f"{name}-2"), **SMALL).content_hash == here.content_hash
    assert sorted(set(name.partition("/")[0] for name in _names(root / "in-pool"))) == [
        "files", "labels", "manifest.json", "shards", "test",
    ]  # fmt: skip


def test_it_grows_forgets_and_is_compacted(doors: Doors, root: Place) -> None:
    folder, far, here = doors.folder / "in", (root / "pool").url, doors.folder / "pool"
    folder.mkdir()
    for number in range(2):
        write_embeddings(folder / f"{number}.parquet", 300, seed=number)
        for place in (far, here):
            said = doors("ingest", folder, place, "--label-column", "label").done()
            assert f"{place}: " in said.out
    (doors.folder / "ids").write_text("3\n400\n")
    for place in (far, here):
        doors("pool", "delete", place, "--ids", "ids").done()
    pools = Pool.open(far), Pool.open(str(here))
    assert pools[0].content_hash == pools[1].content_hash
    assert all_ids(pools[0]).tolist() == all_ids(pools[1]).tolist()
    assert not np.isin([3, 400], all_ids(pools[0])).any()
    for place in (far, here):
        doors("pool", "compact", place).done()
    pools = Pool.open(far), Pool.open(str(here))
    assert _same(*pools)
    named = {shard.path for shard in pools[0].manifest.shards}
    assert named == {name for name in _names(root / "pool") if "shard-" in name}
    ids = np.array([599, 4, 301])
    columns = ["embedding", "sample_id"]
    assert pools[0].rows(ids, columns).equals(pools[1].rows(ids, columns))
    assert pools[0].secret_labels(ids) == pools[1].secret_labels(ids)


def test_own_ids_stay_unique_there(root: Place, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        ids = [f"row-{number}-{i}" for i in range(300)]
        pq.write_table(pa.table({"id": ids, "x": range(300)}), tmp_path / f"in/{number}.parquet")
        pool = ingest(str(tmp_path / "in"), (root / "p").url, id_column="id", rows_per_shard=100)
    assert delete(pool.path, ["row-0-7"]) == 1
    assert compact(pool.path) == 1
    pq.write_table(pa.table({"id": ["row-0-7"], "x": [1]}), tmp_path / "in/2.parquet")
    with pytest.raises(PoolError, match="'row-0-7' at a removed row of the pool and"):
        ingest(str(tmp_path / "in"), pool.path, id_column="id", rows_per_shard=100)
    assert "ingest.jsonl" not in _names(root / "p")
    assert Pool.open(pool.path).num_rows + Pool.open(pool.path).num_test_rows == 599


def test_a_strangers_folder_is_not_written_to(root: Place, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    (root / "mine/notes.txt").put_bytes(b"x")
    with pytest.raises(PoolError, match="mine exists and is not a pool; choose another folder"):
        ingest(str(source), (root / "mine").url)
    with pytest.raises(PoolError, match=r"is not a pool: it has no manifest\.json"):
        Pool.open((root / "mine").url)
    with pytest.raises(PoolError, match="is not a pool: it does not exist"):
        Pool.open((root / "none").url)


def test_what_is_refused_leaves_nothing(root: Place, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 1], "x": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(PoolError, match="repeats an id"):
        ingest(str(tmp_path / "in.parquet"), (root / "p").url, id_column="id")
    assert _names(root / "p") == []


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_a_damaged_shard_is_named(root: Place, tmp_path: Path, damage: str) -> None:
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    pool = ingest(str(source), (root / "p").url, **SMALL)
    place = pool.place / pool.shards[1].path
    content = bytearray(place.read_bytes())
    if damage == "gone":
        place.remove()
    elif damage == "short":
        place.put_bytes(bytes(content[:-5]))
    else:
        content[2000] ^= 1
        place.put_bytes(bytes(content))
    said = {"gone": "is missing", "short": "it was cut short", "other": "is damaged"}[damage]
    with pytest.raises(PoolError, match=rf"shard-00001.parquet .*{said}.*pool shard 1"):
        list(pool.batches(pool.shards[1], pool.schema.names, 64))
    if damage != "other":
        with pytest.raises(PoolError, match=said):
            Pool.open(pool.path)


# ------------------------------------------------------------------------------- one at a time

_INGESTS = """
import sys
from rayal.pool import ingest
ingest(sys.argv[1], sys.argv[2], id_column="id", label_column="y", rows_per_shard=500)
"""


def _write_rows(folder: Path, num_files: int) -> None:
    folder.mkdir()
    for number in range(num_files):
        ids = np.arange(4000) + number * 4000
        vectors = np.random.default_rng(number).normal(size=(4000, 8)).astype(np.float32)
        table = {
            "id": [f"row-{i:06d}" for i in ids],
            "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8),
            "y": [f"class-{i % (3 + number)}" for i in ids],
        }
        pq.write_table(pa.table(table), folder / f"{number}.parquet")


def _started(source: Path, place: Place) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _INGESTS, str(source), place.url]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def _shards_put(bucket: Bucket, place: Place) -> list[str]:
    key = place.url.removeprefix("s3://")
    return [
        one.path
        for one in list(bucket.requests)
        if one.method == "PUT" and one.status == 200 and one.path.startswith(f"/{key}/shards/")
    ]


def test_killed_at_several_moments_and_resumed(bucket: Bucket, root: Place, tmp_path: Path) -> None:
    _write_rows(tmp_path / "in", 3)
    words = {"id_column": "id", "label_column": "y", "rows_per_shard": 500}
    whole = ingest(str(tmp_path / "in"), str(tmp_path / "whole"), **words)
    rng = np.random.default_rng(0)
    for num_shards in (0, 2, 7, 13, 23):
        process = _started(tmp_path / "in", root / "pool")
        while process.poll() is None and len(_shards_put(bucket, root / "pool")) < num_shards:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0.0, 0.05)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert "ingest.jsonl" in _names(root / "pool")
    with pytest.raises(PoolError, match="is not a pool yet: its ingest did not come to its end"):
        Pool.open((root / "pool").url)
    process = _started(tmp_path / "in", root / "pool")
    assert process.wait(120) == 0, process.stderr
    put = _shards_put(bucket, root / "pool")
    # A kill costs the shard under way at most, whether it was put or not.
    assert len(set(put)) == len(whole.shards) == 24
    assert len(put) <= len(set(put)) + 5
    pool = Pool.open((root / "pool").url)
    assert pool.content_hash == whole.content_hash
    assert _same(pool, whole)
    files = [path.relative_to(whole.path) for path in Path(whole.path).rglob("*")]
    assert _names(root / "pool") == sorted(
        str(path) for path in files if (Path(whole.path) / path).is_file()
    )


def test_two_at_once_and_the_lock_of_a_dead_one(root: Place, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    holds = "\n".join(
        [
            "import sys, time",
            "from rayal.places import Place",
            "from rayal.pool.folder import alone_in",
            "with alone_in(Place.of(sys.argv[1])):",
            "    print('there', flush=True)",
            "    time.sleep(60)",
        ]
    )
    command = [sys.executable, "-c", holds, (root / "pool").url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        with pytest.raises(PoolError) as caught:
            ingest(str(source), (root / "pool").url, **SMALL)
        message = str(caught.value)
        assert message.startswith(f"{root}/pool is being written by process {process.pid} on ")
        assert re.search(
            r", which gave its last sign of life \d+ s ago; wait for it or end", message
        )
        assert message.endswith("after 60 s without one it is passed over")
        assert _names(root / "pool") == [".lock/00000001"]
        process.send_signal(signal.SIGKILL)
    # Of this machine, whose processes can be looked up; of another it would be waited for.
    assert ingest(str(source), (root / "pool").url, **SMALL).num_rows > 0
    assert not [name for name in _names(root / "pool") if name.startswith(".")]


# --------------------------------------------------------------------------------- runs on it


@pytest.fixture
def pools(root: Place, tmp_path: Path) -> tuple[Pool, Pool]:
    """The same rows on the disk and in the store."""
    source = write_embeddings(tmp_path / "rows.parquet", 1000)
    here = ingest(str(source), str(tmp_path / "pool"), **SMALL)
    return here, ingest(str(source), (root / "pool").url, **SMALL)


def test_a_run_has_the_digest_of_the_local_one(doors: Doors, pools: tuple[Pool, Pool]) -> None:
    for name, pool in zip(("here", "far"), pools, strict=True):
        doors.run(pool, name, "strategy=badge").done()
    assert picked(doors.folder / "here") == picked(doors.folder / "far")
    assert doors.digest("here") == doors.digest("far")


@pytest.mark.ray
def test_the_ray_engine_reads_there(doors: Doors, pools: tuple[Pool, Pool]) -> None:
    here, far = pools
    doors.run(here, "here").done()
    command = Command(
        small(far, doors.folder / "far", "engine=ray", "engine.num_workers=2"),
        doors.folder / "log",
    )
    assert command.wait() == 0, command.text()
    assert doors.digest("here") == digest(doors.folder / "far")


def test_a_busy_store_changes_nothing(
    bucket: Bucket, doors: Doors, pools: tuple[Pool, Pool]
) -> None:
    here, far = pools
    doors.run(here, "here").done()
    for status in (503, 500, 0):
        for shard in far.shards[::2]:
            bucket.fail_next(2, status, "GET", shard.path)
            bucket.fail_next(1, status, "HEAD", shard.path)
    doors.run(far, "far").done()
    assert bucket.fail_no_more() == 0
    assert doors.digest("here") == doors.digest("far")


def test_a_store_that_stays_busy_stops_a_run_that_goes_on_later(
    bucket: Bucket, doors: Doors, pools: tuple[Pool, Pool]
) -> None:
    here, far = pools
    doors.run(here, "here").done()
    bucket.fail_next(1000, 503, "GET", far.shards[3].path)
    doors.run(far, "far").refused("was busy or cut the connection 8 times", far.shards[3].path)
    bucket.fail_no_more()
    doors.run(far, "far").done()
    assert doors.digest("here") == doors.digest("far")


def test_a_pass_reads_each_needed_byte_once(bucket: Bucket, root: Place, tmp_path: Path) -> None:
    pool, needed = _wide_pool(root, tmp_path)
    stage = Stage.build(pool, tmp_path / "stage", "model.transform.column=v")
    loop = stage.loop("margin")
    engine = LocalEngine()
    engine.open(pool, loop.predictor, loop.trainer)
    scoring = stage.scoring(loop.strategy, tmp_path / "pass", 20)
    bucket.requests.clear()
    done = engine.score(scoring)
    engine.close()
    assert done.candidates.num_rows > 20
    read = sum(one.num_bytes for one in bucket.got())
    assert needed <= read <= 1.1 * needed


def _wide_pool(root: Place, tmp_path: Path) -> tuple[Pool, int]:
    """Gives a pool of two shards of 16 MB, whose passes need two of four columns, and their
    bytes."""
    num_rows = 500_000
    rng = np.random.default_rng(0)
    values = pa.array(rng.integers(-128, 128, num_rows * 64, dtype=np.int8))
    other = pa.array(rng.normal(size=num_rows * 16).astype(np.float32))
    table = {
        "before": pa.FixedSizeListArray.from_arrays(other, 16),
        "v": pa.FixedSizeListArray.from_arrays(values, 64),
        "after": [f"text of row {i}" for i in range(num_rows)],
        "y": rng.integers(0, 3, num_rows),
    }
    pq.write_table(pa.table(table), tmp_path / "wide.parquet")
    pool = ingest(str(tmp_path / "wide.parquet"), (root / "wide").url, label_column="y")
    needed = 0
    for shard in pool.shards:
        footer = pq.read_metadata((pool.place / shard.path).open_input())
        for group in (footer.row_group(i) for i in range(footer.num_row_groups)):
            columns = [group.column(i) for i in range(group.num_columns)]
            named = [one for one in columns if one.path_in_schema in ("sample_id", "v")]
            needed += sum(one.total_compressed_size for one in named)
    return pool, needed


# ------------------------------------------------------------------------------------- refused


@pytest.fixture
def words(doors: Doors, root: Place) -> list[list[Any]]:
    """Commands that read or write a pool in the store."""
    source = write_embeddings(doors.folder / "rows.parquet", 300)
    place = (root / "pool").url
    return [
        ["ingest", source, place],
        ["ingest", place, "pool"],
        ["pool", "compact", place],
        ["run", *small(place, "r")],
    ]


def test_a_wrong_key(
    bucket: Bucket, doors: Doors, words: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    for some in words:
        text = doors(*some).refused(
            "the store refuses the credentials (", "correct AWS_ACCESS_KEY_ID and AWS_SECRET"
        )
        assert SECRET not in text


def test_no_credentials(
    bucket: Bucket, doors: Doors, words: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(doors.folder))
    for some in words:
        doors(*some).refused(
            "cannot be reached without credentials",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
        )


def test_no_bucket(bucket: Bucket, doors: Doors, words: list[list[Any]]) -> None:
    for some in words:
        some = [str(word).replace(bucket.url, "s3://no-such-bucket") for word in some]
        doors(*some).refused("there is no bucket 'no-such-bucket' at http://127.0.0.1:")


def test_a_secret_in_a_url(doors: Doors, bucket: Bucket) -> None:
    source = write_embeddings(doors.folder / "rows.parquet", 300)
    place = f"s3://me:{SECRET}@bucket/pool"
    for some in (["ingest", source, place], ["ingest", place, "p"], ["run", *small(place, "r")]):
        assert SECRET not in doors(*some).refused("was given with a password or with arguments")


def test_no_manifest_is_put_over_that_of_another(root: Place, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    pool = ingest(str(source), (root / "a").url, **SMALL)
    other = ingest(str(write_embeddings(tmp_path / "b.parquet", 300, seed=1)),
                   str(tmp_path / "b"), **SMALL)  # fmt: skip
    with alone_in(pool.place) as bench:
        (pool.place / "manifest.json").put_bytes(other.manifest.to_json().encode())
        with pytest.raises(PoolError, match="has changed while this process wrote to the pool"):
            bench.commit(pool.manifest.grown(3, 300, ""), pool.manifest)
    there = (pool.place / "manifest.json").read_bytes()
    assert there == (other.place / "manifest.json").read_bytes()
    with alone_in(pool.place) as bench:
        (pool.place / ".lock/00000001").remove()
        with pytest.raises(PlaceError, match="was taken over by another process"):
            bench.commit(other.manifest, other.manifest)


def test_whoever_was_passed_over_lays_nothing_over_the_files_of_another(
    root: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    pool = ingest(str(source), (root / "a").url, **SMALL)
    name = pool.shards[0].path
    with alone_in(pool.place) as bench:
        (pool.place / ".lock/00000001").remove()
        (bench.folder / name).parent.mkdir()
        (bench.folder / name).write_bytes(b"of one that slept")
        with pytest.raises(PlaceError, match="was taken over by another process"):
            bench.put(name)
        with pytest.raises(PlaceError, match="was taken over by another process"):
            remove_unnamed(bench, None)
    assert Pool.open(pool.path) == pool

    def slept(*arguments: Any) -> Any:
        (pool.place / ".lock/00000001").remove()
        (pool.place / "removed/v00002.parquet").put_bytes(b"of another")
        return wanted(*arguments)

    wanted = removed._wanted
    monkeypatch.setattr(removed, "_wanted", slept)
    with pytest.raises(PlaceError, match="was taken over by another process"):
        delete(pool.path, [str(all_ids(pool)[0])])
    assert (pool.place / "removed/v00002.parquet").read_bytes() == b"of another"
