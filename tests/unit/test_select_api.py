"""`rayal.select` on arrays, tables, datasets and files: one answer, whatever holds the rows."""

from __future__ import annotations

import collections
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
import torch
from given import NUM_CLASSES, only, outputs_of, rows_of, softmax, table_of, write_files
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from runs import CONF, FOR_NUMBERS, STRATEGIES

import rayal
from rayal.engine.local import LocalEngine
from rayal.errors import ConfigError, LabelError, NeedsError, PoolError, ScoringError
from rayal.keys import Keys
from rayal.scorers.margin import Margin
from rayal.selection import Columns
from rayal.selectors.k_center import KCenter
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import DETAILS

NUM_ROWS, BUDGET = 600, 20
ARRAYS = outputs_of(NUM_ROWS)
IDS = ARRAYS["sample_id"]
FEATURES = ("embedding", "probs", "draws", "preds", "grads", "cost", "group")
COLUMNS = [
    "sample_id", "rank", "score", "key", "probability", "reason", *DETAILS, "strategy", "seed",
    "round",
]  # fmt: skip


def _kind(strategy: str) -> str:
    return "number" if strategy in FOR_NUMBERS else "class"


def _labelled(strategy: str) -> dict[str, np.ndarray]:
    """Gives every twentieth row with its label, some of them pending."""
    ids = IDS[::20]
    labels = ARRAYS["group"][::20].astype(np.float64)
    labels[::5] = np.nan
    return {"sample_id": ids, "label": labels}


# --------------------------------------------------------------------------- every door, one answer


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_one_answer_whatever_holds_the_rows(
    strategy: str, tmp_path: Path
) -> None:
    arrays = only(ARRAYS, *FEATURES)
    asked = {
        "strategy": strategy, "budget": BUDGET, "seed": 5, "kind": _kind(strategy),
        "labelled": _labelled(strategy),
    }  # fmt: skip
    expected = rayal.select(arrays, **asked)
    assert expected.num_rows <= BUDGET
    ids = expected["sample_id"].to_numpy()
    assert len(np.unique(ids)) == len(ids) > 0
    assert np.isin(ids, IDS).all()
    assert not np.isin(ids, IDS[::20]).any()
    shuffled = rows_of(arrays, np.random.default_rng(1).permutation(NUM_ROWS))
    files = write_files(tmp_path / "files", arrays, num_files=5, seed=2)
    others = {
        "shuffled arrays": shuffled,
        "a table": table_of(arrays),
        "files": files,
        "a dataset": pa_dataset.dataset(str(tmp_path / "files")),
    }
    for name, outputs in others.items():
        found = rayal.select(outputs, **asked)
        assert found["sample_id"].equals(expected["sample_id"]), name
        assert found["key"].equals(expected["key"]), name
        assert found["reason"].equals(expected["reason"]), name


def test_k_center_is_the_textbooks() -> None:
    rows_ND, known = ARRAYS["embedding"].astype(np.float64), np.arange(0, NUM_ROWS, 20)
    near_N = np.linalg.norm(rows_ND[:, None] - rows_ND[known], axis=2).min(axis=1)
    expected = []
    for _ in range(60):
        row = int(near_N.argmax())
        expected.append(int(IDS[row]))
        near_N = np.minimum(near_N, np.linalg.norm(rows_ND - rows_ND[row], axis=1))
    found = rayal.select(
        only(ARRAYS, "embedding"), budget=60, labelled=IDS[::20],
        **{"selector.precision": "float"},
    )  # fmt: skip
    assert found["sample_id"].to_pylist() == expected
    assert found["labelled_distance"].null_count == 0


def test_margin_is_the_order_of_margins_with_ties_by_id() -> None:
    top2 = np.sort(ARRAYS["probs"], axis=1)[:, -2:].astype(np.float64)
    order = np.lexsort((IDS, -(1.0 - (top2[:, 1] - top2[:, 0]))))
    found = rayal.select(only(ARRAYS, "probs"), strategy="margin", budget=BUDGET)
    assert found["sample_id"].to_pylist() == IDS[order[:BUDGET]].tolist()
    assert found["rank"].to_pylist() == list(range(BUDGET))


def test_a_batch_says_all_of_every_pick() -> None:
    found = rayal.select(only(ARRAYS, "embedding"), budget=60, seed=3, round=2)
    assert found.column_names == COLUMNS
    assert set(found["strategy"].to_pylist()) == {"k_center"}
    assert set(found["seed"].to_pylist()) == {3}
    assert set(found["round"].to_pylist()) == {2}
    assert found["probability"].null_count == 60
    assert found["labelled_distance"].null_count == 60  # nothing is labelled
    assert found["nearest_id"].null_count == 1  # the first pick has no neighbour
    assert set(found["nearest_id"].to_pylist()[1:]) <= {*found["sample_id"].to_pylist()}
    said = {name.decode(): value.decode() for name, value in found.schema.metadata.items()}
    assert said["rayal.version"] == rayal.__version__
    assert said["rayal.seed"] == "3"
    assert json.loads(said["rayal.strategy"])["selector"]["feature"] == "embeds"
    assert "mode" in said["rayal.note"]


