"""rayal status: how a run stands, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.currency import format_money
from rayal.report.summary import annotators, summary


def main(arguments: Sequence[str]) -> int:
    """Prints how a run stands; gives the exit code."""
    parser = Parser(prog="rayal status", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--digest", action="store_true", help="a hash of all events without times, attempts, hosts"
    )
    parser.add_argument(
        "--annotators", action="store_true", help="how good each is, by the labels agreed on"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    with open_run(words.run_dir, words.ledger_url) as (ledger, _):
        stands = summary(ledger)
        if words.digest:
            stands["digest"] = ledger.digest()
        if words.annotators:
            stands["annotators"] = annotators(ledger)
    if words.json:
        print(json.dumps(stands))
    elif words.annotators:
        print("\n".join(_of_annotators(stands["annotators"])))
    elif words.digest:
        print(stands["digest"])
    else:
        print("\n".join(_lines(stands)))
    return 0


def _of_annotators(noted: dict[str, Any] | None) -> list[str]:
    if noted is None:
        return ["no sample has two answers yet, so annotators cannot be compared"]
    agree = "not defined" if noted["alpha"] is None else f"{noted['alpha']:.3f}"
    lines = [f"{noted['num']} annotators; Krippendorff's alpha {agree}"]
    lines.append(f"{'answers':>9} {'right':>6}   95 % between     annotator")
    for one in noted["each"]:
        between = f"{one['low']:.3f} and {one['high']:.3f}"
        apart = "  (not heard)" if one["annotator"] in noted.get("quarantined", ()) else ""
        who = f"{one['annotator']}{apart}"
        lines.append(f"{one['num_answers']:>9} {one['accuracy']:>6.3f}   {between}  {who}")
    if noted["num"] > len(noted["each"]):
        lines.append(f"and {noted['num'] - len(noted['each'])} who answered less")
    return lines


def _lines(stands: dict[str, Any]) -> list[str]:
    spend = stands["spend"]
    lines = [f"{stands['state']}; {spend['labels']} labels"]
    if spend["amount_minor"]:
        lines[0] += f", {format_money(spend['amount_minor'], spend['currency'])}"
    placed = stands["orders"]
    if placed["promised_minor"] or placed["forecast_minor"] > spend["amount_minor"]:
        on_order, whole = (
            format_money(placed[name], spend["currency"])
            for name in ("promised_minor", "forecast_minor")
        )
        lines.append(f"{on_order} on order; the whole run is going to cost about {whole}")
    if placed["in_doubt"]:
        lines.append(f"in doubt: {', '.join(placed['in_doubt'])}; see rayal orders")
    if placed["num_quarantined"]:
        lines.append(f"{placed['num_quarantined']} answers were not taken; see rayal orders")
    if stands["waiting_for"]:
        lines.append(f"waiting for {stands['waiting_for']}")
    if stands["error"]:
        lines.append(f"error: {stands['error']}")
    if stands["rounds"]:
        lines.append(f"{'round':>5} {'labels':>9} {stands['metric']['name']:>10}   seconds")
    for one in stands["rounds"]:
        value = "-" if one["test_metric"] is None else f"{one['test_metric']:.4f}"
        seconds = "  ".join(f"{name} {value:.1f}" for name, value in one["seconds"].items())
        lines.append(f"{one['round']:>5} {one['num_labels']:>9} {value:>10}   {seconds}")
    return lines
