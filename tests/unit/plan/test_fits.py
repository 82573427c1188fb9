"""What cannot be, with its arithmetic, and what comes nearest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plans import ASKED, GIB, MEASURED, planned

from rayal.plan.fits import largest, misfits, proposals, small_vectors, widths_in
from rayal.plan.machine import Machine, existing, machine_of
from rayal.pool import Pool, ingest
from rayal.stopping.rules import MaxAmount
from rayal.types import Vocabulary

LARGE = Machine(2, 24 * GIB, 10**15, "runs/x")
WIDE = replace(MEASURED, widths={"embeds": (1_024, 4_096)})
HUGE = replace(ASKED, shard_rows=(1_000_000,) * 100, keep=None)


def test_a_run_that_fits() -> None:
    assert misfits(planned(), ASKED, MEASURED, LARGE) == []


def test_slices_that_no_disk_holds() -> None:
    machine = replace(LARGE, disk_bytes=64 * 10**9)
    found = misfits(planned(HUGE, WIDE), HUGE, WIDE, machine)
    assert found[0] == (
        "100,000,000 rows x (1,024 x 4 + 16 bytes) = 411 GB of slices on 1 node with 24.0 GiB "
        "memory, and 64.0 GB are free on the disk of runs/x"
    )


def test_survivors_that_no_disk_holds() -> None:
    asked = replace(HUGE, keep=10_000_000)
    machine = replace(LARGE, disk_bytes=10**9)
    (line,) = misfits(planned(asked, WIDE), asked, WIDE, machine)[:1]
    # Ten shards of the hundred leave all, then shard k + 1 leaves M / k.
    left = 10 * 1_000_000 + sum(10_000_000 / k for k in range(10, 100))
    assert line.startswith(f"{left:,.0f} survivors of 10,000,000 x (1,024 x 4 + 16 bytes) = ")


def test_what_a_rescoring_keeps_may_be_too_much() -> None:
    asked = replace(ASKED, rescoring="", kept_bytes=14 * 10**9)
    machine = replace(LARGE, disk_bytes=10**9)
    (line,) = misfits(planned(asked), asked, MEASURED, machine)
    assert "184 kB of slices + 14.0 GB of rescoring + 15 kB of checkpoints + " in line
    assert " = 14.0 GB on 1 node with " in line


def test_processes_that_no_memory_holds() -> None:
    asked = replace(ASKED, num_workers=3)
    machine = replace(LARGE, memory_bytes=GIB)
    assert misfits(planned(asked), asked, MEASURED, machine) == [
        "1 x driver 0.35 GiB + 3 x scorer 0.34 GiB = 1.4 GiB of memory, and this machine gives "
        "1.0 GiB"
    ]


def test_workers_of_a_cluster_need_no_memory_here() -> None:
    asked = replace(ASKED, num_workers=64, on_cluster=True)
    machine = replace(LARGE, memory_bytes=GIB)
    plan = planned(asked)
    assert plan.memory_bytes > 16 * GIB
    assert misfits(plan, asked, MEASURED, machine) == []
    assert plan.notes[-1].startswith("of a cluster only this machine is seen")
    (line,) = misfits(plan, asked, MEASURED, replace(machine, memory_bytes=GIB // 4))
    assert line.startswith("1 x driver 0.")
    assert "scorer" not in line


def test_money_for_no_round() -> None:
    plan = planned(price_minor=5, stopping=MaxAmount(400))
    (line,) = misfits(plan, ASKED, MEASURED, LARGE)
    assert line.startswith(
        "no round can begin: the labels cost 0 minor units and the next batch 500"
    )


@pytest.mark.parametrize(
    ("most_that_fits", "exact", "expected"),
    [
        (0, False, 0),
        (5, False, 5),
        (7_777, False, 7_700),
        (7_777, True, 7_777),
        (10**9, True, 9_999),
    ],
)
def test_the_largest_number_that_fits(most_that_fits: int, exact: bool, expected: int) -> None:
    assert largest(1, 9_999, lambda n: n <= most_that_fits, exact) == expected
    assert largest(5, 4, lambda _: True) == 0


@pytest.fixture(scope="module")
def byte_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("bytes")
    flat = pa.array(range(80), pa.int8())
    table = {
        "small": pa.FixedSizeListArray.from_arrays(flat, 8),
        "wide": pa.FixedSizeListArray.from_arrays(flat.cast(pa.float32()), 8),
        "label": ["a", "b"] * 5,
    }
    pq.write_table(pa.table(table), folder / "rows.parquet")
    return ingest(str(folder / "rows.parquet"), str(folder / "pool"), label_column="label")


def test_columns_of_the_pool_that_could_be_features(byte_pool: Pool) -> None:
    assert small_vectors(byte_pool) == ["small"]
    words = Vocabulary("class", ("a", "b", "c"))
    found = widths_in(MEASURED, byte_pool, words, ("embeds", "small", "wide", "probs"))
    assert found == {"embeds": (8, 32), "small": (8, 8), "wide": (8, 32), "probs": (3, 12)}
    assert widths_in(MEASURED, byte_pool, words, ("grads",)) is None


def test_every_proposal_was_tried(byte_pool: Pool) -> None:
    words = Vocabulary("class", ("a", "b"))
    strategy = {"selector": {"_target_": "x.KCenter", "feature": "embeds"}}
    tried: list[str] = []

    def fits(more: str) -> bool:
        tried.append(more)
        name, _, value = more.rpartition("=")
        return int(value) <= 41_234 if name.endswith("num_candidates") else True

    found = list(proposals(HUGE, WIDE, byte_pool, words, strategy, fits))
    assert [one.words for one in found] == [
        "'+strategy.scorer={_target_:rayal.scorers.random.Random}' +strategy.num_candidates=41000",
        "strategy.selector.feature=small",
        "strategy=cluster_margin",
    ]
    assert {one.words for one in found} - set(tried) == {found[0].words}  # rounded down from there
    assert list(proposals(HUGE, WIDE, byte_pool, words, strategy, lambda _: False)) == []
    scored = {**strategy, "scorer": {"_target_": "x.Margin"}, "num_candidates": None}
    asked = replace(HUGE, num_workers=6, price_minor=3)
    more = [one.words for one in proposals(asked, WIDE, byte_pool, words, scored, _small)]
    assert more == ["strategy.num_candidates=100", "engine.num_workers=2", "budget=7"]
    asked = replace(asked, rescoring="", kept_bytes=14, num_workers=0, price_minor=0)
    (one,) = proposals(asked, WIDE, byte_pool, words, scored, "rescoring=null".__eq__)
    assert one.words == "rescoring=null"


def _small(words: str) -> bool:
    most = {"strategy.num_candidates": 100, "engine.num_workers": 2, "budget": 7}
    name, _, value = words.rpartition("=")
    return name in most and int(value) <= most[name]


def test_this_machine(tmp_path: Path) -> None:
    found = machine_of(tmp_path / "not" / "yet")
    assert found.num_cores >= 1
    assert 2**28 < found.memory_bytes < 2**50
    assert found.disk_bytes > 0
    assert existing(tmp_path / "not" / "yet") == tmp_path
