"""Labelled rows of `rayal.select`, and what may hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from given import (
    ARRAYS,
    BUDGET,
    IDS,
    only,
    outputs_of,
    rows_of,
    some_labelled,
    write_files,
)
from runs import STRATEGIES

import rayal
from rayal.errors import ConfigError, LabelError, PoolError


@pytest.mark.parametrize("strategy", ["k_center", "badge", "cluster_margin", "kmeans", "seals"])
@pytest.mark.parametrize("as_files", [False, True])
def test_labelled_rows_may_lie_outside_the_outputs(
    strategy: str, as_files: bool, tmp_path: Path
) -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    labelled = some_labelled()
    expected = rayal.select(arrays, strategy=strategy, budget=BUDGET, labelled=labelled)
    is_labelled = np.isin(IDS, labelled["sample_id"])
    rest, known = rows_of(arrays, ~is_labelled), rows_of(arrays, is_labelled)
    some = known["sample_id"] % 2 == 0  # of these the outputs hold the columns
    both = {name: np.concatenate([rest[name], known[name][some]]) for name in rest}
    brought = {**known, "label": np.zeros(len(known["sample_id"]))}
    outputs, given = both, brought
    if as_files:
        outputs = write_files(tmp_path / "outputs", both, seed=1)
        given = write_files(tmp_path / "labelled", brought, num_files=2, seed=1)
    found = rayal.select(outputs, strategy=strategy, budget=BUDGET, labelled=given)
    assert found["sample_id"].equals(expected["sample_id"])
    assert found["key"].equals(expected["key"])


def test_labelled_rows_without_a_use_need_nothing_of_their_own() -> None:
    gone = np.array([10**9, 10**9 + 1])
    labelled = np.concatenate([IDS[:30], gone])
    found = rayal.select(only(ARRAYS, "probs"), strategy="margin", budget=BUDGET, labelled=labelled)
    expected = rayal.select(
        only(ARRAYS, "probs"), strategy="margin", budget=BUDGET, labelled=IDS[:30].tolist()
    )
    assert found["sample_id"].equals(expected["sample_id"])
    assert b"2 labelled ids are not among the outputs" in found.schema.metadata[b"rayal.note"]


def test_labels_may_be_words() -> None:
    words = np.array(["ant", "bee", "cat", "dog"])[ARRAYS["group"][::20]]
    numbers = {"sample_id": IDS[::20], "label": ARRAYS["group"][::20]}
    asked = {"strategy": "direct", "budget": BUDGET}
    if "direct" not in STRATEGIES:
        pytest.skip("no strategy here looks at classes")
    expected = rayal.select(only(ARRAYS, "probs"), labelled=numbers, **asked)
    found = rayal.select(
        only(ARRAYS, "probs"), labelled={"sample_id": IDS[::20], "label": words},
        classes=("ant", "bee", "cat", "dog"), **asked,
    )  # fmt: skip
    assert found["sample_id"].equals(expected["sample_id"])


@pytest.mark.parametrize("kind", ["class", "multilabel"])
@pytest.mark.parametrize("strategy", ["k_center", "margin", "badge"])
def test_words_need_no_classes_where_nobody_looks_at_labels(strategy: str, kind: str) -> None:
    arrays = only(ARRAYS, "probs", "embedding")
    words = [["ant", None, "bee"][i % 3] for i in range(30)]
    if kind == "multilabel":
        words = [word and [word, "cat"] for word in words]
    asked = {"strategy": strategy, "kind": kind, "budget": BUDGET}
    expected = rayal.select(arrays, labelled=IDS[:30], **asked)
    found = rayal.select(arrays, labelled={"sample_id": IDS[:30], "label": words}, **asked)
    assert found["sample_id"].equals(expected["sample_id"])


def test_several_labels_a_row_may_be_ragged_lists() -> None:
    arrays = outputs_of(40)
    labels = [[], [0], [0, 2], None] + [[1]] * 6
    known = {"sample_id": arrays["sample_id"][:10].tolist(), "label": labels}
    options = {"strategy": "badge", "budget": 30, "kind": "multilabel"}
    batch = rayal.select(only(arrays, "probs", "embedding"), labelled=known, **options)
    assert sorted(batch["sample_id"].to_pylist()) == sorted(arrays["sample_id"][10:].tolist())


def test_arrays_that_are_no_columns_are_named() -> None:
    words = np.array(["a", 1], object)
    with pytest.raises(ConfigError, match=r"column 'group' of the outputs: found a ndarray that"):
        rayal.select({"sample_id": [1, 2], "group": words}, strategy="random", budget=1)
    complex_ND = np.ones((2, 3), complex)
    with pytest.raises(ConfigError, match=r"column 'embedding' of the outputs: .* complex numbers"):
        rayal.select({"sample_id": [1, 2], "embedding": complex_ND}, strategy="k_center", budget=1)
    masked = {"sample_id": [1, 2], "score": np.ma.array([1.0, 2.0], mask=[False, True])}
    with pytest.raises(PoolError, match="column 'score' has no value at sample_id 2"):
        rayal.select(masked, strategy="margin", budget=1)


def test_known_outputs_of_a_regression_count() -> None:
    arrays, some = only(ARRAYS, "preds"), IDS[::20]
    asked = {"strategy": "gsy", "budget": BUDGET, "kind": "number"}
    waiting = rayal.select(arrays, labelled=some, **asked)
    answers = {"sample_id": some, "label": np.full(len(some), 50.0)}
    answered = rayal.select(arrays, labelled=answers, **asked)
    assert waiting["key"].to_pylist()[0] < answered["key"].to_pylist()[0]


# ------------------------------------------------------------------------ whatever holds the ids


IDS_ALONE = {
    "an array": lambda ids: ids,
    "a list": lambda ids: ids.tolist(),
    "a tuple": lambda ids: tuple(ids.tolist()),
    "a set": lambda ids: set(ids.tolist()),
    "a frozenset": lambda ids: frozenset(ids.tolist()),
    "keys": lambda ids: dict.fromkeys(ids.tolist()).keys(),
    "an iterator": lambda ids: iter(ids.tolist()),
    "numbers of NumPy": lambda ids: list(ids),
    "a tensor": lambda ids: torch.from_numpy(ids),
    "int32": lambda ids: ids.astype(np.int32),
    "big-endian": lambda ids: ids.astype(">i8"),
    "objects": lambda ids: ids.astype(object),
    "arrow": lambda ids: pa.array(ids),
    "arrow in chunks": lambda ids: pa.chunked_array([ids[:3], ids[3:]]),
    "a column of a table": lambda ids: pa.table({"id": ids})["id"],
    "a series": lambda ids: pa.array(ids).to_pandas(),
    "a nullable series": lambda ids: pa.array(ids).to_pandas().astype("Int64"),
}


@pytest.mark.parametrize("form", IDS_ALONE)
def test_anything_of_one_dimension_is_ids(form: str) -> None:
    arrays, known = only(ARRAYS, "embedding"), IDS[::20].copy()
    expected = rayal.select(arrays, budget=BUDGET, labelled={"sample_id": known})
    found = rayal.select(arrays, budget=BUDGET, labelled=IDS_ALONE[form](known))
    assert found.equals(expected)


def test_a_range_and_nothing_are_ids_too() -> None:
    arrays = {"sample_id": np.arange(100), "embedding": ARRAYS["embedding"][:100]}
    expected = rayal.select(arrays, budget=BUDGET, labelled=np.arange(10, 90, 3))
    assert rayal.select(arrays, budget=BUDGET, labelled=range(10, 90, 3)).equals(expected)
    expected = rayal.select(arrays, budget=BUDGET)
    for none in ([], set(), range(0), np.array([]), torch.tensor([]), pa.array([], pa.int64())):
        assert rayal.select(arrays, budget=BUDGET, labelled=none).equals(expected)


NO_LABELLED = [
    ([1.5, 2.0], ConfigError, "column 'sample_id' is double in the labelled rows"),
    (["a"], ConfigError, "column 'sample_id' is string in the labelled rows"),
    ([[1, 2], [3, 4]], ConfigError, "'sample_id' is fixed_size_list.* in the labelled rows"),
    (np.ones((2, 2), int), ConfigError, "the labelled rows are a ndarray, expected arrays by name"),
    (5, ConfigError, "the labelled rows are a int, expected"),
    ({5: 1}, ConfigError, "the labelled rows have a column that is called 5, expected names"),
    ([4, None], PoolError, "column 'sample_id' is null in 1 of 2 rows of the labelled rows"),
    ({"sample_id": IDS[:1], "label": [{"a": 1}]}, LabelError, "holds what is no label of kind cl"),
]  # fmt: skip


@pytest.mark.parametrize(("labelled", "kind", "said"), NO_LABELLED, ids=lambda one: str(one)[:20])
def test_labelled_rows_that_are_none(labelled: object, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        rayal.select(only(ARRAYS, "probs", "embedding"), budget=2, labelled=labelled)
