"""`rayal.select`: one answer, whatever holds the rows and however the strategy is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pytest
import torch
from given import (
    ARRAYS,
    BUDGET,
    IDS,
    NUM_CLASSES,
    NUM_ROWS,
    only,
    rows_of,
    softmax,
    some_labelled,
    table_of,
    write_files,
)
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from runs import CONF, FOR_NUMBERS, STRATEGIES

import rayal
from rayal.engine.local import LocalEngine
from rayal.errors import ConfigError
from rayal.scorers.margin import Margin
from rayal.selectors.k_center import KCenter
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import DETAILS

FEATURES = ("embedding", "probs", "draws", "preds", "grads", "cost", "group")
COLUMNS = [
    "sample_id", "rank", "score", "key", "probability", "reason", *DETAILS, "strategy", "seed",
    "round",
]  # fmt: skip


def _kind(strategy: str) -> str:
    return "number" if strategy in FOR_NUMBERS else "class"


# --------------------------------------------------------------------------- every door, one answer


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_one_answer_whatever_holds_the_rows(
    strategy: str, tmp_path: Path
) -> None:
    arrays = only(ARRAYS, *FEATURES)
    asked = {
        "strategy": strategy, "budget": BUDGET, "seed": 5, "kind": _kind(strategy),
        "labelled": some_labelled(),
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


def test_a_batch_of_all_candidates() -> None:
    found = rayal.select(only(ARRAYS, "embedding"), budget=NUM_ROWS - 30, labelled=IDS[:30])
    assert sorted(found["sample_id"].to_pylist()) == sorted(IDS[30:].tolist())


def test_the_softmax_of_the_tests_is_one() -> None:
    assert np.allclose(softmax(ARRAYS["logits"]).sum(axis=1), 1.0, atol=1e-6)
    assert ARRAYS["probs"].shape == (NUM_ROWS, NUM_CLASSES)
