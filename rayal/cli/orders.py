"""rayal orders: what went out, what is in doubt, what came that is no label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.currency import format_money
from rayal.errors import LabelError
from rayal.ledger import Ledger
from rayal.report.orders import orders


def main(arguments: Sequence[str]) -> int:
    """Prints the orders of a run, or records what a person found out; gives the exit code."""
    parser = Parser(prog="rayal orders", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--quarantine", action="store_true", help="answers that were not taken, and why"
    )
    found_out = parser.add_mutually_exclusive_group()
    found_out.add_argument(
        "--assume-sent", metavar="KEY", help="the vendor has this chunk: do not send it again"
    )
    found_out.add_argument(
        "--assume-lost", metavar="KEY", help="the vendor has not got it: send it again"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    key = words.assume_sent or words.assume_lost
    if key:
        what = "assume-sent" if words.assume_sent else "assume-lost"
        with open_run(words.run_dir, words.ledger_url, writer=True) as (ledger, _):
            _assume(ledger, key, what)
        print(f"{key}: {what} is recorded; run the same `rayal run` again")
        return 0
    with open_run(words.run_dir, words.ledger_url) as (ledger, _):
        labeler = ledger.run().config.get("labeler") or {}
        told = {
            "orders": orders(ledger),
            "promised_minor": ledger.promised(),
            "currency": labeler.get("currency", "USD"),
            "quarantine": ledger.quarantine(),
        }
    if words.json:
        print(json.dumps(told))
    else:
        print("\n".join(_quarantined(told) if words.quarantine else _lines(told)))
    return 0


def _assume(ledger: Ledger, key: str, what: str) -> None:
    known = {one["key"]: one for one in orders(ledger)}
    if key not in known:
        some = ", ".join(name for name, one in known.items() if one["state"] == "in doubt")
        raise LabelError(f"there is no chunk {key}; in doubt are: {some or 'none'}")
    found = known[key]
    if found["state"] != "in doubt":
        raise LabelError(f"chunk {key} is not in doubt: it is {found['state']}")
    ledger.log(found["round"], key, what, {"said": "by a person"})


def _lines(told: dict[str, Any]) -> list[str]:
    currency = told["currency"]
    lines = [f"{'round':>5} {'rows':>7} {'cost':>14}  {'state':<11} chunk"]
    for one in told["orders"]:
        cost = format_money(one["cost_minor"], currency)
        again = f" ({one['num_attempts']} attempts)" if one["num_attempts"] > 1 else ""
        lines.append(
            f"{one['round']:>5} {one['num_rows']:>7} {cost:>14}  {one['state']:<11} "
            f"{one['key']}{again}{': ' + one['said'] if one['said'] else ''}"
        )
    lines.append(f"on order, and not answered: {format_money(told['promised_minor'], currency)}")
    if told["quarantine"]:
        lines.append(f"{len(told['quarantine'])} answers were not taken: see --quarantine")
    return lines


def _quarantined(told: dict[str, Any]) -> list[str]:
    if not told["quarantine"]:
        return ["every answer was taken"]
    return [
        f"round {one['round']}, sample_id {one['sample_id']}, {one['value']!r} by "
        f"'{one['annotator']}' (event {one['event_id']} revision {one['revision']}): {one['why']}"
        for one in told["quarantine"]
    ]
