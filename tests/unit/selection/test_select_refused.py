"""What `rayal.select` refuses, and files that differ in their types."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
from given import (
    ARRAYS,
    BUDGET,
    IDS,
    NUM_ROWS,
    only,
    outputs_of,
    rows_of,
    table_of,
    write_files,
)

import rayal
from rayal.errors import ConfigError, LabelError, NeedsError, PoolError, ScoringError
from rayal.selectors.k_center import KCenter


def _table(**columns: object) -> pa.Table:
    return pa.table({"sample_id": [4, 8, 15, 16, 23], **columns})


ROWS = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
SAME = [[0.5, 0.5]] * 5
REFUSED = [
    (_table(embedding=[*ROWS[:3], [1.0], ROWS[4]]), {}, PoolError,
     "column 'embedding' has 1 numbers at sample_id 16 in the outputs, expected 2"),
    (_table(embedding=[*ROWS[:2], [1.0, float("nan")], *ROWS[3:]]), {}, ScoringError,
     "column 'embedding' holds NaN .* in 1 of 5 rows \\(first sample_id 15\\)"),
    (_table(embedding=[*ROWS[:2], None, *ROWS[3:]]), {}, PoolError,
     "column 'embedding' has no value at sample_id 15"),
    (_table(embedding=[*ROWS[:2], [1.0, None], *ROWS[3:]]), {}, PoolError,
     "column 'embedding' has no value at sample_id 15"),
    (_table(embedding=list("abcde")), {}, PoolError, "'embedding' is string .* expected numbers"),
    (_table(embedding=[*ROWS[:4], [1.0, float("inf")]]), {}, ScoringError, "first sample_id 23"),
    (pa.table({"id": [1, 2], "embedding": ROWS[:2]}), {}, ConfigError,
     "outputs have no column 'sample_id' \\(they have: id, embedding\\).*columns.sample_id=NAME"),
    (pa.table({"sample_id": ["a", "b"], "embedding": ROWS[:2]}), {}, ConfigError,
     "column 'sample_id' is string in the outputs, expected whole numbers"),
    (pa.table({"sample_id": [1, None], "embedding": ROWS[:2]}), {}, PoolError,
     "column 'sample_id' is null in 1 of 2 rows"),
    (pa.table({"sample_id": pa.array([1, 2**64 - 1], pa.uint64()), "embedding": ROWS[:2]}), {},
     PoolError, "beyond int64"),
    (pa.table({"sample_id": [7, 3, 7], "embedding": ROWS[:3]}), {}, PoolError,
     "sample_id 7 comes twice: at row 0 of the outputs and at row 2 of the outputs \\(1 rows"),
    (_table(embedding=ROWS).slice(0, 0), {}, ConfigError, "the outputs hold no rows"),
    (_table(probs=SAME), {}, NeedsError,
     "the strategy needs embeds, and the outputs have no column 'embedding' \\(they have: "
     "sample_id, probs\\); add it, or name it: columns.embedding=NAME"),
    (_table(embedding=ROWS), {"strategy": "margin"}, NeedsError,
     "needs probs, and the outputs have no column 'probs' and no 'logits' .*scores of your own as "
     "'score', or name it: columns.probs=NAME or columns.logits=NAME"),
    (_table(embedding=ROWS), {"strategy": "bald"}, NeedsError, "needs draws, .* no column 'draws'"),
    (_table(embedding=ROWS), {"budget": 6}, ConfigError,
     "budget is 6, more than the 5 candidates \\(5 rows, 0 of them labelled\\)"),
    (_table(embedding=ROWS), {"budget": 5, "labelled": [4]}, ConfigError,
     "budget is 5, more than the 4 candidates \\(5 rows, 1 of them labelled\\)"),
    (_table(embedding=ROWS), {"labelled": [4, 99]}, NeedsError,
     "1 of the labelled rows are not among the outputs \\(first sample_id 99\\) and bring no "
     "'embedding' of their own"),
    (_table(embedding=ROWS), {"labelled": {"sample_id": [99], "embedding": [[1.0, 2.0, 3.0]]}},
     PoolError, "'embedding' has 3 numbers at sample_id 99 in the labelled rows, expected 2|shape"),
    (_table(embedding=ROWS), {"labelled": [4, 8, 4]}, LabelError, "sample_id 4 comes twice among"),
    (_table(embedding=ROWS), {"labelled": {"id": [4]}}, ConfigError,
     "the labelled rows have no column 'sample_id'"),
    (_table(probs=SAME), {"strategy": "direct", "labelled": {"sample_id": [4], "label": ["x"]}},
     NeedsError, "label of sample_id 4 is of no class that has a number, .*: classes=\\["),
    (_table(probs=SAME), {"strategy": "galaxy", "kind": "multilabel", "labelled": {
        "sample_id": [4, 8], "label": [["x"], []]}}, NeedsError, "of sample_id 4 is of no class"),
    (_table(probs=SAME),
     {"strategy": "margin", "classes": ["a", "b"], "labelled": {"sample_id": [4], "label": ["x"]}},
     LabelError, "rows: label 'x' is outside the vocabulary \\('a', 'b'\\); correct .*classes=\\["),
    (_table(probs=SAME), {"strategy": "margin", "labelled": {"sample_id": [4], "label": [2]}},
     LabelError, "label 2 is outside the vocabulary \\(0, 1\\)"),
    (_table(probs=SAME),
     {"strategy": "margin", "classes": ["a", "b", "c"], "labelled": {"sample_id": [4]}},
     ConfigError, "there are 3 classes, and probabilities of 2"),
    (_table(probs=[[3.0, 2.0]] * 5), {"strategy": "margin"}, PoolError,
     "column 'probs' holds no probabilities at sample_id 4 \\(\\[3, 2, ...\\]\\).*columns.logits"),
    (_table(probs=[[0.9, 0.8]] * 5), {"strategy": "margin"}, PoolError, "that sum to 1"),
    (_table(score=[1.0, 2.0, float("nan"), 0.0, 0.0]), {"strategy": "margin"}, ScoringError,
     "column 'score' holds NaN .*first sample_id 15"),
    (np.zeros(3), {}, ConfigError, "the outputs are a ndarray, expected arrays by name"),
    ({"sample_id": [1, 2], "embedding": np.zeros((3, 2))}, {}, ConfigError,
     "arrays of the outputs differ in length \\(sample_id: 2, embedding: 3\\)"),
    ("/nowhere/*.parquet", {}, PoolError, "/nowhere/\\*.parquet holds no file that ends in"),
    ("/nowhere/one.parquet", {}, PoolError, "/nowhere/one.parquet does not exist"),
    ("", {}, PoolError, "the path of a source is empty, expected a file, a folder"),
    (_table(embedding=ROWS), {"labelled": ""}, PoolError, "the path of a source is empty"),
    (_table(embedding=ROWS), {"work": ""}, ConfigError, "work is empty, expected a folder"),
    (_table(embedding=pa.array([[]] * 5, pa.list_(pa.float32()))), {}, PoolError,
     "'embedding' holds no numbers at sample_id 4 in the outputs, expected at least one a row"),
    ({"sample_id": [1, 2, 3], "embedding": np.zeros((3, 0))}, {}, ConfigError,
     "'embedding' of the outputs: found a ndarray that is no column \\(its rows hold no numbers"),
    ({"sample_id": [1, 2, 2**70], "embedding": ROWS[:3]}, {}, ConfigError,
     "column 'sample_id' of the outputs: found a list that is no column \\(Python int too large"),
    (_table(embedding=ROWS), {"labelled": [2**70]}, ConfigError,
     "column 'sample_id' of the labelled rows: found a list that is no column"),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "asked", "kind", "said"), REFUSED)
def test_what_is_refused_in_one_line(outputs, asked: dict, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        rayal.select(outputs, **{"budget": 2, **asked})


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    def other(**columns: object) -> pa.Table:
        return pa.table({"sample_id": [1, 2, 4, 5, 7], **columns})  # no multiples of three

    files = write_files(tmp_path, only(ARRAYS, "embedding"), num_files=2)
    pq.write_table(other(probs=SAME), tmp_path / "part-2.parquet")
    with pytest.raises(PoolError, match=r"part-2.parquet has no column 'embedding' \(it has: "):
        rayal.select(files, budget=2)
    pq.write_table(other(embedding=ROWS), tmp_path / "part-2.parquet")
    with pytest.raises(PoolError, match=r"'embedding' has 2 numbers .*part-2.parquet, expected 6"):
        rayal.select(files, budget=2)
    wide = [[value + 0.1 for value in range(6)]] * 5  # float64, of no float32
    pq.write_table(other(embedding=wide), tmp_path / "part-2.parquet")
    with pytest.raises(PoolError, match=r"holds float64 in .*part-2.parquet, expected float32"):
        rayal.select(files, budget=2)
    (tmp_path / "part-2.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(PoolError, match=r"part-2.parquet cannot be read as Parquet"):
        rayal.select(files, budget=2)
    (tmp_path / "part-2.parquet").unlink()
    csv = tmp_path / "csv"
    csv.mkdir()
    (csv / "rows.csv").write_text("sample_id,score\n1,2\n")
    with pytest.raises(ConfigError, match="whose files are csv, expected Parquet"):
        rayal.select(csv, budget=2)


DAYS = [dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1)]
US = pa.timestamp("us")
MOMENTS = {
    "another unit": (pa.array(DAYS, US), pa.array(DAYS, pa.timestamp("ms"))),
    "a date": (pa.array(DAYS, US), pa.array([day.date() for day in DAYS])),
    "a moment of a date": (pa.array([day.date() for day in DAYS]), pa.array(DAYS, US)),
    "another zone": (
        pa.array(DAYS, pa.timestamp("us", "UTC")), pa.array(DAYS, pa.timestamp("s", "Asia/Tokyo")),
    ),
    "longer text": (pa.array(["a", "b"]), pa.array(["a", "b"], pa.large_string())),
    "bytes": (pa.array(["a", "b"]), pa.array([b"a", b"b"])),
}  # fmt: skip


def _two_files(folder: Path, first: pa.Array, other: pa.Array) -> str:
    for place, values in enumerate((first, other)):
        ids = [4 * place + i for i in range(len(values))]
        table = pa.table({"sample_id": ids, "score": [float(-one) for one in ids], "day": values})
        pq.write_table(table, folder / f"{place}.parquet")
    return str(folder)


@pytest.mark.parametrize("form", MOMENTS)
@pytest.mark.parametrize("asked", [{"group": "day", "quota": 1}, {"duplicates": "day"}], ids=str)
def test_equal_values_are_equal_in_whatever_type_a_file_has_them(
    asked: dict, form: str, tmp_path: Path
) -> None:
    files = _two_files(tmp_path, *MOMENTS[form])
    limits = {"strategy": "margin_balanced", "balance": False, "group": None, "strict": False}
    assert rayal.select(files, budget=4, **{**limits, **asked})["sample_id"].to_pylist() == [0, 1]


OTHER_TYPES = {
    "numbers": (pa.array(["a", "b"]), pa.array([1, 2]), "int64 in .*1.parquet, expected string as"),
    "dates": (pa.array(["a", "b"]), pa.array(DAYS, US), "timestamp.us. in .*, expected string as"),
    "text": (pa.array(DAYS, US), pa.array(["a", "b"]), "string in .*, expected timestamp.us. as"),
    "words": (pa.array([1, 2]), pa.array(["a", "b"]), "string in .*1.parquet, expected numbers"),
    "no days": (pa.array([1, 2], pa.date32()), pa.array([1, 2]), "int64 in .*, expected date32"),
    "finer": (
        pa.array(DAYS, pa.timestamp("ms")), pa.array([DAYS[0].replace(microsecond=1)], US),
        "timestamp.us. in .*1.parquet, expected timestamp.ms. as in the first file",
    ),
    "hours": (
        pa.array([DAYS[0].date()]), pa.array([DAYS[0].replace(hour=5)], US),
        "timestamp.us. in .*, expected date32.day. as in the first file",
    ),
    "no zone": (
        pa.array(DAYS, pa.timestamp("us", "UTC")), pa.array(DAYS, US),
        "timestamp.us. in .*1.parquet, expected timestamp.us, tz=UTC. as in the first file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", OTHER_TYPES)
def test_values_of_another_type_are_refused_where_they_would_change(
    form: str, tmp_path: Path
) -> None:
    first, other, said = OTHER_TYPES[form]
    files = _two_files(tmp_path, first, other)
    with pytest.raises(PoolError, match=f"column 'day' (holds|is) {said}"):
        rayal.select(files, strategy="margin_balanced", budget=1, group="day")


def test_a_dataset_whose_files_do_not_fit_its_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    files = _two_files(tmp_path, pa.array([1, 2]), pa.array(["a", "b"]))
    with pytest.raises(PoolError, match=r"the outputs cannot be read .*; mend the files") as error:
        rayal.select(pa_dataset.dataset(files), strategy="margin_balanced", budget=1, group="day")
    assert "\n" not in str(error.value)


def test_labelled_rows_of_several_files_may_differ_in_type(tmp_path: Path) -> None:
    few, groups = only(ARRAYS, "embedding", "group"), ARRAYS["group"]
    own = rows_of(few, np.arange(4))
    own["label"] = own.pop("group")
    asked = {"budget": BUDGET}
    outside = rows_of(few, np.arange(4, NUM_ROWS))
    expected = rayal.select(outside, labelled=own, **asked)
    table, vectors = table_of(own), pa.list_(pa.float64())
    other = pa.table(
        {
            "sample_id": table["sample_id"],
            "embedding": table["embedding"].cast(vectors),
            "label": pa.array([float(groups[2]), None, None, None]),
        }
    )
    pq.write_table(table.slice(0, 2), tmp_path / "0.parquet")
    pq.write_table(other.slice(2), tmp_path / "1.parquet")
    assert rayal.select(outside, labelled=tmp_path, **asked)["sample_id"].equals(
        expected["sample_id"]
    )
    words = other.set_column(2, "label", pa.array(list("abcd")))
    pq.write_table(words.slice(2), tmp_path / "1.parquet")
    with pytest.raises(LabelError, match="labelled rows hold a column of several types"):
        rayal.select(outside, labelled=tmp_path, **asked)


TWICE = pa.Table.from_arrays(
    [
        pa.array([1, 2]),
        pa.array(ROWS[:2]),
        pa.array(ROWS[:2]),
        pa.array(["a", "b"]),
        pa.array([3, 4]),
    ],
    ["sample_id", "embedding", "embedding", "word", "word"],
)


@pytest.mark.parametrize("form", ["table", "file", "dataset", "reader", "labelled"])
def test_a_column_that_is_there_twice_is_refused_where_it_is_needed(
    form: str, tmp_path: Path
) -> None:
    pq.write_table(TWICE, tmp_path / "rows.parquet")
    forms = {
        "table": TWICE, "file": tmp_path, "reader": TWICE.to_reader(),
        "dataset": pa_dataset.dataset(TWICE), "labelled": _table(embedding=ROWS),
    }  # fmt: skip
    known = TWICE if form == "labelled" else None
    with pytest.raises(PoolError, match=r"'embedding' comes 2 times in .*, expected once"):
        rayal.select(forms[form], labelled=known, budget=1)
    if form in ("table", "file", "reader"):  # Arrow reads no dataset with two of any name
        once = TWICE.select([0, 1, 3, 4])
        pq.write_table(once, tmp_path / "rows.parquet")
        forms |= {"table": once, "reader": once.to_reader()}
        assert rayal.select(forms[form], budget=1).num_rows == 1


class _Frame:
    """A data frame that Arrow cannot read, as one of pandas with two columns of a name."""

    def __arrow_c_stream__(self, requested: object = None) -> object:
        raise ValueError("Duplicate column names found: ['x', 'x']")


def test_a_data_frame_that_is_no_table_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"are a _Frame that is no table \(Duplicate"):
        rayal.select(_Frame(), budget=1)


def test_an_id_that_comes_twice_over_files_is_found_among_many(tmp_path: Path) -> None:
    arrays = only(outputs_of(5_000, seed=1))
    arrays["sample_id"][4_321] = arrays["sample_id"][17]
    files = write_files(tmp_path, arrays, num_files=5, row_group_size=300)
    said = (
        f"sample_id {arrays['sample_id'][17]} comes twice: at row 17 of .*part-0.parquet and at "
        f"row 321 of .*part-4.parquet"
    )
    with pytest.raises(PoolError, match=said):
        rayal.select(files, strategy="random", budget=2)


def test_empty_files_and_row_groups_do_no_harm(tmp_path: Path) -> None:
    arrays = only(ARRAYS, "embedding")
    files = write_files(tmp_path, arrays)
    pq.write_table(table_of(rows_of(arrays, np.zeros(0, int))), tmp_path / "a-first.parquet")
    expected = rayal.select(arrays, budget=BUDGET)
    assert rayal.select(files, budget=BUDGET)["sample_id"].equals(expected["sample_id"])


WRONG = [
    ({"strategy": None}, "strategy is None, expected the name of one or a rayal.strategy.Strategy"),
    ({"strategy": KCenter()}, "strategy is KCenter.*expected the name of one"),
    ({"engine": None}, "engine is None, expected local, ray or an engine"),
    ({"columns": 3}, "columns is 3, expected other names by name"),
    ({"seed": 2**70}, "seed is 1180591620717411303424, expected a whole number of up to 64 bits"),
    ({"round": 2**63}, "round is 9223372036854775808, expected a whole number of up to 64 bits"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "said"), WRONG, ids=lambda one: str(one)[:20])
def test_arguments_of_no_use_are_refused_in_one_line(asked: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        rayal.select(only(ARRAYS, "embedding"), **{"budget": 3, **asked})
    assert "\n" not in str(error.value)


def test_the_widest_seed_is_one() -> None:
    for seed in (2**63 - 1, -(2**63)):
        found = rayal.select(only(ARRAYS), strategy="random", budget=3, seed=seed)
        assert found["seed"].to_pylist() == [seed] * 3


def test_a_null_in_the_first_row_is_told_by_its_id(tmp_path: Path) -> None:
    for rows in ([None, *ROWS[1:]], [[1.0, None], *ROWS[1:]]):
        table = _table(embedding=rows)
        pq.write_table(table, tmp_path / "rows.parquet")
        for outputs in (table, tmp_path / "rows.parquet", pa_dataset.dataset(table)):
            with pytest.raises(PoolError, match="has no value at sample_id 4 "):
                rayal.select(outputs, budget=1)


def test_words_where_numbers_are_needed() -> None:
    arrays = {**only(ARRAYS, "embedding"), "word": np.array(["a", "b"])[IDS % 2]}
    with pytest.raises(PoolError, match=r"column 'word' holds words or dates, .* name another"):
        rayal.select(arrays, budget=60, feature="word")


def test_direct_says_where_no_label_is_known() -> None:
    asked = {"strategy": "direct", "budget": BUDGET}
    waiting = rayal.select(only(ARRAYS, "probs"), labelled=IDS[:30], **asked)
    note = waiting.schema.metadata[b"rayal.note"].decode()
    assert "all 30 labelled rows are pending: no label tells a threshold" in note
    for labelled in (None, {"sample_id": IDS[:30], "label": [0] + [None] * 29}):
        found = rayal.select(only(ARRAYS, "probs"), labelled=labelled, **asked)
        assert b"pending" not in found.schema.metadata[b"rayal.note"]