def test_a_uniform_draw_knows_its_chance() -> None:
    found = rayal.select(only(ARRAYS), strategy="random", budget=30, labelled=IDS[:100])
    assert set(found["probability"].to_pylist()) == {30 / 500}
    assert (
        found["sample_id"].to_pylist()
        == (
            rayal.select(only(ARRAYS), strategy="random", budget=30, labelled=IDS[:100])[
                "sample_id"
            ]
        ).to_pylist()
    )
    other = rayal.select(only(ARRAYS), strategy="random", budget=30, seed=1)
    later = rayal.select(only(ARRAYS), strategy="random", budget=30, round=1)
    first = rayal.select(only(ARRAYS), strategy="random", budget=30)
    assert len({tuple(one["sample_id"].to_pylist()) for one in (first, other, later)}) == 3


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


# ---------------------------------------------------------------------------------- labelled rows


@pytest.mark.parametrize("strategy", ["k_center", "badge", "cluster_margin", "kmeans", "seals"])
@pytest.mark.parametrize("as_files", [False, True])
def test_labelled_rows_may_lie_outside_the_outputs(
    strategy: str, as_files: bool, tmp_path: Path
) -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    labelled = _labelled(strategy)
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


# -------------------------------------------------------------------------------- parts and options


def test_a_strategy_may_come_built() -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    for built, name in ((Strategy(KCenter()), "k_center"), (Strategy(TopK(), Margin()), "margin")):
        found = rayal.select(arrays, strategy=built, engine=LocalEngine(), budget=BUDGET)
        expected = rayal.select(arrays, strategy=name, budget=BUDGET)
        assert found["sample_id"].equals(expected["sample_id"])
    assert set(found["strategy"].to_pylist()) == {"Margin + TopK"}


def test_options_are_keys_of_the_strategy() -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    asked = {"strategy": "cluster_margin", "budget": BUDGET}
    few = rayal.select(arrays, num_clusters=np.int64(2), **asked)
    assert set(few["cluster"].to_pylist()) <= {0, 1, None}
    dotted = rayal.select(arrays, **{"selector.num_clusters": 2}, **asked)
    assert dotted.equals(few)


def test_options_may_hold_what_numpy_gives() -> None:
    arrays = only(ARRAYS, "probs", "group")
    groups, counts = np.unique(arrays["group"], return_counts=True)
    few = counts // 20
    asked = {"strategy": "margin_balanced", "balance": False, "group": "group", "budget": BUDGET}
    plain = dict(zip(groups.tolist(), few.tolist(), strict=True))
    expected = rayal.select(arrays, quotas=plain, **asked)
    assert rayal.select(arrays, quotas=dict(zip(groups, few, strict=True)), **asked).equals(
        expected
    )
    words = {**arrays, "group": np.array(["ant", "bee", "cat", "dog"])[arrays["group"]]}
    names = np.unique(words["group"])
    found = rayal.select(words, quotas=dict(zip(names, few, strict=True)), **asked)
    assert found["sample_id"].equals(expected["sample_id"])
    known = {"sample_id": IDS[:9], "label": ARRAYS["group"][:9]}
    for classes in (np.arange(4), torch.arange(4), range(4), pa.array([0, 1, 2, 3])):
        found = rayal.select(arrays, strategy="direct", budget=3, labelled=known, classes=classes)
        assert found.num_rows == 3
    renamed = {**only(arrays, "probs"), "group": arrays["group"]}
    renamed["site"] = renamed.pop("group")
    found = rayal.select(renamed, quotas=plain, columns={"group": np.array(["site"])[0]}, **asked)
    assert found["sample_id"].equals(expected["sample_id"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_cluster": 2}, "there is no 'num_cluster'; did you mean num_clusters"),
        ({"_target_": "x"}, "several keys are called '_target_'"),
        (
            {"selector.num_cluster": 2},
            "ClusterMargin takes no 'num_cluster'; did you mean num_clus",
        ),
        ({"num_clusters": "many"}, "num_clusters is 'many', expected a whole number or null"),
        ({"budget": 0}, "budget is 0, expected at least 1"),
        ({"budget": "x"}, "budget is 'x', expected a whole number"),
        ({"kind": "klass"}, "kind is 'klass', expected one of class, multilabel, number"),
        ({"strategy": "cluster_magin"}, "no strategy 'cluster_magin'; did you mean cluster_margin"),
        ({"engine": "rey"}, "there is no engine 'rey'; did you mean ray?"),
        ({"feature": "${x}"}, "a value that cannot be read (Interpolation key 'x' not found"),
        (
            {"strategy": "margin_balanced", "quotas": {(1, 2): 3}},
            "a value that cannot be read (Incompatible key type",
        ),
        ({"columns": {"embeding": "x"}}, "takes no 'embeding'; did you mean embedding"),
    ],
)
def test_options_that_nobody_takes(options: dict, said: str) -> None:
    arrays = only(ARRAYS, "embedding", "probs")
    asked = {"strategy": "cluster_margin", "budget": BUDGET, **options}
    with pytest.raises(ConfigError, match=said.replace("(", "\\(")):
        rayal.select(arrays, **asked)


