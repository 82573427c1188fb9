"""rayal status: how a run stands, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.currency import format_money
from rayal.report.summary import summary


def main(arguments: Sequence[str]) -> int:
    """Prints how a run stands; gives the exit code."""
    parser = Parser(prog="rayal status", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--digest", action="store_true", help="a hash of all events without times, attempts, hosts"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    with open_run(words.run_dir, words.ledger_url) as (ledger, _):
        stands = summary(ledger)
        if words.digest:
            stands["digest"] = ledger.digest()
    if words.json:
        print(json.dumps(stands))
    elif words.digest:
        print(stands["digest"])
    else:
        print("\n".join(_lines(stands)))
    return 0


def _lines(stands: dict[str, Any]) -> list[str]:
    spend = stands["spend"]
    lines = [f"{stands['state']}; {spend['labels']} labels"]
    if spend["amount_minor"]:
        lines[0] += f", {format_money(spend['amount_minor'], spend['currency'])}"
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
