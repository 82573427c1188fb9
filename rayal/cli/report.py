"""rayal report: writes RUN_DIR/report.html anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rayal.cli.opening import open_run
from rayal.report import write_report
from rayal.report.summary import summary


def main(arguments: Sequence[str]) -> int:
    """Writes the page and prints its path; gives the exit code."""
    parser = argparse.ArgumentParser(prog="rayal report", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument(
        "--compare", nargs="*", default=[], metavar="NAME=DIR", help="other runs' curves"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    curves = {}
    for pair in words.compare:
        name, _, folder = pair.rpartition("=")
        with open_run(folder) as (other, _):
            rounds = summary(other)["rounds"]
        curves[name or folder] = tuple((one["num_labels"], one["test_metric"]) for one in rounds)
    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        print(write_report(ledger, run_dir, curves))
    return 0
