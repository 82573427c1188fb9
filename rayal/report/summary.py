"""How a run stands, as plain values: what `rayal status --json` prints and reports show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rayal.gold import GOLD
from rayal.ledger import Ledger
from rayal.metrics import METRICS, metric_of, no_rows
from rayal.report.orders import orders
from rayal.types import TestResult


def summary(ledger: Ledger) -> dict[str, Any]:
    """Gives state, metric, spend and one entry a finished round; the form is fixed."""
    run = ledger.run()
    kind = run.config["kind"]
    nothing = metric_of(kind, run.config.get("metric") or METRICS[kind][0], no_rows(kind, 2))
    rounds = []
    for event in ledger.events(step="tested"):
        result: TestResult = event.result
        seconds = seconds_of(ledger, event.round)
        num_labels = ledger.event(event.round, "labelled").result.num_rows  # type: ignore[union-attr]
        rounds.append(
            {
                "round": event.round,
                "num_labels": num_labels,
                "test_metric": result.value,
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
            }
        )
    labeler = run.config.get("labeler") or {}
    return {
        "state": ledger.state(),
        "metric": {"name": nothing.metric, "higher_is_better": nothing.higher_is_better},
        "waiting_for": run.waiting_for,
        "spend": {**_spend(ledger), "currency": labeler.get("currency", "USD")},
        "orders": _orders(ledger, run.config),
        "rounds": sorted(rounds, key=lambda one: one["round"]),
        "error": run.error,
    }


def _orders(ledger: Ledger, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is on order, in doubt or kept apart, and what the whole run is going to cost: as much
    a label as it did so far, or as listed."""
    spend, promised = _spend(ledger), ledger.promised()
    in_doubt = [one["key"] for one in orders(ledger) if one["state"] == "in doubt"]
    begun = sum(event.round >= 0 for event in ledger.events(step="ordered"))
    left = max(0, int(config.get("num_rounds") or 0) - begun) * int(config.get("budget") or 0)
    labeler = config.get("labeler") or {}
    listed = int(labeler.get("price_minor") or 0) * int(labeler.get("overlap") or 1)
    listed = math.ceil(listed * (1 + float(config.get("gold_share") or 0)))
    paid = -(-spend["amount_minor"] // spend["labels"]) if spend["labels"] else 0
    return {
        "promised_minor": promised,
        "forecast_minor": spend["amount_minor"] + promised + left * max(listed, paid),
        "in_doubt": in_doubt,
        "num_quarantined": len(ledger.quarantine()),
    }


def _spend(ledger: Ledger) -> dict[str, int]:
    """What was paid, gold questions with it, and for how many labels of samples."""
    spend = ledger.spend()
    return {**spend, "labels": spend["labels"] - ledger.spend(GOLD)["labels"]}


def annotators(ledger: Ledger) -> dict[str, Any] | None:
    """Gives what the newest snapshot's labels say of the annotators (`consensus.agreement_of`);
    None where no sample has two answers."""
    for event in reversed(ledger.events(step="labelled")):
        if "annotators" in event.notes:
            return dict(event.notes["annotators"])
    return None


def seconds_of(ledger: Ledger, t: int) -> dict[str, float]:
    """Gives the seconds of a round by phase, summed over its steps."""
    total: dict[str, float] = {}
    for event in ledger.events(t):
        for name, value in event.notes.get("seconds", {}).items():
            total[name] = total.get(name, 0.0) + value
    return total
