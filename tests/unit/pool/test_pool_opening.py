"""A pool that is there, and what a run asks of how it was made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.errors import ConfigError, PoolError
from rayal.pool import Pool, ingest, open_pool
from rayal.pool.sources import Files


def _source(place: Path, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    table = {"uid": range(50), "v": rng.normal(size=(50, 2)).tolist(), "w": range(50)}
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**table, "y": ["a", "b"] * 25}), place)
    return str(place)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.chdir(tmp_path)
    _source(tmp_path / "in.parquet")
    options: dict[str, Any] = {"id_column": "uid", "label_column": "y", "drop": ["w"]}
    return ingest("in.parquet", str(tmp_path / "pool"), test_share=0.25, **options)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"source": "in.parquet"},
        {"source": "./in.parquet", "label_column": "y", "id_column": "uid"},
        {"test_share": 0.25, "drop": ["w"]},
        {"drop": []},
    ],
)
def test_what_was_asked_for_before_is_there(pool: Pool, asked: dict[str, Any]) -> None:
    assert open_pool(pool.path, **asked) == pool


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"source": "other.parquet"}, "source=other.parquet is asked for, it is of in.parquet"),
        ({"source": "no.parquet"}, "source=no.parquet (which cannot be read) is asked for, it is"),
        ({"recipe": "digits"}, "pool.recipe=digits is asked for, it is of no recipe but files"),
        ({"label_column": "foo"}, "pool.label_column=foo is asked for, it has y"),
        ({"id_column": "foo"}, "pool.id_column=foo is asked for, it has uid"),
        ({"test_share": 0.1}, "pool.test_share=0.1 is asked for, it has 0.25"),
        ({"drop": ["w", "v"]}, "pool.drop=[v,w] is asked for, it has [w]"),
        ({"test_share": 0.1, "id_column": "x"}, "=x is asked for, it has uid, pool.test_share=0.1"),
    ],
)
def test_anything_else_is_one_line_with_both(
    pool: Pool, tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    _source(tmp_path / "other.parquet", seed=1)
    with pytest.raises(ConfigError) as caught:
        open_pool(pool.path, **asked)
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"the pool {pool.path} was made otherwise: ")
    assert message.endswith("to take the pool as it is, or choose another pool.path")
    assert "\n" not in message


def test_a_source_that_moved_or_is_gone_is_still_the_same(pool: Pool, tmp_path: Path) -> None:
    shutil.copy("in.parquet", tmp_path / "copy.parquet")
    assert open_pool(pool.path, source="copy.parquet") == pool
    Path("in.parquet").rename("moved.parquet")
    for name in ("moved.parquet", "in.parquet", str(tmp_path / "in.parquet")):
        assert open_pool(pool.path, source=name) == pool
    _source(tmp_path / "in.parquet", seed=1)
    assert open_pool(pool.path, source="in.parquet") == replace(pool, changed="in.parquet")


def test_contents_that_cannot_be_sampled_are_known_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Files) -> str:
        raise OSError("this file system cannot seek")

    source = _source(tmp_path / "in.parquet")
    monkeypatch.setattr(Files, "sample", property(fail))
    pool = ingest(source, str(tmp_path / "pool"), label_column="y", drop=["w"])
    monkeypatch.undo()
    assert open_pool(pool.path, source) == pool
    other = _source(tmp_path / "copy.parquet")
    with pytest.raises(ConfigError, match=r"source=.*copy.parquet is asked for, it is of .*in.par"):
        open_pool(pool.path, other)


def test_a_folder_of_files_is_known_by_what_is_in_them(tmp_path: Path) -> None:
    for name in "ab":
        _source(tmp_path / "one" / f"{name}.parquet", seed=ord(name))
    pool = ingest(str(tmp_path / "one"), str(tmp_path / "pool"), drop=["w"], label_column="y")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert open_pool(pool.path, str(tmp_path / "two")) == pool
    (tmp_path / "two" / "a.parquet").rename(tmp_path / "two" / "c.parquet")  # another order
    with pytest.raises(ConfigError, match=r"source=.*two is asked for, it is of .*one"):
        open_pool(pool.path, str(tmp_path / "two"))


def test_where_a_source_lay_is_no_part_of_what_a_pool_holds(tmp_path: Path) -> None:
    one, two = (_source(tmp_path / name / "in.parquet") for name in "ab")
    hashes = {ingest(s, s + "-pool", drop=["w"], label_column="y").content_hash for s in (one, two)}
    assert len(hashes) == 1


def test_recipes(tmp_path: Path) -> None:
    path = str(tmp_path / "pool")
    pool = open_pool(path, "300", "sum_regression")
    for asked in ({}, {"source": "300"}, {"label_column": "sum"}):
        assert open_pool(path, recipe="sum_regression", **asked) == pool
    assert open_pool(path) == pool
    with pytest.raises(ConfigError, match="source=900 is asked for, it is of 300; leave"):
        open_pool(path, "900", "sum_regression")
    with pytest.raises(ConfigError, match=r"source=in.csv \(which cannot be read\) is asked for"):
        open_pool(path, "in.csv")
    with pytest.raises(ConfigError, match=r"pool.recipe=digits is asked for, it is of sum_regr"):
        open_pool(path, recipe="digits")
    with pytest.raises(PoolError, match="there is no recipe 'nope'; there are: language_id"):
        open_pool(path, recipe="nope")


def test_a_pool_from_before_this_was_noted(pool: Pool) -> None:
    place = Path(pool.path) / "manifest.json"
    fields = json.loads(place.read_text())
    for key in ("asked", "notes"):
        del fields[key]
    del fields["source"]["drop"]
    place.write_text(json.dumps(fields))
    opened = open_pool(pool.path, source="elsewhere.parquet", drop=["x"])
    assert opened.content_hash == pool.content_hash
    assert ingest("in.parquet", pool.path, id_column="uid", label_column="y", test_share=0.25)
    fields["source"] = {}
    place.write_text(json.dumps(fields))
    assert open_pool(pool.path, recipe="digits", label_column="foo", test_share=0.1)
