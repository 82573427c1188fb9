"""A folder of sets within its budget: who goes, who stays, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rayal.errors import ConfigError, PoolError
from rayal.locks import lock
from rayal.places import Place
from rayal.pool import Pool, feature_room
from rayal.pool.feature_room import clear_leftovers, make_room, remove_superseded, size_bytes
from rayal.pool.feature_users import USED, WRITER, keep_open, let_go
from rayal.pool.features import FeatureSet, sets_in, with_features, write_set

MIB = 2**20


def a_set(folder: Path, number: int, size_mib: int = 0, used_at: int = 0) -> FeatureSet:
    """A set in the folder, with a file of so many MiB, last used at that second."""
    key = f"{number:016x}"
    features = FeatureSet(str(folder / key), key, "pool", "model", "int8", 64)
    if size_mib:
        write_set(features)
        (folder / key / "pool-00000-x.arrow").write_bytes(bytes(size_mib * MIB))
        keep_open(features.place)
        let_go(features.place)
        os.utime(folder / key / USED, (used_at, used_at))
    return features


def names(folder: Path) -> list[int]:
    return [int(one.key, 16) for one in sets_in(Place.of(str(folder)))]


def test_the_least_recently_used_go_first_and_no_more_than_needed(
    tmp_path: Path, class_pool: Pool
) -> None:
    for number, used_at in ((1, 300), (2, 100), (3, 200)):
        a_set(tmp_path, number, 2, used_at)
    shards = with_features(class_pool.manifest)
    wanted = a_set(tmp_path, 9)
    assert size_bytes(wanted, shards) < MIB
    assert make_room(Place.of(str(tmp_path)), wanted, shards, None) == []
    assert make_room(Place.of(str(tmp_path)), wanted, shards, 7.5 / 1024) == []
    assert make_room(Place.of(str(tmp_path)), wanted, shards, 6 / 1024) == [f"{2:016x}"]
    assert names(tmp_path) == [1, 3]
    assert make_room(Place.of(str(tmp_path)), wanted, shards, 1 / 1024) == [
        f"{3:016x}",
        f"{1:016x}",
    ]
    assert names(tmp_path) == []


def test_a_set_in_use_stays(tmp_path: Path, class_pool: Pool) -> None:
    shards, wanted = with_features(class_pool.manifest), a_set(tmp_path, 9)
    old = a_set(tmp_path, 1, 2, 100)
    a_set(tmp_path, 2, 2, 200)
    keep_open(old.place)
    try:
        os.utime(Path(old.path) / USED, (100, 100))
        with pytest.raises(
            ConfigError, match=r"leaves less beside sets that are in use: 0{15}1 \(0.00195 GiB\)"
        ):
            make_room(Place.of(str(tmp_path)), wanted, shards, 2 / 1024)
        assert names(tmp_path) == [1, 2]  # nothing goes where that would not be enough
        assert make_room(Place.of(str(tmp_path)), wanted, shards, 3 / 1024) == [f"{2:016x}"]
    finally:
        let_go(old.place)
    assert make_room(Place.of(str(tmp_path)), wanted, shards, 1 / 1024) == [f"{1:016x}"]


def test_a_set_that_is_being_written_stays(tmp_path: Path, class_pool: Pool) -> None:
    shards, wanted = with_features(class_pool.manifest), a_set(tmp_path, 9)
    old = a_set(tmp_path, 1, 2, 100)
    file = lock(Path(old.path) / WRITER)
    assert file is not None
    with file, pytest.raises(ConfigError, match="in use"):
        make_room(Place.of(str(tmp_path)), wanted, shards, 1 / 1024)


def test_what_cannot_fit_is_refused_with_its_arithmetic(
    tmp_path: Path, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = with_features(class_pool.manifest)
    wide = FeatureSet(str(tmp_path / "x"), "x", "pool", "model", "float16", 1_000)
    with pytest.raises(ConfigError) as error:
        make_room(Place.of(str(tmp_path)), wide, shards, 1.5 / 1024)
    assert str(error.value) == (
        "these features take 0.00189 GiB (1,000 rows x 1,000 x 2 bytes), more than "
        "features_gib=0.00146484; raise it, or take dtype=int8"
    )
    with pytest.raises(ConfigError, match=r"features_gib=0\.0001; raise it$"):
        make_room(Place.of(str(tmp_path)), wide, shards, 0.0001)

    class Usage:
        free = MIB

    monkeypatch.setattr(feature_room.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(
        ConfigError,
        match=r"take 0.00189 GiB more \(1,000 rows .*has 0.000977 GiB free; free some space",
    ):
        make_room(Place.of(str(tmp_path)), wide, shards, None)


def test_what_a_kill_left_goes(tmp_path: Path) -> None:
    half, begun = tmp_path / f"{1:016x}", tmp_path / f"{2:016x}"
    (half / "model").mkdir(parents=True)
    begun.mkdir()
    (tmp_path / "mine").mkdir()
    whole = a_set(tmp_path, 3, 1)
    file = lock(begun / WRITER)
    assert file is not None
    with file:
        clear_leftovers(Place.of(str(tmp_path)))
    assert sorted(one.name for one in tmp_path.iterdir()) == [begun.name, whole.key, "mine"]


def test_files_of_shards_that_are_no_more_go(tmp_path: Path, class_pool: Pool) -> None:
    features = a_set(tmp_path, 1, 1)
    here = features.place_of(class_pool.shards[0]).local
    here.write_bytes(b"x")
    assert remove_superseded(features, class_pool.manifest) == 1
    assert [one.name for one in Path(features.path).glob("*.arrow")] == [here.name]


def test_a_set_that_is_being_removed_is_not_opened(tmp_path: Path) -> None:
    features: Any = a_set(tmp_path, 1, 1)
    file = lock(Path(features.path) / USED)
    assert file is not None
    with file, pytest.raises(PoolError, match="are being removed; run rayal embed"):
        keep_open(features.place)
