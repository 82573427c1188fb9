"""The folder of `--work`: who works in it, what is taken up again, and what goes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pytest
from given import only, outputs_of, rows_of, table_of, write_files

import rayal
from rayal import locks
from rayal.errors import ConfigError, RayalError
from rayal.selection.pool import stage
from rayal.selection.work import alone_in, open_work, temporary_in

ARRAYS = only(outputs_of(2_000, seed=3), "embedding", "group")
WANTED = (("embeds", "embedding"), ("group", "group"))


def _filtered(folder: Path, arrays: dict[str, np.ndarray]) -> pa_dataset.Dataset:
    write_files(folder, arrays, num_files=2, row_group_size=500)
    return pa_dataset.dataset(str(folder)).filter(pa_dataset.field("sample_id") > -1_000)


def _partitioned(folder: Path, arrays: dict[str, np.ndarray]) -> pa_dataset.Dataset:
    pa_dataset.write_dataset(
        table_of(arrays), folder, format="parquet", partitioning=["group"],
        existing_data_behavior="overwrite_or_ignore",
    )  # fmt: skip
    return pa_dataset.dataset(str(folder), partitioning=["group"])


def _made(work: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in work.glob("*/shard-*.arrow")}


@pytest.mark.parametrize("form", [_filtered, _partitioned])
def test_a_stream_is_taken_up_again_and_only_with_the_same_rows(form, tmp_path, monkeypatch):
    added: list[dict] = []
    real = rayal.journal.Journal.add

    def counted(self, **entry):
        added.append(entry)
        real(self, **entry)

    monkeypatch.setattr("rayal.journal.Journal.add", counted)
    asked = {"budget": 150, "work": tmp_path / "work"}
    first = rayal.select(form(tmp_path / "rows", ARRAYS), **asked)
    before, num_added = _made(tmp_path / "work"), len(added)
    assert before
    assert num_added
    assert rayal.select(form(tmp_path / "rows", ARRAYS), **asked)["sample_id"].equals(
        first["sample_id"]
    )
    assert _made(tmp_path / "work") == before
    assert len(added) == num_added  # no round was made again
    changed = {name: values.copy() for name, values in ARRAYS.items()}
    changed["embedding"][np.flatnonzero(ARRAYS["sample_id"] > 0)[7]] += 40.0
    found = rayal.select(form(tmp_path / "rows", changed), **asked)
    assert len(added) > num_added
    assert not {*_made(tmp_path / "work")} & {*before}
    expected = rayal.select(form(tmp_path / "rows", changed), budget=150)
    assert found["sample_id"].equals(expected["sample_id"])


def test_the_order_of_a_stream_does_not_matter_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr("rayal.selection.pool._SHARD_ROWS", 256)
    monkeypatch.setattr("rayal.selection.pool._BATCH_ROWS", 64)
    expected = rayal.select(ARRAYS, budget=100)
    real, calls = rayal.engine.local.LocalEngine._score, []

    def dying(self, shard, scoring, cut):
        calls.append(shard.index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, shard, scoring, cut)

    monkeypatch.setattr("rayal.engine.local.LocalEngine._score", dying)
    table = table_of(ARRAYS)
    for seed in (0, 1):  # killed amid the first
        order = np.random.default_rng(seed).permutation(len(table))
        outputs = pa_dataset.dataset([table.take(pa.array(order))])
        if seed == 0:
            with pytest.raises(KeyboardInterrupt):
                rayal.select(outputs, budget=100, work=tmp_path)
            before = _made(tmp_path)
            assert len(before) == 3
        else:
            found = rayal.select(outputs, budget=100, work=tmp_path)
    after = _made(tmp_path)
    assert len(after) > 3
    assert {path: after[path] for path in before} == before  # the first three were taken up
    assert found["sample_id"].equals(expected["sample_id"])


def _content(table: pa.Table, folder: Path, rows: int) -> str:
    return stage(table.to_batches(rows), WANTED, "sample_id", folder, True)[0].fingerprint


def test_a_hash_of_rows_tells_contents_apart_and_no_orders(tmp_path):
    words = np.array(["ant", "bee", "cat", "dog" * 30])[ARRAYS["group"]]
    table = table_of({**rows_of(ARRAYS, np.arange(300)), "group": words[:300]})
    first = _content(table, tmp_path, 300)
    assert _content(table, tmp_path, 7) == first
    assert _content(table.take(pa.array(np.arange(300)[::-1])), tmp_path, 50) == first
    others = [table.slice(0, 299), table.slice(1)]
    embeds = table["embedding"].combine_chunks()
    swapped = embeds.take(pa.array([1, 0, *range(2, 300)]))  # two rows change places
    others.append(table.set_column(1, "embedding", swapped))
    others.append(table.set_column(1, "embedding", embeds.cast(pa.list_(pa.float64()))))
    longer = pa.array([*words[:299].tolist(), words[299] + "s"])
    others.append(table.set_column(2, "group", longer))
    assert len({first, *(_content(one, tmp_path, 300) for one in others)}) == len(others) + 1


# ------------------------------------------------------------------------------------- who works


def test_a_selection_that_runs_already_is_not_begun_again(tmp_path):
    files = write_files(tmp_path / "files", ARRAYS)
    asked = {"budget": 50, "work": tmp_path / "work"}
    expected = rayal.select(files, **asked)
    (place,) = (tmp_path / "work").iterdir()
    said = f"already running in {place}, by process {os.getpid()} on "
    with alone_in(place):
        with pytest.raises(RayalError, match=said) as error:
            rayal.select(files, **asked)
        assert "wait for it or end it" in str(error.value)
        assert "\n" not in str(error.value)
        other = rayal.select(files, seed=1, **asked)  # another one may run beside it
    assert (place / "done").exists()  # and does not remove it
    assert other.num_rows == 50
    assert rayal.select(files, **asked).equals(expected)


def _hold(place: Path) -> None:
    with alone_in(place):
        (place / "begun").touch()
        time.sleep(60)


def test_the_lock_of_a_dead_process_does_not_hold(tmp_path):
    place = tmp_path / "place"
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(place,))
    process.start()
    end = time.monotonic() + 60
    while not (place / "begun").exists() and time.monotonic() < end:
        time.sleep(0.02)
    with (
        pytest.raises(RayalError, match=f"by process {process.pid} on "),
        alone_in(place),
    ):
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with alone_in(place):
        assert not (place / "done").exists()
    assert (place / "done").exists()


def test_what_came_to_its_end_goes_with_the_next_that_does(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "c", "d")]
    for place in places[:2]:
        with alone_in(place):
            (tmp_path / f"{place.name}-before").mkdir(exist_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b-before"]
    with pytest.raises(KeyboardInterrupt), alone_in(places[2]):
        raise KeyboardInterrupt
    left = tmp_path / ".tmp-rayal-killed"
    left.mkdir()
    (left / "lock").touch()
    (tmp_path / "mine").mkdir()
    with temporary_in(tmp_path) as staging, alone_in(places[3]):
        pass
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["c", "d", "mine"]  # of what was not finished, and not made here, nothing goes
    assert not staging.exists()
    with temporary_in(tmp_path) as staging:
        with alone_in(places[3]):
            pass
        assert staging.exists()  # another's, which lives


def test_another_version_begins_anew(tmp_path, monkeypatch):
    asked = {"budget": 60, "work": tmp_path / "work"}
    first = rayal.select(ARRAYS, **asked)
    before = _made(tmp_path / "work")
    monkeypatch.setattr("rayal.__version__", "99.0")
    assert rayal.select(ARRAYS, **asked)["sample_id"].equals(first["sample_id"])
    assert before
    assert not {*_made(tmp_path / "work")} & {*before}


def test_a_budget_that_is_too_large_leaves_nothing(tmp_path):
    rows = _filtered(tmp_path / "rows", ARRAYS)
    with pytest.raises(ConfigError, match="more than the"):
        rayal.select(rows, budget=5_000, work=tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_folder_that_cannot_be_made_or_locked_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for work in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="where no folder can be made"):
            open_work(work)

    def unknown(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", unknown)
    with pytest.raises(ConfigError, match="cannot be locked"), alone_in(tmp_path / "x"):
        pass
