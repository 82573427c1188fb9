"""rayal report: writes RUN_DIR/report.html anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.errors import ConfigError
from rayal.report import write_report
from rayal.report.summary import summary
from rayal.report.view import Curve
from rayal.storage import named


def main(arguments: Sequence[str]) -> int:
    """Writes the page and prints its path; gives the exit code."""
    parser = Parser(prog="rayal report", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument(
        "--compare", nargs="*", default=[], metavar="NAME=DIR", help="other runs' curves"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        metric = summary(ledger)["metric"]["name"]
        page = write_report(ledger, run_dir, _curves(words.compare, metric, words.run_dir))
        print(named(page))
    return 0


def _curves(pairs: Sequence[str], metric: str, own: str) -> dict[str, Curve]:
    """Gives the curves of other runs by name; each run's ledger is found as its own command would.

    Raises:
        ConfigError: a run measures something else, or two have one name.
    """
    curves: dict[str, Curve] = {}
    for pair in pairs:
        is_named = "=" in pair and not Path(pair).is_dir()
        name, folder = pair.split("=", 1) if is_named else (pair, pair)
        with open_run(folder) as (ledger, _):
            stands = summary(ledger)
        found = stands["metric"]["name"]
        if found != metric:
            raise ConfigError(
                f"--compare {pair}: {folder} measures {found} and {own} {metric}, which cannot be "
                "compared; leave it out, or start it anew with the same metric=..."
            )
        if name in curves:
            raise ConfigError(f"--compare has two runs of the name '{name}'; give each its own")
        curves[name] = tuple((one["num_labels"], one["test_metric"]) for one in stands["rounds"])
    return curves
