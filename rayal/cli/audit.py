"""rayal audit: what left this house, and whether the record is as it was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.errors import LedgerError
from rayal.ledger import Ledger
from rayal.rundir import RunDir

_MOST_SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """Verifies a run's record, or prints what went to whom and why; gives the exit code."""
    parser = Parser(prog="rayal audit", description=__doc__)
    parser.add_argument(
        "what", choices=("verify", "sent"), help="the whole record; or what left, to whom and why"
    )
    parser.add_argument("run_dir")
    parser.add_argument("--head", help="a hash that an earlier verify printed: it must be in there")
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        if words.what == "sent":
            for attempt in _sent(ledger):
                print(json.dumps(attempt))
            return 0
        found = [*ledger.problems(), *_of_files(ledger, run_dir)]
        entries = ledger.logged()
    if words.head and words.head not in {entry.hash for entry in entries}:
        found.append(f"no entry has the hash {words.head}: what was recorded then is gone")
    if found:
        more = len(found) - _MOST_SHOWN
        for line in found[:_MOST_SHOWN]:
            print(line)
        raise LedgerError(
            f"the record of {words.run_dir} is not as it was written: {len(found)} things differ"
            f"{f' ({more} more than shown)' if more > 0 else ''}; restore it from a copy"
        )
    head = entries[-1].hash if entries else "none"
    print(f"{len(entries)} entries are as they were written; the last one's hash: {head}")
    return 0


def _of_files(ledger: Ledger, run_dir: RunDir) -> list[str]:
    """Batches and snapshots against the hashes that the ledger has of them."""
    problems = []
    for event in ledger.events():
        if event.step in ("selected", "labelled"):
            try:
                run_dir.read(event.result)
            except LedgerError as error:
                problems.append(f"round {event.round}, step '{event.step}': {error}")
    return problems


def _sent(ledger: Ledger) -> list[dict[str, Any]]:
    return [
        {"at": one.at, "round": one.round, "chunk": one.subject, **one.detail}
        for one in ledger.logged()
        if one.what == "attempt"
    ]
