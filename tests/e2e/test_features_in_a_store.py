"""Features in a bucket of a real S3 API: the bytes of a disk, read once, kept from each other."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import Bucket, forget_copies
from commands import Command
from doors import Doors, small
from features import COLUMN, MODEL, checkpoint_of, embed, set_of, values_in
from runs import write_embeddings

from rayal.errors import ConfigError, PoolError
from rayal.places import Place, patience, signs
from rayal.places.patience import Patience
from rayal.places.signs import Sign, is_used
from rayal.pool import Pool, feature_users, ingest, open_pool
from rayal.pool.feature_file import FeatureWriter
from rayal.pool.feature_room import clear_leftovers, make_room
from rayal.pool.feature_users import USED, WRITER, alone_in_set, keep_open, let_go
from rayal.pool.features import NAME, FeatureSet, sets_in, with_features, write_set

HEAD = ["model=linear", "model.transform.column=deep", COLUMN]
MIB = 2**20


@pytest.fixture
def root(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder of the bucket; a store that is busy is asked again soon."""
    monkeypatch.setattr(patience, "DEFAULT", Patience(first_wait_s=0.01, longest_wait_s=0.02))
    forget_copies()
    return Place.of(bucket.url) / uuid.uuid4().hex


def files_in(place: Place) -> dict[str, bytes]:
    """What a set holds, but for who uses it."""
    names = [one.name for one in place.list() if not one.name.startswith(".")]
    return {name: (place / name).read_bytes() for name in names}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if not path.name.startswith(".")
    }


# ------------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_they_are_those_of_a_disk(
    doors: Doors, class_pool: Pool, bucket: Bucket, root: Place, dtype: str
) -> None:
    folder = checkpoint_of(doors, class_pool)
    stored = bucket.take(folder, f"{root.name}/checkpoint")
    here = set_of(embed(doors, class_pool, f"checkpoint={folder}", f"dtype={dtype}"))
    words = (f"checkpoint={stored}", f"dtype={dtype}", f"features={root}/sets")
    said = embed(doors, class_pool, *words).done()
    assert f"{root}/sets/{here.name}: " in said.out
    assert "10 of 10 shards were embedded now" in said.out
    place = root / "sets" / here.name
    assert files_in(place) == on_disk(here)
    assert "0 of 10 shards" in embed(doors, class_pool, *words).done().out
    ids, found_ND = values_in(class_pool, here)
    same, stored_ND = values_in(class_pool, place.url)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ids, same)
    np.testing.assert_array_equal(found_ND, stored_ND)


def test_a_run_that_reads_them_is_that_of_a_disk(
    doors: Doors, class_pool: Pool, root: Place
) -> None:
    folder = checkpoint_of(doors, class_pool)
    embed(doors, class_pool, f"checkpoint={folder}").done()
    embed(doors, class_pool, f"checkpoint={folder}", f"features={root}").done()
    more = ("num_rounds=3", "strategy=cluster_margin", *HEAD)
    doors.run(class_pool, "disk", *more, "pool.features=sets").done()
    doors.run(class_pool, "store", *more, f"pool.features={root}").done()
    assert doors.digest("store") == doors.digest("disk")


@pytest.mark.ray
def test_workers_write_and_read_them(doors: Doors, class_pool: Pool, root: Place) -> None:
    """In a process of its own: its workers get the bucket's environment from it."""
    folder = checkpoint_of(doors, class_pool)
    place = set_of(embed(doors, class_pool, f"checkpoint={folder}"))
    ray = ("engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5", "engine.timeout_s=120",
           "engine.object_store_gib=0.1")  # fmt: skip
    words = ["experiment=embeddings", f"pool.path={class_pool.path}", *MODEL, f"features={root}"]
    command = Command([*words, f"checkpoint={folder}", *ray], doors.folder / "log", "embed")
    assert command.wait() == 0, command.text()
    assert files_in(root / place.name) == on_disk(place)
    more = ("num_rounds=2", *HEAD)
    doors.run(class_pool, "disk", *more, f"pool.features={place}").done()
    words = [*small(class_pool, "store", *more), f"pool.features={root}", *ray]
    command = Command([str(word) for word in words], doors.folder / "log")
    assert command.wait() == 0, command.text()
    assert doors.digest("store") == doors.digest("disk")