def test_a_program_of_the_users_keeps_its_own_hydra() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        rayal.select(only(ARRAYS, "embedding"), budget=3)
        assert compose("config", overrides=["strategy=badge", "pool.path=x"]).budget == 100


def test_asking_for_it_imports_nothing_before() -> None:
    program = (
        "import sys, rayal\n"
        "assert not {'ray', 'torch', 'faiss', 'hydra', 'pyarrow'} & set(sys.modules)\n"
        "assert callable(rayal.select) and 'ray' not in sys.modules\n"
        "import rayal.selection.selection, rayal.cli.select\n"
        "from rayal import select\n"
        "assert callable(select) and callable(rayal.select)\n"
        "try:\n    rayal.nothing\nexcept AttributeError:\n    print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "fine", done.stderr


# ------------------------------------------------------------------------------------ going on


def test_a_work_folder_is_taken_up_again_and_only_for_the_same_rows(tmp_path: Path) -> None:
    arrays = only(outputs_of(2_000, seed=3), "embedding")
    files = write_files(tmp_path / "files", arrays, num_files=2, row_group_size=500)
    work = tmp_path / "work"
    asked = {"budget": 150, "work": work}
    first = rayal.select(files, **asked)
    (folder,) = work.iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.arrow")}
    assert before
    assert (folder / "picks.jsonl").exists()
    assert rayal.select(files, **asked).equals(first)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.arrow")} == before
    path = next(iter(before))  # a damaged slice is made again
    path.write_bytes(path.read_bytes()[:-40])
    assert rayal.select(files, **asked).equals(first)
    arrays["embedding"][::2] *= 1.5
    write_files(tmp_path / "files", arrays, num_files=2, row_group_size=500)
    changed = rayal.select(files, **asked)
    assert not changed["sample_id"].equals(first["sample_id"])
    assert changed.equals(rayal.select(files, budget=150))
    assert rayal.select(arrays, **asked).equals(changed)  # arrays have a content as well
    assert rayal.select(files, **{**asked, "budget": 60}).equals(rayal.select(files, budget=60))


def test_one_work_folder_holds_several_selections_apart(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", only(ARRAYS, "embedding", "probs"))
    asked = [
        {"strategy": "margin"},
        {"strategy": "entropy"},
        {"strategy": "power_margin"},
        {"strategy": "power_margin", "seed": 1},
        {"strategy": "power_margin", "round": 1},
        {"strategy": "badge"},
        {"strategy": "badge", "labelled": IDS[:50]},
        {"strategy": "margin", "kind": "multilabel"},
    ]
    for one in asked * 2:
        found = rayal.select(files, budget=BUDGET, work=tmp_path / "work", **one)
        assert found.equals(rayal.select(files, budget=BUDGET, **one)), one
    assert len(list((tmp_path / "work").iterdir())) == 1  # the last; the others are done


def test_nothing_stays_behind_without_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    files = write_files(tmp_path / "files", only(ARRAYS, "embedding"))
    rayal.select(files, budget=BUDGET)
    with pytest.raises(ConfigError):
        rayal.select(files, budget=10_000)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_filtered_dataset_and_a_partitioned_one_are_what_they_read(tmp_path: Path) -> None:
    arrays = only(ARRAYS, "embedding", "group")
    table = table_of(arrays)
    pa_dataset.write_dataset(
        table, tmp_path, format="parquet", partitioning=["group"], basename_template="{i}.parquet"
    )
    whole = pa_dataset.dataset(str(tmp_path), partitioning=["group"])
    expected = rayal.select(arrays, budget=BUDGET)
    assert rayal.select(whole, budget=BUDGET)["sample_id"].equals(expected["sample_id"])
    part = whole.filter(pa_dataset.field("sample_id") > 0)
    few = rows_of(arrays, IDS > 0)
    found = rayal.select(part, budget=BUDGET)
    assert found["sample_id"].equals(rayal.select(few, budget=BUDGET)["sample_id"])
    in_memory = pa_dataset.dataset(table)
    found = rayal.select(in_memory, budget=BUDGET)
    assert found["sample_id"].equals(expected["sample_id"])


# ------------------------------------------------------------------------------ what is refused


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


def test_a_batch_of_all_candidates() -> None:
    found = rayal.select(only(ARRAYS, "embedding"), budget=NUM_ROWS - 30, labelled=IDS[:30])
    assert sorted(found["sample_id"].to_pylist()) == sorted(IDS[30:].tolist())


def test_the_softmax_of_the_tests_is_one() -> None:
    assert np.allclose(softmax(ARRAYS["logits"]).sum(axis=1), 1.0, atol=1e-6)
    assert ARRAYS["probs"].shape == (NUM_ROWS, NUM_CLASSES)


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
