"""Limits on columns of a pool, through a pass and on disk."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from passes import Stage
from runs import loop_of

from rayal.engine import survivors
from rayal.engine.local import LocalEngine
from rayal.errors import ConfigError, PoolError, RayalError
from rayal.pool import ingest
from rayal.types import PREDICTED_CLASS

LIMITS = "strategy.selector.limits"
WORDS = ("Österreich", "Bhutan", "Cuba", "the United Kingdom of Great Britain and Northern Ireland")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """600 rows with a country, a price and a text, of which some repeat."""
    folder = tmp_path_factory.mktemp("limits")
    rng = np.random.default_rng(0)
    rows_ND = rng.normal(size=(600, 8)).astype(np.float32)
    country = rng.choice(4, 600, p=[0.7, 0.2, 0.08, 0.02])
    columns = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), 8),
        "country": [WORDS[place] for place in country],
        "country_number": country,
        "price": np.round(rng.exponential(1.0, 600) + 0.01, 2),
        "text": [f"row {n}" for n in rng.integers(0, 60, 600)],
        "hole": pa.array([None if n == 77 else "x" for n in range(600)]),
        "label": [("ant", "bee", "cat")[place] for place in (rows_ND[:, :3].argmax(1))],
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    source, path = str(folder / "rows.parquet"), str(folder / "pool")
    pool = ingest(source, path, label_column="label", rows_per_shard=150)
    return Stage.build(pool, folder)


def select(stage, folder, *overrides, budget=40, reverse=False):
    loop, _ = loop_of(*stage.overrides, *overrides)
    engine = LocalEngine(reverse)
    engine.open(stage.pool, loop.predictor, loop.trainer)
    done, picks = stage.select(engine, loop.strategy, folder, budget)
    return done, picks, stage.pool.rows(picks.ids, stage.pool.schema.names)


@pytest.mark.parametrize("rows_per_slice", [1, 65_536])
def test_a_column_of_text_is_balanced_like_one_of_numbers(
    stage, tmp_path, rows_per_slice, monkeypatch
):
    monkeypatch.setattr(survivors.plan_slices, "__defaults__", (rows_per_slice,))
    by_text = ("strategy=margin_balanced", f"{LIMITS}.group=country")
    _, picks, rows = select(stage, tmp_path / "a", *by_text)
    counts = Counter(rows.column("country").to_pylist())
    assert len(picks.ids) == 40
    assert max(counts.values()) - sorted(counts.values())[1] <= 1  # the rarest gave all it had
    assert set(counts) == set(WORDS)
    for reason, word in zip(picks.reasons, rows.column("country").to_pylist(), strict=True):
        assert reason.endswith(f" of group {word.encode()[:32].decode(errors='ignore')}")
    by_number = ("strategy=margin_balanced", f"{LIMITS}.group=country_number")
    again = select(stage, tmp_path / "b", *by_number, reverse=True)[1]
    assert sorted(again.ids) == sorted(picks.ids)


def test_quotas_by_name_money_and_text_that_repeats(stage, tmp_path):
    overrides = (
        "strategy=margin",
        f"+{LIMITS}={{_target_: rayal.selectors.limits.Limits, group: country, "
        "quotas: {Bhutan: 3, Cuba: 2}, quota: 12, cost: price, max_cost: 15, duplicates: text}",
    )
    _, picks, rows = select(stage, tmp_path, *overrides)
    counts = Counter(rows.column("country").to_pylist())
    assert 0 < counts["Bhutan"] <= 3
    assert counts["Cuba"] <= 2
    assert max(counts.values()) <= 12
    assert sum(rows.column("price").to_pylist()) <= 15.0
    texts = rows.column("text").to_pylist()
    assert len(set(texts)) == len(texts)
    known = stage.pool.rows(stage.taken.ids, ["text"]).column("text").to_pylist()
    assert not set(texts) & set(known)
    assert "groups met their quota (" in picks.note
    assert "of 15 spent at a price of " in picks.note


def test_predicted_classes_take_eight_bytes_a_row(stage, tmp_path):
    done, picks, _ = select(stage, tmp_path, "strategy=margin_balanced", budget=30)
    part = done.candidates.slices[0]
    assert list(part.features) == [PREDICTED_CLASS]
    assert part.feature(PREDICTED_CLASS).dtype == np.int64
    classes = {
        int(i): int(c)
        for one in done.candidates.slices
        for i, c in zip(one.ids, one.feature(PREDICTED_CLASS), strict=True)
    }
    counts = Counter(classes[int(i)] for i in picks.ids)
    assert sorted(counts.values()) == [10, 10, 10]


def test_quotas_of_predicted_classes_go_by_the_names_of_labels(stage, tmp_path):
    by_name = ("strategy=margin_balanced", f"{LIMITS}.balance=false")
    quotas = f"{LIMITS}.quotas={{ant: 3, cat: 20}}"
    done, picks, _ = select(stage, tmp_path, *by_name, quotas)
    classes = {
        int(i): ("ant", "bee", "cat")[int(c)]
        for one in done.candidates.slices
        for i, c in zip(one.ids, one.feature(PREDICTED_CLASS), strict=True)
    }
    assert Counter(classes[int(i)] for i in picks.ids)["ant"] == 3
    assert "groups met their quota (ant" in picks.note
    with pytest.raises(ConfigError, match="no class: cow; the classes are ant, bee, cat: correct"):
        loop_of(*stage.overrides, *by_name, f"{LIMITS}.quotas={{ant: 3, cow: 20}}")


def test_columns_that_limits_cannot_read_are_refused(stage, tmp_path):
    with pytest.raises(ConfigError, match=r"'continent' is neither an output .* nor a column"):
        loop_of(*stage.overrides, "strategy=margin_balanced", f"{LIMITS}.group=continent")
    with pytest.raises(PoolError, match="column 'hole' has 1 nulls"):
        select(stage, tmp_path / "a", "strategy=margin_balanced", f"{LIMITS}.group=hole")
    with pytest.raises(RayalError, match="column 'text' is string, expected numbers"):
        select(
            stage, tmp_path / "b", "strategy=margin_balanced", f"{LIMITS}.cost=text",
            f"{LIMITS}.max_cost=3",
        )  # fmt: skip
    with pytest.raises(ConfigError, match="expected group, cost, duplicates or near"):
        loop_of(*stage.overrides, "strategy=margin_distinct", f"{LIMITS}.near=null")
    with pytest.raises(ConfigError, match="cold_start needs probs, but round 0 has no model"):
        loop_of(*stage.overrides, "strategy@cold_start=random", (
            "+cold_start.selector.limits={_target_: rayal.selectors.limits.Limits, "
            "group: predicted_class, quota: 3}"
        ))  # fmt: skip