def test_a_pass_asks_for_each_byte_once(doors: Doors, bucket: Bucket, root: Place) -> None:
    """Of files of many blocks; and some rows are had without the others."""
    rows, width = 60_000, 256
    pq.write_table(pa.table({"number": np.arange(rows)}), doors.folder / "rows.parquet")
    pool = ingest(str(doors.folder / "rows.parquet"), str(doors.folder / "pool"))
    values_ND = np.random.default_rng(0).integers(-99, 99, (rows, width)).astype(np.int8)
    features = FeatureSet(root.url, "k", pool.manifest.versions[0].content_hash, "m", "int8", width)
    features = features.with_scales(np.ones(width, np.float32))
    write_set(features)
    first = 0
    for shard in with_features(pool.manifest):
        with features.making(shard) as temporary:
            writer = FeatureWriter(temporary, features.form, shard.content_hash)
            some = slice(first, first + shard.num_rows)
            writer.add(values_ND[some], np.zeros(shard.num_rows, bool), 0)
            writer.close()
        first += shard.num_rows
    assert not list(features.folder.glob("*.arrow"))  # no copy stays on this machine
    opened = open_pool(pool.path, features=root.url)
    (shard, *_) = opened.shards
    needed = shard.num_rows * width
    assert needed > 12 * MIB
    bucket.requests.clear()
    parts = list(opened.batches(shard, ["sample_id", "embedding"], 1000))
    got = bucket.got(r"\.arrow")
    assert sum(one.num_bytes for one in got) <= 1.02 * needed
    assert len(got) <= 2 + needed // (4 * MIB) + 1
    assert sum(part.num_rows for part in parts) == shard.num_rows
    bucket.requests.clear()
    ids = opened.ids_at(shard, np.array([7, 40_000]))
    found = opened.rows(ids, ["embedding"])["embedding"].to_pylist()
    expected = [values_ND[at].tobytes() for at in (7, 40_000)]
    assert [bytes(one) for one in found] == expected
    assert sum(one.num_bytes for one in bucket.got(r"\.arrow")) < 9 * MIB


def test_a_store_that_is_busy_is_asked_again(
    doors: Doors, class_pool: Pool, bucket: Bucket, root: Place
) -> None:
    folder = checkpoint_of(doors, class_pool)
    bucket.fail_next(2, 503, "PUT", r"\.arrow")
    said = embed(doors, class_pool, f"checkpoint={folder}", f"features={root}").done()
    expected = values_in(class_pool, set_of(embed(doors, class_pool, f"checkpoint={folder}")))[1]
    bucket.fail_next(2, 503, "GET", r"\.arrow")
    found = values_in(class_pool, said.out.split(": ")[0])[1]  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)
    assert bucket.fail_no_more() == 0


def test_killed_it_goes_on(doors: Doors, bucket: Bucket, root: Place) -> None:
    write_embeddings(doors.folder / "rows.parquet", 6_000)
    pool = ingest(
        str(doors.folder / "rows.parquet"),
        str(doors.folder / "pool"),
        label_column="label",
        rows_per_shard=100,
    )
    checkpoint = f"checkpoint={checkpoint_of(doors, pool)}"
    here = set_of(embed(doors, pool, checkpoint, "dtype=int8"))
    place = root / here.name
    words = ["experiment=embeddings", f"pool.path={pool.path}", *MODEL, f"features={root}"]
    command = Command([*words, checkpoint, "dtype=int8"], doors.folder / "log", "embed")
    assert command.until(lambda: len(_arrows(place)) >= 3), command.text()
    command.kill()
    done = len(_arrows(place))
    assert 3 <= done < 120
    said = embed(doors, pool, checkpoint, "dtype=int8", f"features={root}").done()
    assert f"{120 - done} of 120 shards were embedded now" in said.out
    assert files_in(place) == on_disk(here)


def _arrows(place: Place) -> list[str]:
    return [one.name for one in place.list() if one.name.endswith(".arrow")]


def test_what_is_missing_or_damaged_is_told(doors: Doors, class_pool: Pool, root: Place) -> None:
    folder = checkpoint_of(doors, class_pool)
    words = (f"checkpoint={folder}", f"features={root}")
    place = Place(embed(doors, class_pool, *words).done().out.split(": ")[0])
    first = _arrows(place)[0]
    whole = (place / first).read_bytes()
    (place / first).put_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    run = (*HEAD, f"pool.features={root}", "num_rounds=2")
    doors.run(class_pool, "one", *run).refused(f"{place}/{first}", "checksum", "rayal embed")
    (place / first).remove()
    doors.run(class_pool, "two", *run).refused("1 of 10 shards", "have no features", place.url)
    assert "1 of 10 shards were embedded now" in embed(doors, class_pool, *words).done().out
    assert (place / first).read_bytes() == whole
    doors.run(class_pool, "three", *run).done()
    none = (*HEAD, f"pool.features={root}/none")
    doors.run(class_pool, "four", *none).refused("there are no features in", f"{root}/none")
    no_bucket = (*HEAD, "pool.features=s3://no-such-bucket-of-rayal/x")
    doors.run(class_pool, "five", *no_bucket).refused("no-such-bucket-of-rayal")


