"""Columns of `rayal.select`: their forms, given scores, and what limits look at."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
import torch
from given import (
    ARRAYS,
    BUDGET,
    IDS,
    only,
    outputs_of,
    rows_of,
    table_of,
    write_files,
)

import rayal
from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.selection import Columns

# --------------------------------------------------------------------------------- forms of columns


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "float16", "float64"])
def test_embeddings_of_any_type_stay_as_they_are(dtype: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(3).integers(0, 60, (200, 5)).astype(dtype)
    arrays = {"sample_id": np.arange(200), "embedding": rows}
    expected = rayal.select(
        {**arrays, "embedding": rows.astype(np.float64)}, budget=70,
        **{"selector.precision": "float"},
    )  # fmt: skip
    for outputs in (arrays, write_files(tmp_path, arrays, seed=4)):
        found = rayal.select(outputs, budget=70, **{"selector.precision": "float"})
        assert found["sample_id"].equals(expected["sample_id"])


@pytest.mark.parametrize("form", ["fixed", "large", "tensor", "dictionary ids", "torch", "pandas"])
def test_columns_in_other_forms(form: str, tmp_path: Path) -> None:
    arrays = only(ARRAYS, "embedding")
    expected = rayal.select(arrays, budget=BUDGET)
    table = table_of(arrays)
    if form == "torch":
        outputs = {name: torch.from_numpy(values) for name, values in arrays.items()}
    elif form == "pandas":
        outputs = table.to_pandas()
    else:
        column = {
            "fixed": lambda: table["embedding"].cast(pa.list_(pa.float32(), 6)),
            "large": lambda: table["embedding"].cast(pa.large_list(pa.float32())),
            "tensor": lambda: pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.float32(), [6]),
                table["embedding"].combine_chunks().cast(pa.list_(pa.float32(), 6)),
            ),
            "dictionary ids": lambda: table["embedding"],
        }[form]()
        ids = table["sample_id"].cast(pa.int32())
        outputs = pa.table({"sample_id": ids, "embedding": column})
    assert rayal.select(outputs, budget=BUDGET)["sample_id"].equals(expected["sample_id"])


def test_a_pools_own_shards_are_outputs_too(class_pool, tmp_path: Path) -> None:
    shards = str(Path(class_pool.path) / "shards")
    found = rayal.select(shards, budget=BUDGET)
    ids, rows = [], []
    for shard in class_pool.shards:
        for batch in class_pool.batches(shard, ("sample_id", "embedding"), 10_000):
            ids.append(batch.column("sample_id").to_numpy())
            rows.append(np.frombuffer(batch.column("embedding").buffers()[1], np.float32))
    arrays = {
        "sample_id": np.concatenate(ids), "embedding": np.concatenate(rows).reshape(-1, 8)
    }  # fmt: skip
    assert found["sample_id"].equals(rayal.select(arrays, budget=BUDGET)["sample_id"])


def test_other_names_of_columns() -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    renamed = {"id": IDS, "vector": arrays["embedding"], "p": arrays["probs"]}
    names = {"sample_id": "id", "embedding": "vector", "probs": "p"}
    for strategy in ("k_center", "margin", "badge", "gsx"):
        expected = rayal.select(arrays, strategy=strategy, budget=BUDGET)
        found = rayal.select(renamed, strategy=strategy, budget=BUDGET, columns=names)
        assert found["sample_id"].equals(expected["sample_id"]), strategy
    found = rayal.select(renamed, strategy="gsx", budget=BUDGET, columns=Columns(**names))
    assert found["sample_id"].equals(expected["sample_id"])


def test_logits_stand_in_for_probs() -> None:
    expected = rayal.select(only(ARRAYS, "probs"), strategy="margin", budget=BUDGET)
    found = rayal.select(only(ARRAYS, "logits"), strategy="margin", budget=BUDGET)
    assert found["sample_id"].equals(expected["sample_id"])
    both = {**only(ARRAYS, "probs"), "logits": -ARRAYS["logits"]}
    found = rayal.select(both, strategy="margin", budget=BUDGET)
    assert found["sample_id"].equals(expected["sample_id"])  # probs are taken where they are


def test_logits_of_several_labels_go_through_a_sigmoid() -> None:
    probs = (1.0 / (1.0 + np.exp(-ARRAYS["logits"].astype(np.float64)))).astype(np.float32)
    asked = {"strategy": "margin", "budget": BUDGET, "kind": "multilabel"}
    expected = rayal.select({"sample_id": IDS, "probs": probs}, **asked)
    found = rayal.select(only(ARRAYS, "logits"), **asked)
    assert found["sample_id"].equals(expected["sample_id"])


def test_bits_of_probabilities_do_not_depend_on_the_rows_beside() -> None:
    arrays = only(outputs_of(3_000, seed=8), "logits")
    keys = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(3_000)[: 3_000 - 7 * seed]
        keep = rows_of(arrays, order)
        for kind in ("class", "multilabel"):
            found = rayal.select(keep, strategy="entropy", budget=2_000, kind=kind)
            keys.append(
                dict(zip(*(found[n].to_pylist() for n in ("sample_id", "key")), strict=True))
            )
    for kind in (0, 1):
        for other in keys[2 + kind :: 2]:
            shared = other.keys() & keys[kind].keys()
            assert len(shared) > 1_900
            assert all(other[i] == keys[kind][i] for i in shared)


# ------------------------------------------------------------------------ scores that were computed


def test_a_score_stands_in_for_a_scorer_whose_columns_are_not_there() -> None:
    order = np.lexsort((IDS, -ARRAYS["score"]))
    found = rayal.select(only(ARRAYS, "score"), strategy="entropy", budget=BUDGET)
    assert found["sample_id"].to_pylist() == IDS[order[:BUDGET]].tolist()
    assert found["score"].to_pylist() == ARRAYS["score"][order[:BUDGET]].tolist()
    note = found.schema.metadata[b"rayal.note"].decode()
    assert "no probs: column 'score' stands in for the scorer" in note
    by_probs = rayal.select(only(ARRAYS, "score", "probs"), strategy="entropy", budget=BUDGET)
    assert b"stands in" not in by_probs.schema.metadata[b"rayal.note"]
    assert by_probs["sample_id"].to_pylist() != found["sample_id"].to_pylist()


def test_noise_on_top_of_a_scorer_stays_on_a_given_score() -> None:
    found = rayal.select(only(ARRAYS, "score"), strategy="power_margin", budget=BUDGET, beta=1.0)
    noise = Keys(0, 0).stream("power GivenScore").gumbel(IDS)
    noisy = np.log(np.maximum(ARRAYS["score"], 2.0**-1000)) + noise
    assert found["sample_id"].to_pylist() == IDS[np.lexsort((IDS, -noisy))[:BUDGET]].tolist()


def test_a_strategy_without_a_scorer_gets_the_given_scores() -> None:
    found = rayal.select(only(ARRAYS, "embedding", "score"), budget=BUDGET)
    given = dict(zip(IDS.tolist(), ARRAYS["score"].tolist(), strict=True))
    assert found["score"].to_pylist() == [given[i] for i in found["sample_id"].to_pylist()]
    plain = rayal.select(only(ARRAYS, "embedding"), budget=BUDGET)
    assert found["sample_id"].equals(plain["sample_id"])


def test_few_candidates_are_the_best_scored_rows_whatever_holds_them(tmp_path: Path) -> None:
    arrays = only(outputs_of(3_000, seed=5), "embedding", "probs")
    asked = {"strategy": "cluster_margin", "budget": 40, "num_candidates": 150}
    expected = rayal.select(arrays, **asked)
    files = write_files(tmp_path, arrays, num_files=4, row_group_size=111, seed=6)
    assert rayal.select(files, **asked)["sample_id"].equals(expected["sample_id"])
    top2 = np.sort(arrays["probs"], axis=1)[:, -2:].astype(np.float64)
    best = np.lexsort((arrays["sample_id"], top2[:, 1] - top2[:, 0]))[:150]
    assert np.isin(expected["sample_id"].to_numpy(), arrays["sample_id"][best]).all()


# ---------------------------------------------------------------------- columns that limits look at


def test_groups_may_be_words_and_costs_decimals(tmp_path: Path) -> None:
    words = np.array(["ant", "bee", "cat", "dog"])[ARRAYS["group"]]
    arrays = {**only(ARRAYS, "probs", "cost"), "group": words}
    asked = {
        "strategy": "margin_balanced", "budget": BUDGET,
        "limits": {"_target_": "rayal.selectors.limits.Limits", "group": "group", "quota": 5,
                   "cost": "cost", "max_cost": 300},
    }  # fmt: skip
    expected = rayal.select(arrays, **asked)
    kind = dict(zip(IDS.tolist(), words.tolist(), strict=True))
    price = dict(zip(IDS.tolist(), ARRAYS["cost"].tolist(), strict=True))
    picked = expected["sample_id"].to_pylist()
    counts = collections.Counter(kind[i] for i in picked)
    assert max(counts.values()) == 5
    assert sum(price[i] for i in picked) <= 300
    table = table_of({name: arrays[name] for name in ("sample_id", "probs")})
    table = table.append_column("group", pa.array(words).dictionary_encode())
    cents = pa.array([f"{cost}.00" for cost in ARRAYS["cost"]]).cast(pa.decimal128(6, 2))
    table = table.append_column("cost", cents)
    assert rayal.select(table, **asked)["sample_id"].to_pylist() == picked
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=50)
    assert rayal.select(tmp_path, **asked)["sample_id"].to_pylist() == picked
    renamed = table.rename_columns(["sample_id", "probs", "kind", "price"])
    names = {"group": "kind", "cost": "price"}
    found = rayal.select(renamed, columns=names, **asked)
    assert found["sample_id"].to_pylist() == picked


def test_quotas_of_predicted_classes_go_by_names_or_by_places() -> None:
    words = ["ant", "bee", "cat", "dog"]
    arrays = only(ARRAYS, "probs")
    asked = {"strategy": "margin_balanced", "budget": BUDGET, "balance": False}
    by_place = rayal.select(arrays, quotas={0: 2, 3: 0}, **asked)
    by_name = rayal.select(arrays, quotas={"ant": 2, "dog": 0}, classes=words, **asked)
    assert by_name["sample_id"].equals(by_place["sample_id"])
    likeliest = dict(zip(IDS.tolist(), arrays["probs"].argmax(axis=1).tolist(), strict=True))
    counts = collections.Counter(likeliest[i] for i in by_name["sample_id"].to_pylist())
    assert (counts[0], counts[3]) == (2, 0)
    for wrong, classes, said in (
        ({"ant": 2}, None, "no class: ant; the classes are 0, 1, 2, 3: correct them"),
        ({4: 2}, None, "no class: 4; the classes are 0, 1, 2, 3:"),
        ({"cow": 2, "ant": 1, "pig": 0}, words, "no class: cow, pig; the classes are ant, bee, ca"),
        ({"ant": 2}, words[:3], "there are 3 classes, and probabilities of 4; give the classes"),
    ):
        with pytest.raises(ConfigError, match=said):
            rayal.select(arrays, quotas=wrong, classes=classes, **asked)
    loose = rayal.select(arrays, quotas={"ant": 2, "cow": 0}, classes=words, strict=False, **asked)
    assert b"limits name groups that no candidate has: cow" in loose.schema.metadata[b"rayal.note"]


# ---------------------------------------------------------------------------- forms of all arrays


def test_tensors_with_a_gradient_and_of_half_a_float() -> None:
    asked = {"budget": 60, **{"selector.precision": "float"}}
    rows = torch.from_numpy(ARRAYS["embedding"])
    expected = rayal.select(only(ARRAYS, "embedding"), **asked)
    ids = torch.from_numpy(IDS)
    for embedding in (rows.clone().requires_grad_(), list(rows.clone().requires_grad_())):
        found = rayal.select({"sample_id": ids, "embedding": embedding}, **asked)
        assert found["sample_id"].equals(expected["sample_id"])
    rounded = rows.bfloat16()
    expected = rayal.select({"sample_id": IDS, "embedding": rounded.float().numpy()}, **asked)
    for embedding in (rounded, rounded.requires_grad_(), list(rounded)):
        found = rayal.select({"sample_id": ids, "embedding": embedding}, **asked)
        assert found.equals(expected)


@pytest.mark.gpu
def test_tensors_on_a_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    expected = rayal.select(only(ARRAYS, "embedding"), budget=60)
    there = {name: torch.from_numpy(ARRAYS[name]).cuda() for name in ("sample_id", "embedding")}
    assert rayal.select(there, budget=60, labelled=there["sample_id"][:0]).equals(expected)


def test_arrays_of_another_byte_order_and_layout() -> None:
    expected = rayal.select(only(ARRAYS, "embedding"), budget=60)
    swapped = {"sample_id": IDS.astype(">i8"), "embedding": ARRAYS["embedding"].astype(">f4")}
    assert rayal.select(swapped, budget=60).equals(expected)
    reversed_rows = {"sample_id": IDS[::-1], "embedding": ARRAYS["embedding"][::-1]}
    assert rayal.select(reversed_rows, budget=60)["sample_id"].equals(expected["sample_id"])


def test_scanners_fragments_and_readers_are_what_they_read(tmp_path: Path) -> None:
    arrays = only(ARRAYS, "embedding")
    write_files(tmp_path, arrays, num_files=1)
    dataset = pa_dataset.dataset(str(tmp_path))
    expected = rayal.select(arrays, budget=60)["sample_id"]
    (fragment,) = dataset.get_fragments()
    for outputs in (dataset.scanner(), dataset.scanner(columns=["embedding", "sample_id"]),
                    fragment, dataset.scanner().to_reader()):  # fmt: skip
        assert rayal.select(outputs, budget=60)["sample_id"].equals(expected)
    some = dataset.scanner(filter=pa_dataset.field("sample_id") > 0)
    found = rayal.select(some, budget=60)["sample_id"]
    assert found.equals(rayal.select(rows_of(arrays, IDS > 0), budget=60)["sample_id"])
