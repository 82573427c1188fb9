"""rayal export: every label that was bought, one row an answer, as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.errors import ConfigError
from rayal.gold import GOLD
from rayal.history import SETTLED
from rayal.rundir import export_table, write_table


def main(arguments: Sequence[str]) -> int:
    """Writes the labels and says how many; gives the exit code."""
    parser = Parser(prog="rayal export", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--out", required=True, help="the Parquet file to write")
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    if Path(words.out).is_dir():
        raise ConfigError(f"--out is {words.out}, a folder that is there; name a Parquet file")
    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        batches = {event.round: event.result for event in ledger.events(step="selected")}
        labels = [one for one in ledger.labels() if one.round not in (GOLD, SETTLED)]
        table = export_table(run_dir, batches, labels, ledger.run().config["kind"])
    write_table(Path(words.out), table)
    print(f"{words.out}: {table.num_rows} labels")
    return 0
