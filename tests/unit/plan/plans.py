"""A run and a trial of round numbers, so that a plan can be added up by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rayal.plan.asked import Asked
from rayal.plan.estimate import Here, plan_of
from rayal.plan.laws import Law, each, once
from rayal.plan.measured import LabelTimes, Measured, Selected
from rayal.plan.phases import Plan
from rayal.plan.watch import Memory
from rayal.selectors.k_center import KCenter
from rayal.selectors.top_k import TopK
from rayal.stopping.rules import AnyOf
from rayal.types import Work

GIB = 2**30

ASKED = Asked(
    shard_rows=(1_000,) * 10,
    shard_bytes=100_000,
    num_test_rows=500,
    num_test_shards=5,
    num_rounds=3,
    budget=100,
    keep=1_000,
    keep_cold=1_000,
    features=("embeds",),
    selector="TopK",
    scorer="Margin",
    num_workers=0,
    in_flight=1,
    num_ranks=0,
    gpus_a_worker=0,
    price_minor=0,
    currency="USD",
    test_budget=0,
)

LABELS = LabelTimes(
    read=each(0.5, 0.25),
    order=Law((0.0, 0.01), (0.0, 0.01)),
    answer=Law((0.0, 0.02), (0.0, 0.02)),
    replay=Law((0.0, 0.001), (0.0, 0.001)),
    look=Law((0.0, 0.0), (0.0, 0.0)),
    batch=Law((1.0, 0.0), (0.5, 0.0)),
    snapshot=Law((1.0, 0.01), (0.5, 0.01)),
    report=each(0.5, 0.5),
    ledger_bytes=(4_000.0, 300.0),
    batch_bytes=100.0,
    snapshot_bytes=50.0,
)

MEASURED = Measured(
    cold=Law((0.0, 0.1, 0.0), (0.0, 0.1, 0.0)),
    score=Law((1.0, 0.2, 0.001), (1.0, 0.2, 0.002)),
    test=Law((0.0, 0.1, 0.01), (0.0, 0.1, 0.01)),
    trains=(Law((1.0, 0.0, 0.1, 0.0), (1.0, 0.0, 0.1, 0.0)),),
    first_train_s=2.0,
    selected=(Selected(1_000, 10, 0.5, 0.5), Selected(1_000, 100, 2.0, 1.0)),
    selected_cold=Selected(1_000, 100, 0.25, 0.25),
    num_workers=1,
    most_kept=1_000,
    num_labels=100,
    fetch=each(0.125, 0.125),
    labels=LABELS,
    around=once(4.0, 2.0),
    widths={"embeds": (8, 32)},
    row_bytes=40.0,
    read_bytes=20.0,
    test_read_bytes=10.0,
    report_bytes=1_000,
    checkpoint_bytes=5_000,
    base=Memory(100 << 20, 60 << 20),
    peaks={"score": {"driver": Memory(300 << 20, 90 << 20)}},
)

HERE = Here(3.0, 2.0, Memory(110 << 20, 60 << 20), 2.0)


class Steps:
    """A trainer of ten steps, as far as a plan is concerned."""

    num_workers, use_gpu, num_threads = 0, False, 1

    def work(self, num_labels: int) -> Work:
        return Work(10.0 * num_labels, 10)

    def brief(self, num_steps: int) -> Steps:
        return self

    def fit(self, *arguments: Any) -> Any:
        raise AssertionError("a plan does not train")


def planned(
    asked: Asked = ASKED,
    measured: Measured = MEASURED,
    selector: Any = None,
    stopping: Any = None,
    **changed: Any,
) -> Plan:
    """Gives the plan of a run; `changed` are fields of what is asked for."""
    return plan_of(
        replace(asked, **changed),
        measured,
        HERE,
        TopK() if selector is None else selector,
        tuple(Steps() for _ in measured.trains),
        AnyOf() if stopping is None else stopping,
    )


__all__ = ["ASKED", "GIB", "HERE", "LABELS", "MEASURED", "KCenter", "Steps", "planned"]