# ------------------------------------------------------------------------------- who uses them


def a_set(root: Place, number: int, size_mib: int = 0) -> FeatureSet:
    key = f"{number:016x}"
    features = FeatureSet((root / key).url, key, "pool", "model", "int8", 64)
    if size_mib:
        write_set(features)
        (features.place / "pool-00000-x.arrow").put_bytes(bytes(size_mib * MIB))
        keep_open(features.place)
        let_go(features.place)
        time.sleep(1.0)  # the store's clock has whole seconds
    return features


def names(root: Place) -> list[int]:
    return [int(one.key, 16) for one in sets_in(root)]


def test_the_least_recently_used_go_and_none_in_use(root: Place, class_pool: Pool) -> None:
    shards = with_features(class_pool.manifest)
    sets = [a_set(root, number, 2) for number in (2, 3, 1)]
    wanted = a_set(root, 9)
    assert make_room(root, wanted, shards, 7.5 / 1024) == []
    keep_open(sets[0].place)
    assert make_room(root, wanted, shards, 5 / 1024) == [sets[1].key]
    with pytest.raises(ConfigError, match=f"sets that are in use: {sets[0].key} "):
        make_room(root, wanted, shards, 1 / 1024)
    assert names(root) == [1, 2]
    let_go(sets[0].place)
    with alone_in_set(sets[2].place), pytest.raises(ConfigError, match="in use"):
        make_room(root, wanted, shards, 1 / 1024)
    refused = pytest.raises(PoolError, match="are being written by process")
    with alone_in_set(sets[2].place), refused, alone_in_set(sets[2].place):
        pass
    assert sorted(make_room(root, wanted, shards, 1 / 1024)) == [sets[2].key, sets[0].key]
    assert names(root) == []
    assert not [one for one in root.list() if not one.name.startswith(".")]


def test_who_opens_a_set_that_is_going_keeps_it(
    root: Place, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the removal: it has its description again."""
    old = a_set(root, 1, 2)
    real = Place.remove

    def remove(place: Place) -> None:
        real(place)
        if place.name == NAME:
            keep_open(old.place)

    monkeypatch.setattr(Place, "remove", remove)
    assert make_room(root, a_set(root, 9), with_features(class_pool.manifest), 1 / 1024) == []
    monkeypatch.undo()
    let_go(old.place)


def test_a_sign_of_life_goes_stale(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / USED
    (folder / "of-one-that-was-killed").put_bytes(b"")
    assert is_used(folder)
    assert not is_used(folder, stale_s=0.0)
    sign = Sign(folder, stale_s=0.5)
    time.sleep(2.5)
    assert is_used(folder, stale_s=2.0)  # it is written again and again
    assert (folder / "of-one-that-was-killed").exists()
    second = Sign(folder, stale_s=2.0)
    assert not (folder / "of-one-that-was-killed").exists()
    second.end()
    sign.end()
    assert [one.name for one in folder.list()] == ["last"]
    assert not is_used(folder)
    assert signs.STALE_S >= 60.0


def test_what_a_kill_left_goes(root: Place) -> None:
    half, begun = root / f"{1:016x}", root / f"{2:016x}"
    (half / "model" / "member-0.pt").put_bytes(b"x")
    (root / "mine" / "file").put_bytes(b"x")
    with alone_in_set(begun):
        clear_leftovers(root)
        assert (begun / WRITER / "00000001").exists()
    assert not half.is_folder()
    assert (root / "mine" / "file").exists()


def test_who_may_not_write_may_read(
    root: Place, class_pool: Pool, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = a_set(root, 1, 1)
    bucket.fail_next(1, 403, "PUT", USED)
    keep_open(features.place)
    assert features.place.url not in feature_users._OPEN
    assert bucket.fail_no_more() == 0


def test_a_plan_and_a_budget_know_them(doors: Doors, class_pool: Pool, root: Place) -> None:
    folder = checkpoint_of(doors, class_pool)
    first = embed(doors, class_pool, f"checkpoint={folder}", f"features={root}").done()
    words = [*small(class_pool, "planned", *HEAD), f"pool.features={root}"]
    assert "label" in doors("plan", *words).done().out
    time.sleep(1.0)  # the store's clock has whole seconds
    int8 = (f"checkpoint={folder}", f"features={root}", "dtype=int8")
    tight = "features_gib=0.00004"
    said = embed(doors, class_pool, *int8, tight).refused("sets that are in use")
    old = Place(first.out.split(": ")[0])
    assert old.name in said  # this process opened it, for the plan
    let_go(old)
    done = embed(doors, class_pool, *int8, tight).done()
    assert f"the set {old.name}, least recently used, was removed for room" in done.err
    assert not old.is_folder()
